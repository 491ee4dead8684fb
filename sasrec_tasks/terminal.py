"""What a person sees in a terminal: progress bars, and the report of a finished run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console, Group
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import HISTORY, METRICS, USERS, VERDICT, interactions, item_ids
from sasrec_tasks.pipeline import TASKS
from sasrec_tasks.progress import Advance, Bar
from sasrec_tasks.tables import open_tables

RECENT_ITEMS = 5
SHOWN_ITEMS = 5
BLOCKS = "▁▂▃▄▅▆▇█"


def bars(console: Console) -> Bar:
    """Progress as bars with rate and time left; for `progress.use`."""

    @contextmanager
    def bar(description: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("·"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(description, total=total, rate="", note="")

            def advance(done: int, note: str = "") -> None:
                speed = progress.tasks[0].speed
                rate = f"{speed:,.0f} {unit}/s" if speed else ""
                progress.update(task, completed=done, rate=rate, note=note)

            yield advance

    return bar


def report(store: RunStore) -> Group:
    """A finished run: time per task, metrics beside the baselines, the table, three users."""
    settings = store.settings()
    parts: list[Any] = [Text(f"Run {store.run_id}", style="bold"), Text(store.uri, style="dim")]
    parts += [_padded(_tasks(store)), _padded(_metrics(store.read_json("evaluate", METRICS)))]
    parts.append(_curve(store))
    verdict = store.read_json("gate", VERDICT)
    outcome = "published anyway" if verdict["forced"] else "passed" if verdict["passed"] else "refused"
    parts.append(Text(f"Gate: {outcome}: " + "; ".join(verdict["reasons"])))
    export = store.marker("export")
    if export:
        where = f"{settings.table} (Delta Lake, version {export.summary['version']})"
        if not export.summary["published"]:
            where = f"{settings.table} holds a newer run and was left as it is"
        parts += [
            Text(f"Table: {where}, {export.summary['rows']:,} rows"),
            Text(f"Popular items: {settings.table}_popular"),
        ]
        if export.summary["published"]:
            parts.append(_padded(_samples(store, settings.table)))
    return Group(*parts)


def _padded(what: Any) -> Padding:
    return Padding(what, (1, 0, 0, 0))


def _tasks(store: RunStore) -> Table:
    table = Table("task", "seconds", "result", title="Tasks", title_justify="left")
    table.columns[1].justify = "right"
    for task in TASKS:
        marker = store.marker(task)
        if marker is None:
            table.add_row(task, "", "not finished")
            continue
        facts = [
            f"{value:,} {name.replace('_', ' ')}"
            for name, value in marker.summary.items()
            if isinstance(value, int) and not isinstance(value, bool)
        ]
        table.add_row(task, f"{marker.seconds:.1f}", ", ".join(facts))
    return table


def _metrics(metrics: dict[str, Any]) -> Table:
    title = (
        f"Metrics on the test items of {metrics['users_evaluated']:,} users, with 95% intervals "
        f"(sampled: 1 of {metrics['negatives'] + 1})"
    )
    table = Table("ranking", "scorer", title=title, title_justify="left")
    for name in ("HR@10", "NDCG@10", "MRR"):
        table.add_column(name, justify="right")
    for protocol in ("sampled", "full", "full_with_seen"):
        for scorer, figures in (("SASRec", metrics), *metrics["baselines"].items()):
            cells = []
            for metric in ("hr@10", "ndcg@10", "mrr"):
                low, high = figures[protocol]["ci95"][metric]
                cells.append(f"{figures[protocol][metric]:.4f} ({low:.3f}–{high:.3f})")
            table.add_row(
                protocol if scorer == "SASRec" else "",
                scorer.replace("_", " "),
                *cells,
                style="bold" if scorer == "SASRec" else "",
                end_section=scorer == "recent_popularity",
            )
    return table


def _curve(store: RunStore) -> Text:
    """The validation metric over the epochs, as a line of blocks."""
    history = pq.read_table(store.folder("train") / HISTORY).to_pydict()
    values = np.array(history["metric"], dtype=float)
    metric = store.settings().train.early_stopping_metric
    shown = values[np.linspace(0, len(values) - 1, min(len(values), 60)).round().astype(int)]
    low, high = np.nanmin(shown), np.nanmax(shown)
    heights = np.zeros(len(shown)) if high == low else (shown - low) / (high - low)
    line = "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights)
    return Text(f"Validation {metric} over {len(values)} epochs: {values[0]:.4f} {line} {values[-1]:.4f}")


def _samples(store: RunStore, url: str, users: int = 3) -> Table:
    """Users from the whole range of history lengths: what they did last, what they are served."""
    events = interactions(store, store.settings()).events
    ids, items = pq.read_table(store.folder("split") / USERS)["USER_ID"].to_pylist(), item_ids(store)
    by_length = np.argsort(events.lengths, kind="stable")
    chosen = by_length[np.linspace(0, len(by_length) - 1, users + 2).astype(int)[1:-1]]
    rows = open_tables(url).for_users([ids[user] for user in chosen]).to_pylist()
    table = Table(
        "user",
        f"last {RECENT_ITEMS} items",
        f"top {SHOWN_ITEMS} (score)",
        title="Sample recommendations",
        title_justify="left",
    )
    for user in chosen:
        end, length = events.ends[user], events.lengths[user]
        recent = [items[item - 1] for item in events.items[end - min(length, RECENT_ITEMS) : end]]
        served = [row for row in rows if row["USER_ID"] == ids[user]][:SHOWN_ITEMS]
        table.add_row(
            _short(ids[user]),
            "\n".join(map(_short, recent)),
            "\n".join(f"{row['RANK']}. {_short(row['ITEM_ID'])} ({row['SCORE']:.2f})" for row in served),
            end_section=True,
        )
    return table


def _short(text: str) -> str:
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= 30 else f"{text[:29]}…"
