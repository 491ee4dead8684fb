"""Work in pieces is done by several threads, and gives what one gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sasrec_tasks.sasrec.metrics import Ranks
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.ranking import rank_all, rank_sampled
from sasrec_tasks.sasrec.scoring import ScoresByVectors, encode, model_scorer
from sasrec_tasks.sasrec.sequences import HeldOut, LeaveLastTwoOut
from sasrec_tasks.sasrec.threads import MOST, each, pool, workers
from sasrec_tasks.sasrec.top_k import top_k
from sasrec_tasks.sasrec.unseen import sample_unseen


@pytest.fixture(params=[2, 5, 9])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Torch has several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_pieces(threads: int) -> None:
    assert each(lambda piece: piece * piece, range(100)) == [piece * piece for piece in range(100)]
    assert each(str, []) == []


def test_pieces_are_worked_on_at_once_without_gradients_and_with_a_share_of_the_threads(threads: int) -> None:
    at_once = min(threads, MOST)
    assert workers() == at_once
    all_there = threading.Barrier(at_once, timeout=60)  # broken unless so many come

    def work(_: int) -> tuple[int, bool]:
        all_there.wait()
        return torch.get_num_threads(), torch.is_inference_mode_enabled()

    assert each(work, range(at_once)) == [(max(threads // at_once, 1), True)] * at_once
    assert torch.get_num_threads() == threads


def test_an_error_is_raised_and_threads_are_as_before(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        each(lambda piece: 1 // piece, range(10))
    with pytest.raises(KeyError), pool(2):
        raise KeyError
    assert torch.get_num_threads() == threads


def test_pools_that_overlap_leave_torch_its_threads(threads: int) -> None:
    """The second is opened, by a thread that is new to torch, while the first is, and closed after it."""
    opened, closed = threading.Event(), threading.Event()
    found: list[int] = []

    def second() -> None:
        with pool(2) as executor:
            executor.submit(torch.get_num_threads).result()
            found.append(workers())
            opened.set()
            assert closed.wait(60)

    def fresh() -> None:
        found.append(torch.get_num_threads())

    other = threading.Thread(target=second)
    with pool(2) as executor:
        executor.submit(torch.get_num_threads).result()
        other.start()
        assert opened.wait(60)
    closed.set()
    other.join()
    newest = threading.Thread(target=fresh)
    newest.start()
    newest.join()
    assert found == [min(threads, MOST), threads]
    assert torch.get_num_threads() == threads


def test_what_several_threads_score_rank_and_choose_is_what_one_does(
    random_model: Callable[..., SASRec], random_split: LeaveLastTwoOut
) -> None:
    model, test = random_model(), random_split.test
    many = np.resize(np.arange(len(test)), 1000)
    test = HeldOut(**{name: _taken(part, many) for name, part in vars(test).items()})
    negatives = np.random.default_rng(0).integers(1, 31, (len(test), 5))

    def found() -> list[np.ndarray]:
        score = model_scorer(model, test.history)
        ranks: list[Ranks] = [*rank_all(score, test), rank_sampled(score, test, negatives)]
        arrays = [array for each in ranks for array in (each.better, each.tied)]
        unseen = sample_unseen(test.seen, 30, 5, random_state=0)
        return [
            encode(model, test.history).numpy(),
            unseen,
            *arrays,
            *top_k(score, test.seen, np.arange(1000), 4),
        ]

    alone = found()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        together = found()
    finally:
        torch.set_num_threads(before)
    for one, several in zip(alone, together, strict=True):
        np.testing.assert_allclose(several, one, rtol=1e-5)


def _taken(part: Any, rows: np.ndarray) -> Any:
    return part[rows] if isinstance(part, np.ndarray) else part.select(rows)


def test_scores_of_two_threads_are_kept_apart() -> None:
    users, items = torch.randn(200, 8), torch.randn(31, 8)
    score = ScoresByVectors(users, items)
    both = threading.Barrier(2, timeout=60)

    def work(rows: np.ndarray) -> torch.Tensor:
        scores = score(rows)
        both.wait()
        return scores.clone()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = each(work, [np.arange(100), np.arange(100, 200)])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(torch.cat([first, second]), users @ items.T)
