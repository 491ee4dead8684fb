"""A verdict that asks waits for a person, and is for the weights that were asked about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from sasrec_tasks import approval
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.tables import open_tables

ASKS = {
    "gate.ask_overlap": 1.0,
    "train.random_state": 1,
}  # no list may change, and another model changes some


def asked(place: Any) -> Any:
    """A run whose verdict asks, beside what yesterday's published."""
    place.run("yesterday")
    return place.run("run", ASKS, upto="gate")


def published(place: Any) -> list[str]:
    return [each.run_id for each in open_tables(place.table).published()]


def test_nothing_is_published_before_a_person_has_approved(place: Any) -> None:
    store = asked(place)
    verdict = store.read_json("gate", "verdict.json")
    assert verdict["publish"]
    assert not verdict["passed"]
    assert len(verdict["asks"]) == 1
    assert verdict["reasons"][0] == verdict["asks"][0]
    with pytest.raises(GateRefused, match="until a person approves: overlap"):
        run_task("export", store.uri)
    assert published(place) == ["yesterday"]
    given = approval.answer(store, approved=True, by="ann")
    assert (given["by"], given["asks"]) == ("ann", verdict["asks"])
    run_task("export", store.uri)
    assert published(place) == ["run", "yesterday"]


def test_a_no_is_final_until_there_is_another_answer(place: Any) -> None:
    store = asked(place)
    approval.answer(store, approved=False, by="ann")
    with pytest.raises(GateRefused, match="ann did not approve"):
        run_task("export", store.uri)
    approval.answer(store, approved=True, by="bob")
    run_task("export", store.uri)
    assert published(place) == ["run", "yesterday"]


def test_a_run_waits_until_a_person_has_approved_these_weights(place: Any) -> None:
    store = asked(place)
    assert approval.waits(store)
    approval.answer(store, approved=False, by="ann")
    assert approval.waits(store)  # a no may be thought over
    moment = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=1)))
    given = approval.answer(store, approved=True, by="ann", at=moment)
    assert given["at"] == "2026-01-02T02:00:00+00:00"
    assert not approval.waits(store)
    assert approval.waits(place.run("run", {**ASKS, "train.random_state": 2}, upto="gate"))
    assert not approval.waits(RunStore(f"{place.store}/yesterday"))


def test_an_approval_is_not_of_other_weights(place: Any) -> None:
    approval.answer(asked(place), approved=True, by="ann")
    again = place.run("run", {**ASKS, "train.random_state": 2}, upto="gate")
    with pytest.raises(GateRefused, match="until a person approves"):
        run_task("export", again.uri)


def test_what_asks_nobody_takes_no_answer_and_force_asks_nobody(finished: Any, place: Any) -> None:
    with pytest.raises(BadSettings, match="asks for no approval"):
        approval.answer(RunStore(f"{finished.store}/first"), approved=True, by="ann")
    place.run("yesterday")
    place.run("forced", {**ASKS, "gate.force_publish": True})
    assert published(place) == ["forced", "yesterday"]


def test_the_command_line_stops_is_told_and_goes_on(place: Any, command: Callable[..., Any]) -> None:
    asked(place)
    places = ("--store", place.store, "--run-id", "run")
    stopped = command("export", *places)
    assert stopped.status == 3
    assert "sasrec-tasks approve --run-id run" in stopped.err
    done = command("approve", *places, "--by", "ann")
    assert done.status == 0
    assert done.out.startswith("approved: overlap")
    assert command("export", *places).status == 0
    assert published(place) == ["run", "yesterday"]
