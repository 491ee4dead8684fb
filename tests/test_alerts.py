"""What an alert says, and that it says it whatever else is wrong."""

from __future__ import annotations

import html
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks import alerts, failures

REPORT = "https://airflow.example/dags/sasrec_nightly/runs/scheduled__2026-01-01T02%3A00%3A00%2B00%3A00/plugin/report"


def test_a_failed_night_says_why_where_to_look_and_what_is_served(finished: Any) -> None:
    reasons = {"train": "OSError: disk full", "prune": ""}
    alert = alerts.failed("nightly", "run 7", reasons, table=finished.table, report=REPORT)
    assert alert.subject == "nightly: failed in train, prune, run 7"
    assert alert.facts["Why"].splitlines() == [
        "train: OSError: disk full",
        f"prune: {failures.UNKNOWN}",
    ]
    assert alert.facts["Report"] == REPORT
    assert f"{finished.table}: version 0 of run first, events before 2026-01-01 00:00 UTC" in alert.as_text()
    assert f'<a href="{REPORT}">' in alert.as_html()


def test_a_refused_night_is_not_called_failed() -> None:
    alert = alerts.failed("nightly", "run", {"gate": "GateRefused: not better"}, table="", report=REPORT)
    assert alert.subject == "nightly: refused, run"
    assert alert.facts["Still served"] == alerts.UNKNOWN_TABLE


def test_a_late_night_says_for_how_long() -> None:
    alert = alerts.late("nightly", "run", "running", timedelta(hours=6), table="", report=REPORT)
    assert alert.subject == "nightly: late, run"
    assert "6 h after it was queued: it is running" in alert.facts["Why"]


def test_each_of_several_tables_is_told_and_one_that_can_not_be_read_too(
    finished: Any, tmp_path: Any
) -> None:
    (tmp_path / "broken" / "_delta_log").mkdir(parents=True)
    (tmp_path / "broken" / "_delta_log" / f"{0:020}.json").write_text("{")
    told = alerts.served(f"{finished.table}, {tmp_path}/broken, {tmp_path}/none, connection:nowhere?table=x")
    first, second, third, fourth = told.splitlines()
    assert "version 0 of run first" in first
    assert "can't be read from here" in second
    assert third.endswith("nothing, no run has published yet")
    assert "there is no connection 'nowhere'" in fourth


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(min_size=1, max_size=300))
def test_text_out_of_the_data_is_text_wherever_it_is_shown(reason: str) -> None:
    alert = alerts.failed("nightly", f"run {reason}", {"ingest": reason}, table="", report=REPORT)
    assert "\n" not in alert.subject
    assert len(alert.subject) <= 200
    parser = Texts()
    parser.feed(alert.as_html())
    assert parser.tags <= {"h3", "p", "b", "br", "a"}
    assert not {"<", ">"} & set(alert.as_text())
    assert reason in html.unescape(alert.as_text()) or "&" in reason
