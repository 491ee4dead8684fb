"""`sasrec-tasks`: the pipeline without Airflow, one task of a run, and what people ask of the table.

Exit status: 0 published (or done; a run whose table holds a later as_of is done too), 1 failed,
2 bad usage or settings, 3 the gate refused, 4 the table is not fresh (`check`).
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from sasrec_tasks import cli_forget, cli_table
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.cli_table import AsJson, TableUrl
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings, GateRefused, NotFresh, RetryCannotHelp, exit_status
from sasrec_tasks.extras import needs
from sasrec_tasks.naming import as_names, from_names, parse_assignments, read_yaml

app = typer.Typer(
    name="sasrec-tasks",
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

KINDS: dict[type[Exception], str] = {GateRefused: "Gate refused", NotFresh: "Not fresh"}

stdout = Console()
stderr = Console(stderr=True)

Source = Annotated[
    str, typer.Option(envvar="SASREC_SOURCE", help="Interactions: parquet file, folder, glob or fsspec URL.")
]
Store = Annotated[
    str, typer.Option(envvar="SASREC_STORE", help="Folder or fsspec URL that holds a folder per run.")
]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="One setting, for instance train.epochs=5; may be repeated."
    ),
]
RunId = Annotated[str, typer.Option(help="Name of the run; an existing one is gone on with.")]
AsOf = Annotated[str, typer.Option(help="Read no events at or after this moment (ISO 8601); now by default.")]


def _folder(text: str) -> Path:
    if not text.strip():  # an unset variable; the current folder is not what was meant
        raise typer.BadParameter("is empty: name a folder, for instance ~/airflow")
    return Path(text)


@app.command()
def run(
    source: Source = "",
    store: Store = "",
    table: TableUrl = "",
    config: Config = None,
    set_: Set = None,
    run_id: RunId = "",
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Run all tasks, from the source to the published table, then prune."""
    from sasrec_tasks import pipeline

    settings = _settings(config, set_, run_id, source=source, store=store, table=table, as_of=as_of)
    started = pipeline.start(settings, run_id or pipeline.new_run_id())
    with _shown():
        try:
            result = pipeline.run_all(started)
        except GateRefused:
            if as_json:
                typer.echo(json.dumps(pipeline.refused(started)))
            raise
    if as_json:
        typer.echo(json.dumps(result))
    else:
        from sasrec_tasks.terminal import report

        stdout.print(report(started))


def _task_command(task: str) -> None:
    def command(store: Store = "", run_id: RunId = "", as_json: AsJson = False) -> None:
        from sasrec_tasks import pipeline

        with _shown():
            summary = pipeline.run_task(task, _existing(store, run_id).uri)
        typer.echo(json.dumps(summary, indent=None if as_json else 2))

    app.command(task, help=f"Run `{task}` alone, with the settings kept in the run's folder.")(command)


@app.command()
def ingest(
    context: typer.Context,
    source: Source = "",
    store: Store = "",
    table: TableUrl = "",
    config: Config = None,
    set_: Set = None,
    run_id: RunId = "",
    as_of: AsOf = "",
    as_json: AsJson = False,
) -> None:
    """Run `ingest` alone; with settings on the command line, start the run first."""
    from sasrec_tasks import pipeline

    origins = [context.get_parameter_source(name) for name in ("source", "table")]
    named = any(origin and origin.name == "COMMANDLINE" for origin in origins)  # not by the environment
    anew = config or set_ or as_of or named
    if not anew and RunStore.of(store, run_id or "-").is_started():
        started = _existing(store, run_id)
    else:
        settings = _settings(config, set_, run_id, source=source, store=store, table=table, as_of=as_of)
        started = pipeline.start(settings, run_id or pipeline.new_run_id())
    with _shown():
        summary = pipeline.run_task("ingest", started.uri)
    typer.echo(json.dumps({"run_id": started.run_id, **summary}, indent=None if as_json else 2))


for _task in ("validate", "split", "train", "evaluate", "gate", "refit", "export"):
    _task_command(_task)


@app.command()
def show(
    store: Store = "",
    run_id: Annotated[str, typer.Option(help="Name of the run; the newest by default.")] = "",
) -> None:
    """Show a finished run: time per task, metrics, verdict, sample recommendations."""
    from sasrec_tasks.pipeline import newest_run
    from sasrec_tasks.terminal import report

    stdout.print(report(_existing(store, run_id) if run_id else newest_run(store)))


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="HTML file to write; it needs nothing beside it.")],
    store: Store = "",
    run_id: Annotated[str, typer.Option(help="Name of the run; the newest by default.")] = "",
) -> None:
    """Write the report of a run, finished or not: verdict, metrics, training curve, examples, data, tasks."""
    from sasrec_tasks.pipeline import newest_run
    from sasrec_tasks.report import content, page

    found = content.read(_existing(store, run_id) if run_id else newest_run(store))
    try:
        out.write_text(page.run_page(found), encoding="utf-8")
    except OSError as error:
        raise BadSettings(f"--out {str(out)!r}: can't be written: {error}") from error
    typer.echo(f"{found.status.kind}: {out}")


