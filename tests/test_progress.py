from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sasrec_tasks import progress


def test_log_lines_tell_share_rate_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), progress.bar("train", 200, "epochs") as advance:
        advance(0)
        advance(50, "loss 0.5")
    line = caplog.messages[-1]
    for part in ("train", "25.0%", "200 epochs", "epochs/s", "left", "loss 0.5"):
        assert part in line


def test_log_lines_are_few(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress.bar("split", 1000, "events") as advance:
        for done in range(1000):
            advance(done)
    assert len(caplog.messages) < 10


def test_nothing_to_do_and_more_than_announced_are_no_errors(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), progress.bar("ingest", 0, "bytes") as advance:
        advance(0)
        advance(5)
    assert len(caplog.messages) == 2


def test_what_an_earlier_try_had_done_says_nothing_about_the_rate(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), progress.bar("train", 200, "epochs") as advance:
        advance(150)
    assert ", 0 epochs/s" in caplog.messages[-1]


def test_use_puts_another_bar_in_place_while_it_lasts() -> None:
    shown: list[tuple[Any, ...]] = []

    @contextmanager
    def own(description: str, total: int, unit: str) -> Iterator[progress.Advance]:
        shown.append((description, total, unit))
        yield lambda done, note="": shown.append((done, note))

    with progress.use(own), progress.bar("x", 3, "rows") as advance:
        advance(2, "note")
    with progress.bar("y", 3, "rows") as advance:
        advance(1)
    assert shown == [("x", 3, "rows"), (2, "note")]
