"""What a person sees in a terminal of the table: rows, the runs behind them, what was pruned."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sasrec_tasks.forget import Report as Forgotten
from sasrec_tasks.prune import Report


def listed(rows: pa.Table) -> Group:
    """Rows of one user, or the popular items, and which run they are of."""
    table = Table("rank", "item", "score", "origin", box=SIMPLE_HEAD)
    for row in rows.to_pylist():
        item = Text(printable(row["ITEM_ID"]), overflow="fold")
        table.add_row(str(row["RANK"]), item, f"{row['SCORE']:.4f}", row["ORIGIN"])
    if not len(rows):
        return Group(Text("No rows."))
    return Group(table, Text(f"Run {rows['RUN_ID'][0]}, events before {rows['AS_OF'][0]}", style="dim"))


def listed_runs(runs: pa.Table) -> Table:
    """The table of runs: when, what became of it, how good, how large."""
    table = Table(box=SIMPLE_HEAD)
    for name in ("as of", "run", "ending", "NDCG@10", "users"):
        table.add_column(name, justify="right" if name == "users" else "left", no_wrap=name != "run")
    for row in runs.to_pylist():
        half = (row["NDCG_HIGH"] - row["NDCG_LOW"]) / 2 if row["NDCG"] is not None else 0.0
        table.add_row(
            f"{row['AS_OF']:%Y-%m-%d %H:%M}",
            Text(short(row["RUN_ID"]), overflow="fold"),
            _ending(row),
            "" if row["NDCG"] is None else f"{row['NDCG']:.4f} ±{f'{half:.3f}'[1:]}",
            "" if row["USERS"] is None else f"{row['USERS']:,}",
        )
    return table


def listed_pruned(report: Report) -> Group:
    """What was removed from each table and of the runs' folders, and why the rest is kept."""
    gone = "would be removed" if report.dry_run else "removed"
    parts: list[Any] = []
    for table in report.tables:
        rows = [(f"version {each.version}, run {each.run_id}", gone) for each in table.removed]
        rows += [(f"run {run_id}", f"kept: {why}") for run_id, why in table.kept.items()]
        if table.leftovers:
            rows.append((f"{table.leftovers} files of publishes that did not come to an end", gone))
        parts.append(_two_columns(f"Rows in {table.url}", rows))
    runs = [(run_id, f"kept: {why}" if why else gone) for run_id, why in report.runs.items()]
    parts.append(_two_columns("Runs' folders", runs))
    return Group(*parts, Text(f"{report.bytes / 1e6:,.1f} MB {'would be ' if report.dry_run else ''}freed"))


def listed_forgotten(report: Forgotten) -> Group:
    """What was changed in the table and the runs' folders, and what the search has found then."""
    parts: list[Any] = []
    for table in report.tables:
        gone = ", ".join(map(str, table.removed))
        rows = [
            (
                "version that serves the rows without them",
                "none" if table.version is None else str(table.version),
            )
        ]
        parts.append(_two_columns(f"Rows in {table.url}", [*rows, ("versions removed", gone or "none")]))
    runs = [
        (f"run {done.run_id}", f"{task}: to be run again: {why}")
        for done in report.runs
        for task, why in done.discarded.items()
    ]
    runs += [(f"run {done.run_id}", f"{done.files} files written anew") for done in report.runs if done.files]
    if not report.dry_run:
        runs.append(("reasons in the table of runs that named them", str(report.reasons)))
        runs.append(
            ("on the list of those left out from now on", f"{report.listed} of {report.users} are new")
        )
        parts.append(_two_columns("Runs", runs))
    if report.other_tables:
        others = [(table, "not searched: forget with --table") for table in report.other_tables]
        parts.append(_two_columns("Other tables of runs in this store", others))
    found = report.searched
    of_tables = f", {found.tables} tables of the database" if found.tables else ""
    told = (
        f"{found.files:,} files ({found.bytes / 1e6:,.1f} MB){of_tables} searched, found {len(found.found)}"
    )
    return Group(
        *parts, *(Text(f"found: {printable(place)}", overflow="fold") for place in found.found), Text(told)
    )


def _two_columns(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, show_header=False)
    for what, becomes in rows or [("none", "")]:
        table.add_row(Text(printable(what), overflow="fold"), Text(printable(becomes), overflow="fold"))
    return table


def _ending(row: dict[str, Any]) -> str:
    if row["ENDING"] in ("refused", "failed"):
        return f"{row['ENDING']} at {row['TASK']}"
    parts = [row["ENDING"]]
    if row["VERSION"] is not None:
        parts.append(str(row["VERSION"]))
    if row["VERDICT"] and json.loads(row["VERDICT"])["forced"]:
        parts.append("forced")
    if row["REASON"]:  # published, but not to all tables, say
        parts.append(f"{row['TASK']} failed")
    return ", ".join(parts)


def printable(text: str) -> str:
    """Text on one line; what does not print, or turns the direction of what does, as its escape."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def short(text: str) -> str:
    """An id on one line, cut off after 30 characters."""
    text = printable(text)
    return text if len(text) <= 30 else f"{text[:29]}…"
