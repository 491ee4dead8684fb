"""Tonight's data beside those of the nights before."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks import drift, runs
from sasrec_tasks.drift import Drift
from sasrec_tasks.errors import BadData
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables.delta import DeltaTables

FIGURES = st.floats(0, 1e9)


@given(st.lists(FIGURES, min_size=2, max_size=2), FIGURES, st.floats(0.01, 100))
def test_within_the_range_is_no_drift_and_its_unit_does_not_matter(
    range_: list[float], value: float, unit: float
) -> None:
    low, high = sorted(range_)
    factor = Drift(figure="rows", value=value, low=low, high=high).factor
    assert factor >= 1
    if low <= value <= high:
        assert factor == 1
    if min(low, value) > 1:
        scaled = Drift(figure="rows", value=value * unit, low=low * unit, high=high * unit).factor
        assert scaled == pytest.approx(factor)


@pytest.mark.parametrize(
    ("value", "low", "high", "factor"),
    [(30, 10, 15, 2), (5, 10, 15, 2), (0, 10, 15, math.inf), (7, 0, 0, 1), (0, 0, 0, 1)],
)
def test_the_factor_is_to_the_nearer_end(value: float, low: float, high: float, factor: float) -> None:
    assert Drift(figure="rows", value=value, low=low, high=high).factor == factor


def night(place: Any, day: int, events: pa.Table, **more: Any) -> Any:
    place.write(events)
    settings = {"as_of": f"2026-01-{day:02}", "gate.force_publish": True}
    return place.run(f"night{day}", {**settings, **more})


def profile_of(place: Any, run_id: str) -> dict[str, float]:
    rows = {row["RUN_ID"]: row for row in runs.read(runs.url_of(place.table, place.store)).to_pylist()}
    found: dict[str, float] = json.loads(rows[run_id]["PROFILE"])
    return found


def test_nights_that_are_alike_are_silent_and_their_profiles_are_kept(
    place: Any, chains: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = night(place, 1, chains(users=60))
    assert first.marker("validate").summary["drift"] == []  # nothing to hold it against
    second = night(place, 2, chains(users=66))
    assert "validate: drift" not in caplog.text
    summary = second.marker("validate").summary
    assert summary["nights"] == ["night1"]
    assert {each["figure"] for each in summary["drift"]} == set(drift.NAMES)
    assert profile_of(place, "night2")["rows"] == summary["rows"]
    assert profile_of(place, "night1")["users"] == pytest.approx(60, rel=0.05)


def test_the_share_of_known_items_is_kept_and_held_against_all_of_them_once(place: Any, chains: Any) -> None:
    for day in (1, 2, 3):
        last = night(place, day, chains(users=60), **{"validate.drift_nights": 1})
    assert "known_items" not in profile_of(place, "night1")
    assert profile_of(place, "night2")["known_items"] == profile_of(place, "night3")["known_items"] == 1
    found = last.marker("validate").summary["drift"]
    assert sorted(each["figure"] for each in found) == sorted(drift.NAMES)


def test_a_night_with_most_of_the_data_gone_is_refused_before_training_and_can_be_let_through(
    place: Any, chains: Any, caplog: pytest.LogCaptureFixture
) -> None:
    night(place, 1, chains(users=300))
    with pytest.raises(BadData, match=r"rows: .* usual .*validate\.drift_fail"):
        night(place, 2, chains(users=30))
    row = runs.read(f"{place.table}_runs").to_pylist()[-1]
    assert (row["ENDING"], row["TASK"]) == ("failed", "validate")
    night(place, 2, chains(users=30), **{"validate.drift_fail": None})  # the same run goes on
    assert "users: " in caplog.text  # told all the same

    caplog.clear()
    night(place, 3, chains(users=30))  # what was let through has become usual
    assert "validate: drift" not in caplog.text


def test_only_earlier_published_nights_count_and_the_newest_of_them(place: Any, chains: Any) -> None:
    night(place, 1, chains(users=60))
    night(place, 5, chains(users=90))
    night(place, 6, chains(users=90))
    past = night(place, 3, chains(users=60))  # a backfill
    assert past.marker("validate").summary["nights"] == ["night1"]
    night(place, 7, chains(users=90))
    settings = {"validate.drift_nights": 2, "validate.drift_warn": None}
    assert night(place, 8, chains(users=90), **settings).marker("validate").summary["nights"] == [
        "night7",
        "night6",
    ]


@pytest.mark.parametrize("kind", ["", "parquet+"])
def test_a_night_that_was_rolled_back_is_not_what_is_usual(place: Any, chains: Any, kind: str) -> None:
    place.table = f"{kind}{place.table}"
    night(place, 1, chains(users=60))
    night(place, 2, chains(users=180), **{"validate.drift_fail": None})
    roll_back(place.table)
    third = night(place, 3, chains(users=60)).marker("validate").summary
    assert third["nights"] == ["night1"]
    (rows,) = (each for each in third["drift"] if each["figure"] == "rows")
    assert rows["low"] == rows["high"] == profile_of(place, "night1")["rows"]
    roll_back(place.table, run_id="night2")  # forward again
    assert night(place, 4, chains(users=60)).marker("validate").summary["nights"][:1] == ["night2"]


@pytest.mark.parametrize("kind", ["", "parquet+"])
def test_without_the_table_drift_is_held_against_all_that_were_published(
    place: Any, chains: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    place.table = f"{kind}{place.table}"
    night(place, 1, chains(users=60))
    night(place, 2, chains(users=90))
    roll_back(place.table)
    place.write(chains(users=30))
    settings = {"as_of": "2026-01-03", "validate.drift_fail": None, "validate.drift_warn": 1.2}
    store = place.run("night3", settings, upto="ingest")
    for file in (place.folder / "table").rglob("*.json"):
        file.write_text("garbage")
    run_task("validate", store.uri)
    assert "which nights were rolled back could not be read, drift is held against all" in caplog.text
    assert "validate: drift: rows" in caplog.text
    summary = store.marker("validate").summary
    assert summary["nights"] == ["night2", "night1"]
    (rows,) = (each for each in summary["drift"] if each["figure"] == "rows")
    assert rows["low"] == profile_of(place, "night1")["rows"] < rows["high"]


def test_a_table_that_can_not_be_reached_is_tried_again(
    place: Any, chains: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(place, 1, chains(users=60))
    store = place.run("night2", {"as_of": "2026-01-02"}, upto="ingest")

    def cut_off(_: DeltaTables) -> set[str]:
        raise ConnectionResetError("the connection was cut")

    monkeypatch.setattr(DeltaTables, "rolled_back", cut_off)
    with pytest.raises(ConnectionError):
        run_task("validate", store.uri)
    monkeypatch.undo()
    run_task("validate", store.uri)
    assert store.marker("validate").summary["nights"] == ["night1"]


def test_a_run_that_is_done_again_is_not_held_against_others(place: Any, chains: Any) -> None:
    first = night(place, 1, chains(users=60))
    before = first.marker("validate")
    night(place, 2, chains(users=66))
    again = night(place, 1, chains(users=60)).marker("validate")
    assert again == before


def test_new_items_are_a_drift_as_long_as_the_published_catalogue_is_kept(place: Any, chains: Any) -> None:
    events = chains(users=100)
    night(place, 1, events)
    column = events.column_names.index("ITEM_ID")
    renamed = pa.array([f"new {item}" for item in events["ITEM_ID"].to_pylist()])
    with pytest.raises(BadData, match="share of items that the published run knew: 0"):
        night(place, 2, events.set_column(column, "ITEM_ID", renamed))


def test_runs_written_down_before_there_were_profiles_are_read(place: Any, chains: Any) -> None:
    from deltalake import DeltaTable, write_deltalake

    night(place, 1, chains(users=60))
    url = f"{place.table}_runs"
    old = DeltaTable(url).to_pyarrow_table().drop_columns(["PROFILE", "VERDICT"])
    write_deltalake(url, old, mode="overwrite", schema_mode="overwrite")
    assert runs.read(url)["PROFILE"].to_pylist() == runs.read(url)["VERDICT"].to_pylist() == [None]
    night(place, 2, chains(users=60))
    assert [row["PROFILE"] is None for row in runs.read(url).to_pylist()] == [True, False]
