"""What people see of a run: complete, within 80 columns, whatever the ids look like."""

from __future__ import annotations

import io
import re
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.listings import listed
from sasrec_tasks.pipeline import TASKS
from sasrec_tasks.tables import open_tables
from sasrec_tasks.terminal import report


def shown(what: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.fixture(scope="module")
def text(finished: Any) -> str:
    return shown(report(RunStore(f"{finished.store}/first")))


def test_the_report_fits_80_columns_with_nothing_cut_off(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_the_report_has_every_task_and_its_result(text: str, finished: Any) -> None:
    store = RunStore(f"{finished.store}/first")
    for task in TASKS:
        line = next(line for line in text.splitlines() if line.split()[:1] == [task])
        assert f"{store.marker(task).seconds:.1f}" in line  # type: ignore[union-attr]
    assert "100 users" in text
    assert "1,000 rows" in text


def test_the_report_has_model_and_baselines_under_each_protocol(text: str, finished: Any) -> None:
    metrics = RunStore(f"{finished.store}/first").read_json("evaluate", "metrics.json")
    for block in (metrics, *metrics["baselines"].values()):
        for protocol in ("sampled", "full", "full_with_seen"):
            for metric in ("hr@10", "ndcg@10", "mrr"):
                low, high = block[protocol]["ci95"][metric]
                half = f"±{(high - low) / 2:.3f}".replace("±0", "±")
                assert f"{block[protocol][metric]:.4f} {half}" in text


def test_the_report_samples_users_with_their_history(text: str, finished: Any) -> None:
    samples = text[text.index("Sample recommendations") :]
    users = re.findall(r"^ *(user \d+)", samples, flags=re.MULTILINE)
    assert len(set(users)) == 3
    user = users[0]
    best = open_tables(finished.table).for_users([user])["ITEM_ID"][0].as_py()
    assert f"1. {best} (" in samples


def test_the_report_says_where_the_table_is_and_what_the_gate_found(finished: Any) -> None:
    wide = shown(report(RunStore(f"{finished.store}/first")), width=1000)
    assert f"Table: {finished.table} (version 0" in wide
    assert "Gate: passed" in wide
    assert "better than popularity" in wide


def test_ids_that_look_like_markup_are_shown_as_they_are(place: Any, chains: Any) -> None:
    events = chains()
    for column, name in ((0, "USER_ID"), (1, "ITEM_ID")):
        odd = pa.array([f"[/b]:cat: {value}\n" for value in events[name].to_pylist()])
        events = events.set_column(column, name, odd)
    place.write(events)
    store = place.run("run")
    assert "[/b]:cat: user" in shown(report(store))
    rows = open_tables(place.table).for_users(["[/b]:cat: user 3\n"])
    assert "[/b]:cat: item" in shown(listed(rows))
    assert "\\n" in shown(listed(rows))


def test_a_warning_of_split_is_shown(place: Any, chains: Any) -> None:
    events = chains()
    short = pa.table(
        {
            "USER_ID": [f"short {user}" for user in range(200)],
            "ITEM_ID": [f"item {user % 60}" for user in range(200)],
            "OUTCOME": [1.0] * 200,
            "TIMESTAMP": [1_700_000_000] * 200,
        }
    )
    place.write(pa.concat_tables([events, short]))
    assert "two events or fewer" in shown(report(place.run("run")))


def test_an_older_run_is_not_said_to_be_published(place: Any) -> None:
    place.run("february", {"as_of": "2024-02-01"})
    store = place.run("january", {"as_of": "2024-01-01"})
    text = shown(report(store))
    assert "left as it is" in " ".join(text.split()) or "left as it was" in " ".join(text.split())
    assert "Sample recommendations" not in text


def test_no_rows_are_no_error(finished: Any) -> None:
    assert "No rows" in shown(listed(open_tables(finished.table).for_users(["nobody"])))
