from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.largest import CHUNK, LEAST_PRODUCTS, TILE, largest, largest_products


@given(
    n=st.integers(1, 60 * CHUNK),
    k=st.integers(1, 4),
    values=st.sampled_from([2, 50, 10**6]),  # many ties … none
    taken=st.sampled_from([0.0, 0.5, 0.999]),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None)
def test_the_largest_are_those_of_a_sort(n: int, k: int, values: int, taken: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, values, size=(3, n)).astype(np.float32)
    scores[random.random(scores.shape) < taken] = -np.inf
    best, columns = largest(torch.from_numpy(scores), k)
    assert np.array_equal(best.numpy(), -np.sort(-scores, axis=1)[:, :k])
    assert np.array_equal(np.take_along_axis(scores, columns.numpy(), axis=1), best.numpy())
    assert all(len(set(row)) == len(row) for row in columns.tolist())


@given(
    n=st.integers(3 * LEAST_PRODUCTS, 3 * LEAST_PRODUCTS + 2 * TILE),
    k=st.integers(1, 3),
    users=st.integers(1, 5),
    seen=st.sampled_from([0.0, 0.5, 0.9999]),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=40)
def test_the_largest_products_are_those_of_a_sort(n: int, k: int, users: int, seen: float, seed: int) -> None:
    """Whole numbers, of which many are the same, so that products are exact."""
    random = np.random.default_rng(seed)
    of_users = random.integers(-9, 10, size=(users, 4)).astype(np.float32)
    of_items = random.integers(-9, 10, size=(n, 4)).astype(np.float32)
    left_out = np.argwhere(random.random((users, n)) < seen)
    random.shuffle(left_out)
    rows, columns = np.concatenate([left_out, left_out[:5]]).T.copy()  # some of them twice
    products = of_users @ of_items.T
    products[rows, columns] = -np.inf
    best, found = largest_products(
        torch.from_numpy(of_users),
        torch.from_numpy(of_items),
        (torch.from_numpy(rows), torch.from_numpy(columns)),
        k,
    )
    assert np.array_equal(best.numpy(), -np.sort(-products, axis=1)[:, :k])
    assert np.array_equal(np.take_along_axis(products, found.numpy(), axis=1), best.numpy())
    assert all(len(set(row)) == len(row) for row in found.tolist())


def test_products_behind_the_last_chunk_are_found() -> None:
    n = LEAST_PRODUCTS + CHUNK // 2
    items = torch.zeros(n, 2)
    items[-1], items[-2] = torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0])
    none = torch.arange(0)
    for left_out, expected in (((none, none), n - 1), ((torch.tensor([0]), torch.tensor([n - 1])), n - 2)):
        best, found = largest_products(torch.ones(1, 2), items, left_out, 1)
        assert (best.item(), found.item()) == (float(items[expected, 0]), expected)
