"""The nights of a table: what became of each, the newest first, and what is not finished."""

from __future__ import annotations

from typing import Any

import pytest

from sasrec_tasks import runs
from sasrec_tasks.errors import GateRefused
from sasrec_tasks.report import nights, page
from sasrec_tasks.rollback import roll_back


@pytest.fixture
def three(place: Any, bad: Any) -> Any:
    """A place with a publish, a refusal and another publish."""
    for number, settings in enumerate(({}, bad, {}), 1):
        try:
            place.run(f"run{number}", {**settings, "as_of": f"2024-02-0{number}"})
        except GateRefused:
            assert number == 2
    return place


def test_every_run_has_its_row_and_its_mark(three: Any) -> None:
    unfinished = [nights.Unfinished(run_id=run_id, at=None, state="running") for run_id in ("run3", "run4")]
    report = nights.read("dag", three.table, three.store, unfinished)
    assert report.endings == {"published": 2, "refused": 1}
    assert report.newest
    assert report.newest["RUN_ID"] == "run3"
    assert [each.run_id for each in report.unfinished] == ["run4"]
    html = page.nights_page(report, "../run/dag/")
    for number in (1, 2, 3, 4):
        assert f'href="../run/dag/run{number}"' in html
    assert html.index('href="../run/dag/run3"') < html.rindex('href="../run/dag/run1"')
    assert "is not better than popularity" in html
    assert html.count('class="mark published"') == 2 + 1  # and in the legend
    assert html.count('class="mark refused cross"') == 1 + 1


def test_a_run_that_was_rolled_back_is_shown_as_that(three: Any) -> None:
    roll_back(three.table)
    report = nights.read("dag", three.table, three.store)
    assert report.endings == {"published": 1, "rolled back": 1, "refused": 1}
    assert report.newest
    assert report.newest["RUN_ID"] == "run1"
    assert page.nights_page(report).count('class="mark rolled-back"') == 1 + 1  # and in the legend


def test_a_table_without_runs_says_so(place: Any) -> None:
    html = page.nights_page(nights.read("dag", place.table, place.store))
    assert "No run is written down yet." in html
    assert "<svg" not in html


def test_some_columns_of_the_runs_are_those_of_all(three: Any) -> None:
    url = runs.url_of(three.table, three.store)
    assert runs.read(url, nights.COLUMNS).equals(runs.read(url).select(nights.COLUMNS))
    assert runs.read(url, ["NDCG"]).column_names == ["NDCG"]


def test_no_more_than_the_newest_are_shown(three: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nights, "SHOWN", 2)
    report = nights.read("dag", three.table, three.store)
    assert [night["RUN_ID"] for night in report.nights] == ["run2", "run3"]
    assert report.more == 1
    assert "1 older runs" in page.nights_page(report)
