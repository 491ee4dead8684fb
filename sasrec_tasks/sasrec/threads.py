"""Work in pieces, one thread to a piece.

An operation of a model of this size takes some ten microseconds, a block of users some hundred: threads
that share every operation spend much of their time on waiting for each other. With pieces of
their own they meet at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

MOST = 4
"""Threads with pieces of their own: with more, they would wait for Python, which starts their operations
one at a time. More cores share the operations of these."""

T = TypeVar("T")
R = TypeVar("R")


class _Shared:
    """Pools that are open, and torch's threads when there was none: a pool sets them for the whole process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pools = 0
        self.threads = 0


_shared = _Shared()


def workers() -> int:
    """How many threads have pieces of their own."""
    with _shared.lock:
        return min(_shared.threads if _shared.pools else torch.get_num_threads(), MOST)


@contextmanager
def pool(number: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, which have torch's threads shared among them; torch has as many as before afterwards."""
    with _shared.lock:
        if _shared.pools == 0:
            _shared.threads = torch.get_num_threads()
        _shared.pools += 1
        own = max(_shared.threads // number, 1)
    try:
        with ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(own,)) as executor:
            yield executor
    finally:
        with _shared.lock:
            _shared.pools -= 1
            torch.set_num_threads(_shared.threads)  # a part of it is the process's, not the thread's


def each(work: Callable[[T], R], pieces: Iterable[T]) -> list[R]:
    """What ``work`` returns for each piece, in their order; without gradients.

    ``work`` is called by several threads at once, and what it raises is raised here.
    """

    def one(piece: T) -> R:
        with torch.inference_mode():
            return work(piece)

    with pool(workers()) as executor:
        return list(executor.map(one, pieces))
