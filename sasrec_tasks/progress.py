"""How long work shows how far it is.

By default plain log lines with rate and time left, at most one every ten seconds, as suits an
Airflow log. The command line puts bars in their place with `use`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import timedelta

log = logging.getLogger(__name__)

Advance = Callable[..., None]
"""`advance(done, note="")`: so many units are done in all, and what to say beside."""

Bar = Callable[[str, int, str], AbstractContextManager[Advance]]
"""`bar(description, total, unit)`"""

SECONDS_BETWEEN_LINES = 10.0


def pace() -> Callable[[], bool]:
    """What says, each time it is asked, whether a further line is due."""
    last = time.monotonic()

    def is_due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return False
        last = now
        return True

    return is_due


@contextmanager
def log_lines(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Progress as log lines: share done, rate, time left."""
    started, is_due = time.monotonic(), pace()
    first: int | None = None  # what an earlier try had done already says nothing about the rate

    def advance(done: int, note: str = "") -> None:
        nonlocal first
        first = done if first is None else first
        if not is_due():
            return
        rate = (done - first) / (time.monotonic() - started)
        left = (total - done) / rate if rate else 0.0
        log.info(
            "%s: %.1f%% of %s %s, %s %s/s, at most %s left%s",
            description,
            100 * done / max(total, 1),
            f"{total:,}",
            unit,
            f"{rate:,.0f}",
            unit,
            timedelta(seconds=round(left)),
            f", {note}" if note else "",
        )

    yield advance


@contextmanager
def silent(description: str, total: int, unit: str) -> Iterator[Advance]:
    """No progress at all."""
    yield lambda done, note="": None


_bar: ContextVar[Bar] = ContextVar("bar", default=log_lines)


def bar(description: str, total: int, unit: str) -> AbstractContextManager[Advance]:
    """Show progress of `total` units while the context lasts."""
    return _bar.get()(description, total, unit)


@contextmanager
def use(shown_by: Bar) -> Iterator[None]:
    """Show progress another way while the context lasts."""
    token = _bar.set(shown_by)
    try:
        yield
    finally:
        _bar.reset(token)
