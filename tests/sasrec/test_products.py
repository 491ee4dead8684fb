from __future__ import annotations

import pytest
import torch

from sasrec_tasks.sasrec.products import ITEMS_AT_ONCE, dot_products


@pytest.mark.parametrize("items", [1, ITEMS_AT_ONCE, ITEMS_AT_ONCE + 1, 3 * ITEMS_AT_ONCE + 7])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_products_in_tiles_are_the_product(rows: int, items: int) -> None:
    hidden, vectors = torch.randn(rows, 8), torch.randn(items, 8)
    wide = torch.full((rows, items + 3), 9.0)
    out = dot_products(hidden, vectors, out=wide[:, :items])
    torch.testing.assert_close(out, hidden @ vectors.T)
    assert (wide[:, items:] == 9).all()
