"""What a person sees in a terminal of a finished run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import HISTORY, METRICS, USERS, VERDICT, interactions, item_ids
from sasrec_tasks.item_age import age_name
from sasrec_tasks.listings import short
from sasrec_tasks.pipeline import tasks_of
from sasrec_tasks.results import result_of
from sasrec_tasks.tables import open_tables

RECENT_ITEMS = 5
SHOWN_ITEMS = 5
BLOCKS = "▁▂▃▄▅▆▇█"


def report(store: RunStore) -> Group:
    """A finished run: time per task, metrics beside the baselines, the table, three users."""
    settings = store.settings()
    parts: list[Any] = [Text(f"Run {store.run_id}", style="bold"), Text(store.uri, style="dim")]
    parts += [_padded(_tasks(store)), *_warnings(store)]
    metrics = store.read_json("evaluate", METRICS)
    parts.append(_padded(_metrics(metrics)))
    if table := _by_item_age(metrics):
        parts.append(_padded(table))
    parts.append(_curve(store))
    parts.append(_gate(store.read_json("gate", VERDICT)))
    export = store.marker("export")
    if export and not export.summary["published"]:
        parts.append(Text(f"Table: {settings.table} holds a later as_of and was left as it is"))
    elif export:
        facts = f"version {export.summary['version']}, {export.summary['rows']:,} rows"
        parts += [
            Text(f"Table: {settings.table} ({facts})"),
            _padded(_samples(store, settings.table)),
        ]
    return Group(*parts)


def _padded(what: Any) -> Padding:
    return Padding(what, (1, 0, 0, 0))


def _tasks(store: RunStore) -> Table:
    table = Table("task", "seconds", "result", title="Tasks", title_justify="left", box=SIMPLE_HEAD)
    table.columns[1].justify = "right"
    for task in tasks_of(store.settings()):
        marker = store.marker(task)
        if marker is None:
            table.add_row(task, "", "not finished")
        else:
            table.add_row(task, f"{marker.seconds:.1f}", Text(result_of(task, marker.summary)))
    return table


def _warnings(store: RunStore) -> list[Text]:
    split = store.marker("split")
    return [
        Text(f"Warning: {warning}", style="yellow")
        for warning in (split.summary["warnings"] if split else ())
    ]


RANKINGS = {"sampled": "sampled", "full": "full", "full_with_seen": "with seen"}


def _metrics(metrics: dict[str, Any]) -> Table:
    """Fits 80 columns."""
    title = (
        f"Metrics on the test items of {metrics['users_evaluated']:,} users, ± half of the 95% interval\n"
        f"sampled: among {metrics['negatives']} random unseen items; full: among all unseen ones;\n"
        "with seen: among all"
    )
    if fewer := metrics["users_with_fewer_negatives"]:
        title += f"\nsampled: {fewer:,} users have fewer unseen items: all of them are used"
    table = Table("ranking", "scorer", title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in ("HR@10", "NDCG@10", "MRR"):
        table.add_column(name, justify="right", no_wrap=True)
    for protocol, ranking in RANKINGS.items():
        for scorer, figures in (("SASRec", metrics), *metrics["baselines"].items()):
            cells = []
            for metric in ("hr@10", "ndcg@10", "mrr"):
                low, high = figures[protocol]["ci95"][metric]
                cells.append(
                    f"{figures[protocol][metric]:.4f} ±{f'{(high - low) / 2:.3f}'.removeprefix('0')}"
                )
            table.add_row(
                ranking if scorer == "SASRec" else "",
                scorer.replace("_", " "),
                *cells,
                style="bold" if scorer == "SASRec" else "",
                end_section=scorer == "recent_popularity",
            )
    return table


def _by_item_age(metrics: dict[str, Any]) -> Table | None:
    """New items, if there are any among the older ones; fits 80 columns."""
    buckets = [of for of in metrics.get("by_item_age", ()) if of["items"]]
    if len(buckets) < 2:
        return None
    title = (
        "By age of the test item in days, and of items without a training event:\n"
        "full ranking, and shares of catalogue, recent events and top 10 lists"
    )
    table = Table("days", title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in ("users", "HR@10", "NDCG@10", "catalogue", "events", "lists"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [(age_name(of["item_age_days"]), of) for of in buckets]
    if metrics["never_trained_on"]["items"]:
        rows.append(("no training event", metrics["never_trained_on"]))
    for name, of in rows:
        table.add_row(
            name,
            f"{of['users']:,}",
            *(f"{of['full'][metric]:.4f}" if of["users"] else "" for metric in ("hr@10", "ndcg@10")),
            f"{of['share_of_catalogue']:.1%}",
            f"{of['share_of_recent_events']:.1%}",
            f"{of['share_of_recommendations']['model']:.1%}",
            end_section=of is buckets[-1],
        )
    return table


def _gate(verdict: dict[str, Any]) -> Text:
    outcome = (
        "published anyway"
        if verdict["forced"]
        else "asks for approval"
        if verdict["asks"]
        else "passed"
        if verdict["passed"]
        else "refused"
    )
    lines = [f"Gate: {outcome}", *(f"  {reason}" for reason in verdict["reasons"])]
    return Text("\n".join([*lines, verdict["refit"]] if "refit" in verdict else lines))


def _curve(store: RunStore) -> Text:
    """The validation metric over the epochs, as a line of blocks."""
    history = pq.read_table(store.folder("train") / HISTORY).to_pydict()
    values = np.array(history["metric"], dtype=float)
    metric = store.settings().train.early_stopping_metric
    shown = values[np.linspace(0, len(values) - 1, min(len(values), 60)).round().astype(int)]
    low, high = np.nanmin(shown), np.nanmax(shown)
    heights = np.zeros(len(shown)) if high == low else (shown - low) / (high - low)
    line = "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights)
    name = {"ndcg@10": "NDCG@10"}.get(metric, metric)
    return Text(f"Validation {name} over {len(values)} epochs: {values[0]:.4f} {line} {values[-1]:.4f}")


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
        box=SIMPLE_HEAD,
    )
    for user in chosen:
        end, length = events.ends[user], events.lengths[user]
        recent = [items[item - 1] for item in events.items[end - min(length, RECENT_ITEMS) : end]]
        served = [row for row in rows if row["USER_ID"] == ids[user]][:SHOWN_ITEMS]
        table.add_row(
            Text(short(ids[user])),  # as Text: an id may look like markup
            Text("\n".join(map(short, recent))),
            Text("\n".join(f"{row['RANK']}. {short(row['ITEM_ID'])} ({row['SCORE']:.2f})" for row in served)),
            end_section=True,
        )
    return table
