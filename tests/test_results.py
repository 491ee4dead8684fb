"""What the log of a night that went well says: in ten lines a task, what came of it, how fast, and where that is."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks import progress
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import GateRefused
from sasrec_tasks.pipeline import tasks_of
from sasrec_tasks.results import COUNTED, FILES, closing_line, result_of

Lines = dict[str, list[str]]


def by_task(caplog: pytest.LogCaptureFixture) -> Lines:
    """Task → what it said."""
    said: Lines = defaultdict(list)
    for record in caplog.records:
        if record.name.startswith("sasrec_tasks"):
            task, _, line = record.getMessage().partition(": ")
            said[task].append(line)
    return said


@pytest.fixture
def night(place: Any, caplog: pytest.LogCaptureFixture) -> tuple[RunStore, Lines]:
    """A night after another one, with all that a gate looks at, and a refit; and what it said."""
    chosen = {"refit.enabled": True, "gate.tolerance": 1.0}
    place.run("first", {**chosen, "as_of": "2026-01-01"})
    with caplog.at_level(logging.INFO):
        store = place.run("second", {**chosen, "as_of": "2026-01-02"})
    return store, by_task(caplog)


def test_each_task_ends_with_what_came_of_it_its_cost_and_its_place(night: tuple[RunStore, Lines]) -> None:
    store, said = night
    for task in tasks_of(store.settings()):
        marker = store.marker(task)
        assert marker
        assert 1 <= len(said[task]) <= 10, said[task]
        result, cost, file = said[task][-1].split("; ")
        assert result == result_of(task, marker.summary)
        assert cost.startswith(f"{marker.seconds:,.1f} s, ")
        assert cost.endswith(f"at most {marker.peak_rss_mb:,} MB of memory")
        assert bool(re.search(r" [\d,]+ (rows|events|users)/s", cost)) == (task in COUNTED)
        assert Path(file) == Path(store.root) / task / FILES.get(task, "")
        assert Path(file).exists()


def test_the_lines_have_the_counts_and_the_run_s_folder(night: tuple[RunStore, Lines], chains: Any) -> None:
    store, said = night
    rows = f"{len(chains()):,}"
    assert said["ingest"][0] == f"run second is in {store.uri}"
    assert said["ingest"][-1].startswith(f"{rows} rows in 1 file(s)")
    assert said["validate"][-1].startswith(f"0 of {rows} rows rejected")
    assert said["split"][-1].startswith(f"{rows} events of 100 users and 40 items")
    assert said["export"][-1].startswith("1,000 rows for 100 users")
    assert f"version 1 of {store.settings().table}" in said["export"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"train.epochs": 3}, "all epochs are done"),
        ({"train.epochs": 500, "train.early_stopping_patience": 1}, "train.early_stopping_patience"),
        ({"train.epochs": 5000, "train.max_minutes": 0.01}, "train.max_minutes"),
    ],
)
def test_a_training_says_why_it_ended_and_which_epoch_is_the_best(
    place: Any, caplog: pytest.LogCaptureFixture, settings: dict[str, Any], why: str
) -> None:
    with caplog.at_level(logging.INFO):
        store = place.run("run", settings, upto="train")
    marker = store.marker("train")
    assert marker
    epochs, best = marker.summary["epochs"], marker.summary["best_epoch"]
    (ended,) = [line for line in by_task(caplog)["train"] if line.startswith("ended")]
    assert ended.startswith(f"ended ({why}) with epoch {epochs}: loss ")
    assert f"epoch {best}: loss " in ended
    assert f"validation ndcg@10 {marker.summary['metric']:.4f}" in ended
    assert by_task(caplog)["train"][-1].startswith(f"best epoch {best} of {epochs}, on cpu")


def test_a_training_that_goes_on_from_an_earlier_try_says_so(
    place: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = place.run("run", {"train.epochs": 3}, upto="train")
    (Path(store.root) / "train" / "_SUCCESS").unlink()
    with caplog.at_level(logging.INFO):
        place.run("run", {"train.epochs": 3}, upto="train")
    assert any("the first 3 are an earlier try's" in line for line in by_task(caplog)["train"])


def test_of_hundreds_of_short_epochs_the_log_tells_some(
    place: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {"train.epochs": 60, "train.early_stopping_patience": None}
    with caplog.at_level(logging.INFO):
        place.run("run", many, upto="train")
    assert sum("epoch" in line for line in by_task(caplog)["train"]) < 20
    caplog.clear()
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        place.run("all", many, upto="train")
    told = [line for line in by_task(caplog)["train"] if re.match(r"epoch \d+: loss ", line)]
    assert len(told) == 60


def test_what_is_done_already_says_where(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    place.run("run", upto="ingest")
    with caplog.at_level(logging.INFO):
        store = place.run("run", upto="ingest")
    assert re.fullmatch(rf"nothing to do, done at .*; {store.uri}/ingest", by_task(caplog)["ingest"][-1])


def test_a_refused_gate_says_where_its_verdict_is(
    place: Any, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(GateRefused):
        place.run("run", bad)
    last = by_task(caplog)["gate"][-1]
    assert last.startswith("refused, no champion yet; ")
    assert last.endswith(f"{place.store}/run/gate/verdict.json")


def test_a_summary_that_does_not_say_all_has_a_line_all_the_same() -> None:
    said = closing_line("train", {"epochs": 3}, seconds=61.84, peak_mb=None, folder="s3://runs/a/train")
    assert said == "train: 61.8 s; s3://runs/a/train/model.safetensors"
    said = closing_line("eligible", {}, seconds=0.0, peak_mb=1200, folder="/runs/a/eligible")
    assert said == "eligible: 0.0 s, at most 1,200 MB of memory; /runs/a/eligible"
