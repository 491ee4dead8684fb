"""SIGTERM ends a process in order: what is half done is put away first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

STATUS = 128 + signal.SIGTERM
"""Exit status of a process that was ended by SIGTERM, as shells have it."""


class Terminated(SystemExit):
    """SIGTERM has come."""

    def __init__(self) -> None:
        super().__init__(STATUS)

    def __str__(self) -> str:
        """As people are told it."""
        return "it was ended by SIGTERM: somebody marked it or its run, or its machine or worker was stopped"


@contextmanager
def in_order() -> Iterator[None]:
    """Within this context SIGTERM raises Terminated in the main thread; a second one is not heeded.

    Airflow sends it when a task is marked failed or cleared, and five seconds later SIGKILL. Its own handler lets a
    plain function work on in between; Python's default leaves folders of this try behind.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not for others
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
