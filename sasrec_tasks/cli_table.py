"""What people ask of the table on the command line: rows, freshness, the way back; and what it asks of them."""

from __future__ import annotations

import getpass
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sasrec_tasks.errors import BadSettings, NotFresh

stdout = Console()

TableUrl = Annotated[
    str, typer.Option("--table", envvar="SASREC_TABLE", help="Where the recommendations are published.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (recommend, check, rollback, history, approve):
        app.command()(command)


def recommend(
    table: TableUrl,
    user: Annotated[str, typer.Option(help="USER_ID.")],
    top_k: Annotated[int, typer.Option(min=1, help="At most so many items.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Print a user's rows; the popular items for a user who is not in the table."""
    from sasrec_tasks.listings import listed
    from sasrec_tasks.tables import open_tables

    tables = open_tables(table)
    rows = tables.for_users([user]).slice(0, top_k)
    known = len(rows) > 0
    rows = rows if known else tables.popular().slice(0, top_k)
    if as_json:
        typer.echo(json.dumps(rows.to_pylist(), default=str))
        return
    if not known:
        typer.echo(f"{user}: not in {table}, so the popular items:", err=True)
    stdout.print(listed(rows))


def check(
    table: TableUrl,
    max_age: Annotated[str, typer.Option(help="Oldest as_of that is fresh: 26h, 90m, 2d.")] = "26h",
    min_users: Annotated[int, typer.Option(min=0, help="Fewest users with rows.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Say whether the table is fresh; exit status 0 if it is, 4 if not, for a sensor or a probe."""
    from sasrec_tasks.tables import Recommendations

    newest = Recommendations(table)
    oldest = _duration(max_age)
    users = newest.users()
    problems = []
    if newest.age > oldest:
        problems.append(f"as_of is {_told(newest.age)}, --max-age is {max_age}")
    if users < min_users:
        problems.append(f"{users:,} users have rows, --min-users is {min_users:,}")
    facts = {
        "fresh": not problems,
        "version": newest.version,
        "run_id": newest.run_id,
        "as_of": newest.as_of.isoformat(),
        "age_seconds": round(newest.age.total_seconds()),
        "users": users,
        "problems": problems,
    }
    if as_json:
        typer.echo(json.dumps(facts))
    elif not problems:
        typer.echo(
            f"fresh: version {newest.version} of {_told(newest.age)}, {users:,} users (run {newest.run_id})"
        )
    if problems:
        raise NotFresh(f"{table}, version {newest.version}: " + "; ".join(problems))


def rollback(
    table: TableUrl,
    to: Annotated[int | None, typer.Option(help="Version to serve again.")] = None,
    to_run: Annotated[str, typer.Option(help="Run whose rows to serve again.")] = "",
    as_json: AsJson = False,
) -> None:
    """Serve an earlier publish again, by default the one before; the popular items and the champion follow."""
    from sasrec_tasks.rollback import roll_back
    from sasrec_tasks.tables import open_tables

    served = next(open_tables(table).published(), None)
    done = roll_back(table, version=to, run_id=to_run)
    if as_json:
        typer.echo(json.dumps(done))
    elif served and done["version"] == served.version:
        typer.echo(
            f"version {done['version']} serves run {done['run_id']} of {done['as_of']} already: nothing was done"
        )
    else:
        typer.echo(
            f"version {done['version']} serves run {done['run_id']} of {done['as_of']} again, "
            f"instead of run {done['instead_of']}"
        )


def history(
    table: TableUrl,
    store: Annotated[
        str,
        typer.Option(envvar="SASREC_STORE", help="Where the runs are kept if the table is in a database."),
    ] = "",
    last: Annotated[int, typer.Option(min=1, help="At most so many runs, the newest.")] = 30,
    picture: Annotated[
        Path | None, typer.Option(help="File to draw them into as well, .svg or .png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the runs: what became of each, how good, how large, how long."""
    from sasrec_tasks import runs
    from sasrec_tasks.listings import listed_runs

    if picture:
        from sasrec_tasks.pictures import draw_runs
    found = runs.read(runs.url_of(table, store))
    if not len(found):
        raise BadSettings(
            f"table={table!r}: no run is written down there: check the URL, or start a run first"
        )
    found = runs.with_rollbacks(found, table)
    found = found.slice(max(len(found) - last, 0))
    if picture:
        draw_runs(found, picture)
    if as_json:
        typer.echo(json.dumps(found.to_pylist(), default=str))
    else:
        stdout.print(listed_runs(found))


def approve(
    run_id: Annotated[str, typer.Option(help="Run whose verdict asks.")],
    store: Annotated[str, typer.Option(envvar="SASREC_STORE", help="Folder that holds the runs.")],
    refuse: Annotated[bool, typer.Option("--refuse", help="Leave the table as it is.")] = False,
    by: Annotated[str, typer.Option(help="Who decides; by default, who is logged in.")] = "",
    as_json: AsJson = False,
) -> None:
    """Answer a verdict that asks a person; `run --run-id` or `export --run-id` then publishes."""
    from sasrec_tasks import approval
    from sasrec_tasks.artifacts import RunStore

    given = approval.answer(RunStore.of(store, run_id), approved=not refuse, by=by or getpass.getuser())
    if as_json:
        typer.echo(json.dumps(given))
    else:
        typer.echo(f"{'approved' if given['approved'] else 'refused'}: " + "; ".join(given["asks"]))


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if not found:
        raise BadSettings(f"--max-age {text!r}: write a number and s, m, h or d, for instance 26h")
    return timedelta(seconds=float(found[1]) * UNITS[found[2]])


def _told(age: timedelta) -> str:
    hours = abs(age.total_seconds()) / 3600
    length = f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} d"
    return f"{length} ago" if age >= timedelta() else f"{length} ahead of this machine's clock"