@app.command()
def prune(
    store: Store = "",
    table: TableUrl = "",
    config: Config = None,
    set_: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, print what would be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old versions of the table and old runs' folders (settings prune.*), and print why others are kept."""
    from sasrec_tasks import prune as pruning
    from sasrec_tasks.listings import listed_pruned

    settings = _settings(config, set_, "", store=store, table=table)
    for name in ("store", "table"):
        if not getattr(settings, name):
            raise BadSettings(f"{name}: not set: give it as --{name}, or as SASREC_{name.upper()}")
    chosen = settings.prune.model_copy(update={"dry_run": dry_run or settings.prune.dry_run})
    report = pruning.prune(settings.table, settings.store, chosen)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        stdout.print(listed_pruned(report))


cli_table.add_to(app)
app.command()(cli_forget.forget)


@app.command()
def airflow_files(
    to: Annotated[
        Path,
        typer.Option(help="Folder that gets dags/ and plugins/, for instance AIRFLOW_HOME.", parser=_folder),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are there with other content.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; status 1 if they are not those of this version.")
    ] = False,
) -> None:
    """Write the DAG files and the plugin of this version, for an Airflow to read."""
    from sasrec_tasks import airflow_files as files

    if check:
        missing, changed = files.differing(to)
        for name in missing:
            stdout.print(f"missing: {to / name}", soft_wrap=True)
        for name in changed:
            stdout.print(f"differs: {to / name}", soft_wrap=True)
        raise typer.Exit(int(bool(missing or changed)))
    for name in files.write(to, force=force):
        stdout.print(to / name, soft_wrap=True)


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Parquet file to write; its figures go beside it as JSON.")],
    users: Annotated[int, typer.Option(help="Users.")] = 12_000,
    items: Annotated[int, typer.Option(help="Items, at least 2,000.")] = 2000,
    events: Annotated[int, typer.Option(help="Events, all users together.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Write demo interactions whose best reachable HR@10 is known."""
    from sasrec_tasks.generate import generate as write

    try:
        generated = write(out, users=users, items=items, events=events, seed=seed)
    except ValueError as error:
        raise BadSettings(str(error)) from error
    typer.echo(json.dumps(generated.as_dict(), indent=2, default=str))


def _settings(config: Path | None, assignments: list[str] | None, run_id: str, **options: str) -> Settings:
    """What an existing run has kept, then the file, then `--set`, then the options; the later wins."""
    values: dict[str, Any] = {}
    if run_id and options["store"] and (kept := RunStore.of(options["store"], run_id)).is_started():
        values = as_names(kept.settings())
    values |= read_yaml(config) if config else {}
    values |= parse_assignments(assignments or [])
    values |= {name: value for name, value in options.items() if value}
    return from_names(values)


def _existing(store: str, run_id: str) -> RunStore:
    if not run_id:
        raise BadSettings("--run-id: name the run")
    found = RunStore.of(store, run_id)
    found.settings()
    return found


def _shown() -> Any:
    """Bars where a person looks on, log lines elsewhere; both on stderr."""
    from sasrec_tasks import progress
    from sasrec_tasks.bars import bars

    logger = logging.getLogger("sasrec_tasks")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        if stderr.is_terminal:
            handler: logging.Handler = RichHandler(
                console=stderr, show_path=False, show_level=False, markup=False
            )
        else:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    return progress.use(bars(stderr) if stderr.is_terminal else progress.log_lines)


def main() -> None:
    """Entry point: errors that people can act on are one message on stderr, without a traceback."""
    try:
        app()
    except ModuleNotFoundError as error:
        if not (told := needs(error.name or "")):
            raise
        typer.echo(f"Error: {' '.join(sys.argv[1:2])}: {told}", err=True)
        sys.exit(2)
    except Exception as error:
        if not isinstance(error, RetryCannotHelp | OSError):
            raise
        kind = KINDS.get(type(error), "Error")
        typer.echo(f"{kind}: {error}", err=True)
        sys.exit(exit_status(error))
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command with the run's --run-id goes on from here.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
