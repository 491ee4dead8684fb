"""The last places go to items of a set, the others to the best of all."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.reserving import reserve
from sasrec_tasks.sasrec.scoring import constant_scorer
from sasrec_tasks.sasrec.top_k import top_k

WIDTH = 13  # columns, padding's included


def naive(scores: list[float], k: int, slots: int, chosen: set[int]) -> list[int]:
    """A user's list, place by place."""
    ranked = sorted((i for i in range(1, WIDTH) if scores[i] > -np.inf), key=lambda i: -scores[i])
    head, rest = ranked[: k - slots], ranked[k - slots :]
    reserved = [item for item in rest if item in chosen][:slots]
    others = [item for item in rest if item not in reserved][: slots - len(reserved)]
    return head + sorted(reserved + others, key=lambda i: -scores[i])


@given(
    scores=st.lists(st.permutations(range(WIDTH)), min_size=1, max_size=5),
    out=st.sets(st.integers(1, WIDTH - 1)),
    chosen=st.sets(st.integers(1, WIDTH - 1), min_size=1),
    k=st.integers(2, WIDTH - 1),
    data=st.data(),
)
@settings(deadline=None)
def test_lists_are_those_made_place_by_place(
    scores: list[list[int]], out: set[int], chosen: set[int], k: int, data: st.DataObject
) -> None:
    slots = data.draw(st.integers(1, k - 1))
    table = np.array(scores, dtype=np.float32)
    table[:, [0, *out]] = -np.inf
    pick = reserve(k, slots, np.array(sorted(chosen)), WIDTH)
    best, items = top_k(lambda rows: torch.from_numpy(table[rows]), None, np.arange(len(table)), k, pick)
    for of_user, row, own in zip(table.tolist(), best.tolist(), items.tolist(), strict=True):
        expected = naive(of_user, k, slots, chosen)
        assert own[: len(expected)] == expected
        assert row[: len(expected)] == [of_user[item] for item in expected]
        assert set(row[len(expected) :]) <= {-np.inf}
        assert row == sorted(row, reverse=True)


def test_no_item_comes_twice_where_scores_tie() -> None:
    pick = reserve(6, 3, np.array([2, 3, 9, 12]), WIDTH)
    _, items = top_k(constant_scorer(np.ones(WIDTH, dtype=np.float32)), None, np.arange(4), 6, pick)
    for own in items.tolist():
        assert len(set(own)) == 6
        assert 0 not in own
        assert len({2, 3, 9, 12} & set(own)) >= 3


def test_a_long_catalogue_is_ranked_as_a_short_one() -> None:
    width = 40_000  # so long that `largest` looks at chunks
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(width, dtype=np.float32), (3, 1)), axis=1)
    scores[:, 0] = -np.inf
    chosen = np.sort(np.random.default_rng(1).choice(np.arange(1, width), 5000, replace=False))
    pick = reserve(10, 2, chosen, width)
    _, items = top_k(lambda rows: torch.from_numpy(scores[rows]), None, np.arange(3), 10, pick)
    for row, own in zip(scores, items.tolist(), strict=True):
        ranked = np.argsort(-row)
        head = ranked[:8].tolist()
        later = [item for item in ranked[8:].tolist() if item in set(chosen.tolist())][:2]
        assert own == head + later
