"""The next values of an iterator are made while the last one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AHEAD = 2
"""Values that are made before they are asked for."""

T = TypeVar("T")


def made_ahead(values: Iterator[T]) -> Generator[T, None, None]:
    """The same values, none of them None, made by a thread."""
    with ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, values, None) for _ in range(AHEAD))
        while (value := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, values, None))
            yield value
