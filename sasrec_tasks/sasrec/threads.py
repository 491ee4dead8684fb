"""Work in pieces, one thread to a piece.

An operation of a model of this size takes some ten microseconds, a block of users some hundred: threads
that share every operation spend much of their time on waiting for each other. With pieces of
their own they meet at the end.
"""

from __future__ import annotations

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


def workers() -> int:
    """How many threads have pieces of their own."""
    return min(torch.get_num_threads(), MOST)


@contextmanager
def pool(number: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, which have torch's threads shared among them; torch has as many as before afterwards."""
    before = torch.get_num_threads()
    own = max(before // number, 1)
    try:
        with ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(own,)) as executor:
            yield executor
    finally:
        torch.set_num_threads(before)  # a part of it is the process's, not the thread's


def each(work: Callable[[T], R], pieces: Iterable[T]) -> list[R]:
    """What ``work`` returns for each piece, in their order; without gradients.

    ``work`` is called by several threads at once, and what it raises is raised here.
    """

    def one(piece: T) -> R:
        with torch.inference_mode():
            return work(piece)

    with pool(workers()) as executor:
        return list(executor.map(one, pieces))
