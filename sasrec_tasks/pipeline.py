"""The tasks in order, and how a run of them begins.

The command line and the DAG both start a run here, so that settings are checked and frozen the
same way; each task then needs nothing but the URL of the run's folder.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sasrec_tasks import addresses, chosen_places, roots
from sasrec_tasks.artifacts import RunStore, Summary
from sasrec_tasks.config import GROUPS, NARROWING_TABLES, PLACES, Settings
from sasrec_tasks.errors import BadSettings, RetryCannotHelp
from sasrec_tasks.naming import fields, flat, from_names, is_operator_only, parse_assignments
from sasrec_tasks.run_folders import enclosing, in_store

if TYPE_CHECKING:
    from sasrec_tasks.runs import Ending

log = logging.getLogger(__name__)

TASKS = ("ingest", "validate", "split", "train", "evaluate", "gate", "export")

REFIT = "refit"
"""What comes before the last of them where `refit.enabled` is set."""

LAST = "prune"
"""What comes after them, whatever became of them; no part of the run, so that it has neither folder nor marker."""

MOMENTS = ("as_of", "data_interval_start")


def tasks_of(settings: Settings) -> tuple[str, ...]:
    """The tasks of a run with these settings, in order."""
    if not settings.refit.enabled:
        return TASKS
    before = TASKS.index("export")
    return (*TASKS[:before], REFIT, *TASKS[before:])


def start(settings: Settings, run_id: str) -> RunStore:
    """Check where a run reads and writes, and freeze its settings in its folder.

    Raises:
        BadSettings: a place that is not set or outside `ingest.allowed_roots`, a bad run id, or a table that names a
            list of forgotten users which the store has not.
        BadData: a table that narrows the export lacks a column.
        OSError: the table can't be read.
    """
    from sasrec_tasks import named_list, narrowing  # not when a DAG file is parsed
    from sasrec_tasks.schema import build_schema
    from sasrec_tasks.tables import open_tables

    for name in PLACES:
        place = getattr(settings, name)
        if not place:
            raise BadSettings(f"{name}: not set: give it as a setting, or as {environment_name(name)}")
        for each in roots.places(place) if name == "table" else [place]:
            addresses.check(name, each)
            roots.check(name, each, settings.ingest.allowed_roots)
            if name != "source":
                roots.require_plain(name, each)
                if run := enclosing(each):
                    raise BadSettings(
                        f"{name}={each!r}: lies in the folder of the run {run}, which is that run's alone: name "
                        "another place"
                    )
    if own := settings.validate_.schema_file:
        try:
            build_schema(Path(own))
        except BadSettings as error:
            raise BadSettings(f"validate.schema_file: {error}") from error
    for name, place in narrowing.named(settings).items():
        addresses.check(name, place)
        roots.check(name, place, settings.ingest.allowed_roots)
    store = RunStore.of(settings.store, run_id)
    # rather now than after hours of training:
    newest = next(open_tables(settings.table).published(), None)
    if not (store.is_started() and store.marker("export")):  # a run that has ended reads nothing again
        if newest:
            named_list.require(newest, table=settings.table, store=store.store)
        narrowing.check(settings, settings.as_of or datetime.now(UTC))
    store.freeze(settings)
    return store


def new_run_id(now: datetime | None = None) -> str:
    """An id for a run that was given none, from the time it starts."""
    return (now or datetime.now(UTC)).strftime("manual__%Y-%m-%dT%H:%M:%S.%f")


def run_task(task: str, run: str) -> Summary:
    """Run one task of a run that was started.

    Args:
        task: one of `TASKS`, `REFIT` or `LAST`.
        run: URL of the run's folder.
    """
    from sasrec_tasks import failures

    store = RunStore(run)
    settings = store.settings()
    _hold_places(store, settings)
    module = importlib.import_module(f"sasrec_tasks.{task}")  # torch and the like only where needed
    try:
        summary: Summary = module.run(store, settings)
    except Exception as error:
        if task == LAST:
            raise  # what became of the run is written down
        reason = failures.said(error)
        failures.record(store, task, reason)
        if isinstance(error, RetryCannotHelp):
            _ended(store, settings, task, *failures.ending(reason))
        raise
    if task != LAST:
        failures.forget(store)
    if task == "export":
        _ended(store, settings, task, "published" if summary["published"] else "superseded")
    return summary


def _hold_places(store: RunStore, settings: Settings) -> None:
    """Refuse to write where a folder has become a link out of the allowed roots since the run was started."""
    roots.check("store", store.uri, settings.ingest.allowed_roots)
    for place in roots.places(settings.table):
        roots.check("table", place, settings.ingest.allowed_roots)


def record_failed(run: str, reasons: Mapping[str, str]) -> None:
    """Write down, in its folder and in the table of runs, what became of a run in which a task has failed for good.

    For whoever sees the end of all tries: a task that ran out of retries or of time, was killed or marked failed could
    not do so itself. A run that is written down like this already stays as it is.

    Args:
        run: URL of the run's folder.
        reasons: task → class and text of its exception; "" if that is not known.

    Raises:
        BadSettings, OSError: the run's settings can't be read.
    """
    from sasrec_tasks import failures

    store = RunStore(run)
    settings = store.settings()
    _hold_places(store, settings)
    for task, reason in reasons.items():
        if task != LAST:
            failures.record(store, task, reason)
            _ended(store, settings, task, *failures.ending(reason))
            return


def _ended(store: RunStore, settings: Settings, task: str, ending: Ending, reason: str = "") -> None:
    """Write down what became of a run."""
    from sasrec_tasks import runs, textfile
    from sasrec_tasks.tables import open_tables

    row = runs.record(store, settings, task=task, ending=ending, reason=reason)
    if row and (file := settings.metrics.textfile):
        served = None
        with suppress(OSError, ValueError):
            served = next(open_tables(settings.table).published(), None)
        textfile.write(file, row, roots.places(settings.table)[0], served)


def run_all(
    store: RunStore, *, around: Callable[[str], AbstractContextManager[None]] = lambda task: nullcontext()
) -> dict[str, Any]:
    """Run all tasks in this process, and prune at the end; if that fails it is a warning, the publish stands.

    Args:
        around: called with each task's name; its context is held while the task runs.

    Returns:
        run_id, run (URL), as_of, and per task its summary and seconds; metrics and verdict whole.
    """
    from sasrec_tasks import failures

    seconds: dict[str, float] = {}
    summaries: dict[str, Summary] = {}
    try:
        for task in tasks_of(store.settings()):
            started = time.monotonic()
            with around(task):
                summaries[task] = run_task(task, store.uri)
            seconds[task] = round(time.monotonic() - started, 3)
    except Exception as error:
        with suppress(OSError, ValueError):  # it may be the store that failed
            record_failed(store.uri, {task: failures.said(error)})
        _prune(store)
        raise
    _prune(store)
    return result(store, summaries, seconds)


def _prune(store: RunStore) -> None:
    try:
        run_task(LAST, store.uri)
    except Exception as error:
        log.warning("prune: failed, what is published stays so, the next run tries again: %s", error)


def newest_run(store: str) -> RunStore:
    """The run of a store that came to a verdict last.

    Raises:
        BadSettings: there is none.
    """
    if not store:
        raise BadSettings(f"store: not set: give it as a setting, or as {environment_name('store')}")
    ended = [
        (marker.finished_at, run.run_id, run) for run in in_store(store) if (marker := run.marker("gate"))
    ]
    if not ended:
        raise BadSettings(f"store={store!r}: no run in it has come to a verdict: see the log of the last one")
    return max(ended, key=lambda each: each[:2])[2]


def result(store: RunStore, summaries: Mapping[str, Summary], seconds: Mapping[str, float]) -> dict[str, Any]:
    """What a finished run says about itself, as JSON can hold it."""
    as_of = store.settings().as_of
    export = summaries.get("export", {"table": store.settings().table, "version": None, "published": False})
    return {
        "run_id": store.run_id,
        "run": store.uri,
        "as_of": as_of.isoformat() if as_of else None,
        "metrics": store.read_json("evaluate", "metrics.json"),
        "verdict": store.read_json("gate", "verdict.json"),
        "table": export["table"],
        "version": export["version"],
        "published": export["published"],
        "resumed_from_epoch": summaries["train"]["resumed_from_epoch"],
        "seconds": dict(seconds),
        "tasks": dict(summaries),
    }


def refused(store: RunStore) -> dict[str, Any]:
    """What a run says about itself that the gate refused; its figures are those of `run_all`."""
    tried = tasks_of(store.settings())[:-1]
    markers = {task: marker for task in tried if (marker := store.marker(task))}
    return result(
        store,
        {task: marker.summary for task, marker in markers.items()},
        {task: marker.seconds for task, marker in markers.items()},
    )


# A run that is triggered from outside


def environment_name(name: str) -> str:
    """Environment variable of a place: SASREC_SOURCE, …"""
    return f"SASREC_{name.upper()}"


def triggered_settings(
    params: Mapping[str, Any],
    conf: Mapping[str, Any],
    deployment: Callable[[str], str | None],
    as_of: datetime,
    data_interval: timedelta | None = None,
) -> Settings:
    """Settings of a run that someone triggered in the UI, by REST, or that the scheduler started.

    Args:
        params: the form's values, by the settings' names.
        conf: what came with the trigger; Airflow lets unknown keys through, this does not.
        deployment: reads what the operator has set: source, store, table, allowed_roots, the tables that narrow the
            export, what is kept (`prune_keep_days` for `prune.keep_days`) and what is told (`metrics_textfile`).
        as_of: the run's own moment, where the form leaves it empty.
        data_interval: how long before `as_of` the run's data interval starts, where the form does not say; None: it
            has none.

    Raises:
        BadSettings: unknown or operator-only settings, values out of bounds, an address with a secret in it, or a
            place that is named by the trigger and lies under none of the operator's roots, or in the folder of a run.
    """
    conf = flat(conf)  # `{"prune": {…}}` names settings, too
    addresses.check_triggered(conf)  # first: no message says it again
    for name, field in fields():
        if is_operator_only(field) and name in conf:
            raise BadSettings(f"{name}: only the operator of this deployment can set it")
    kept = [
        f"{name}={text}"
        for name, field in fields()
        if name.startswith(("prune.", "metrics.")) and is_operator_only(field)
        if (text := deployment(name.replace(".", "_")))
    ]
    # (Airflow puts what came with the trigger among the Params as well)
    values = {**{n: v for n, v in params.items() if n not in GROUPS}, **conf, **parse_assignments(kept)}
    left_empty = {name for name in (*PLACES, *MOMENTS) if values.get(name) in ("", None)}
    chosen = from_names({n: value for n, value in values.items() if n not in left_empty}, where="conf")
    own = {name: deployment(name) or "" for name in PLACES}
    narrowed = {name: deployment(name) or None for name in NARROWING_TABLES}
    named = {name: getattr(chosen, name) for name in PLACES}
    listed = deployment("allowed_roots") or ""
    allowed = chosen_places.allowed_roots(listed, own, filter(None, narrowed.values()))
    chosen_places.check(named, own, allowed)
    update: dict[str, Any] = {name: place or own[name] for name, place in named.items()}
    update["as_of"] = end = chosen.as_of or as_of
    if chosen.data_interval_start is None and data_interval is not None:
        with suppress(OverflowError):  # before the year 1
            update["data_interval_start"] = end - data_interval
    update["export"] = chosen.export.model_copy(update=narrowed)
    # Tasks follow links, and hold what they lead to against the same list.
    if chosen.ingest.allowed_roots is None and (roots.places(listed) or any(named.values())):
        update["ingest"] = chosen.ingest.model_copy(update={"allowed_roots": allowed})
    return chosen.model_copy(update=update)
