from __future__ import annotations

from typing import Any

import pytest

from sasrec_tasks.sasrec.model_config import SASRecConfig


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_items": 0}, "num_items must be at least 1"),
        ({"num_blocks": 0}, "num_blocks must be at least 1"),
        ({"max_len": -1}, "max_len must be at least 1"),
        ({"hidden_units": 10, "num_heads": 3}, "must be divisible by num_heads"),
        ({"blocks": "round"}, "blocks must be one of plain, narrow, gated"),
        ({"positions": "relative"}, "positions must be one of learned, rotary"),
        ({"positions": "rotary", "hidden_units": 6, "num_heads": 2}, "heads of even width.* is 3"),
        ({"dropout_rate": 1.0}, "dropout_rate must be in"),
        ({"dropout_rate": -0.1}, "dropout_rate must be in"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SASRecConfig(**{"num_items": 5, **sizes})
