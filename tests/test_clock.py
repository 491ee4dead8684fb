"""The wall clock goes back an hour or forward a day, between tasks and within them: nights are as they are by a clock
that is right."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fault_state
import pytest
from wall_clock import HOUR, day_ahead, hour_behind, jumping, shifted

from sasrec_tasks import alerts, progress, runs, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import TASKS, run_task, start
from sasrec_tasks.tables import Recommendations

DAY = 24 * HOUR
SETTINGS: dict[str, Any] = {
    "train.epochs": 1,
    "train.hidden_units": 16,
    "train.max_len": 20,
    "train.device": "cpu",
    "evaluate.bootstrap_samples": 100,
    "gate.force_publish": True,
}
"""Of a quick night whose as_of is when it starts."""


def as_before(place: Any, finished: Any) -> None:
    """The run "first" of a place is what it is by a clock that is right, and took no time that can't be."""
    run, right = (RunStore.of(each.store, "first") for each in (place, finished))
    assert fault_state.served(place.table) == fault_state.served(finished.table)
    assert trained.model_hash(run) == trained.model_hash(right)
    assert run.read_json("evaluate", "metrics.json") == right.read_json("evaluate", "metrics.json")
    for task in TASKS:
        marker = run.marker(task)
        assert marker
        assert marker.seconds >= 0
    (row,) = runs.read(f"{place.table}_runs").to_pylist()
    assert row["ENDING"] == "published"
    assert row["SECONDS"] >= 0


@pytest.mark.parametrize(
    "ahead", [[0, -HOUR, -HOUR, DAY, 0, -HOUR, DAY], [DAY, 0, 0, -HOUR, DAY, -HOUR, 0]], ids=["late", "early"]
)
def test_a_clock_that_jumps_between_tasks(place: Any, finished: Any, ahead: list[float]) -> None:
    store = place.start("first")
    for task, seconds in zip(TASKS, ahead, strict=True):
        with shifted(lambda seconds=seconds: seconds):  # type: ignore[misc]
            run_task(task, store.uri)
    as_before(place, finished)


def test_a_clock_that_jumps_at_each_look(place: Any, finished: Any) -> None:
    with shifted(jumping(DAY, 0, -HOUR, 10 * DAY, -400 * DAY)):
        place.run("first")
    as_before(place, finished)


def test_training_takes_as_many_minutes_as_it_may_whatever_the_clock_says(
    place: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), shifted(jumping(0, 400 * DAY, -HOUR)):
        store = place.run("run", {"train.max_minutes": 30}, upto="train")
    marker = store.marker("train")
    assert marker.summary["stopped"] == "epochs"
    left = re.findall(r"at most (\S+) left", caplog.text)
    assert left
    assert all(re.fullmatch(r"0:\d\d:\d\d", each) for each in left)


def test_a_night_of_a_clock_that_was_put_back_does_not_replace_what_is_later(place: Any) -> None:
    places = {"source": place.source, "store": place.store, "table": place.table}
    summaries = []
    for run_id, clock in (("right", lambda: 0.0), ("behind", hour_behind), ("ahead", day_ahead)):
        with shifted(clock):
            store = start(from_names({**SETTINGS, **places}), run_id)
            summaries.append([run_task(task, store.uri) for task in TASKS][-1])
    assert [summary["published"] for summary in summaries] == [True, False, True]
    assert Recommendations(place.table).run_id == "ahead"


def test_what_is_of_tomorrow_by_this_clock_is_told_as_such(
    finished: Any, command: Callable[..., Any]
) -> None:
    as_of = Recommendations(finished.table).as_of
    with shifted(lambda: (as_of - datetime.now(UTC)).total_seconds() - DAY):
        told = alerts.served(finished.table)
        shown = command("check", "--table", finished.table)
    assert "24 h ahead of this machine's clock" in told
    assert shown.status == 0
    assert "of 24.0 h ahead of this machine's clock" in shown.out
