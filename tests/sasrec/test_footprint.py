"""What a training is said to need grows with what makes it larger, and is what it was measured to need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.sasrec.advice import advised_loss
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.footprint import training_footprint
from sasrec_tasks.sasrec.model_config import SASRecConfig

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "scaling.json"
POINTS = [
    point
    for points in json.loads(MEASURED.read_text(encoding="utf-8"))["axes"].values()
    for point in points
    if "train" in point["tasks"]
]


@given(
    items=st.integers(1, 10**7),
    width=st.integers(1, 512),
    blocks=st.integers(1, 4),
    slots=st.integers(1, 10**5),
    events=st.integers(0, 10**9),
    on_gpu=st.booleans(),
    grown=st.sampled_from(["num_items", "hidden_units", "num_blocks", "batch_slots", "events"]),
)
def test_more_of_anything_needs_no_less(
    items: int, width: int, blocks: int, slots: int, events: int, on_gpu: bool, grown: str
) -> None:
    sizes = SASRecConfig(num_items=items, hidden_units=width, num_blocks=blocks)
    config = FitConfig(batch_slots=slots)
    before = training_footprint(sizes, config, events, on_gpu=on_gpu)
    if grown == "events":
        after = training_footprint(sizes, config, 2 * events, on_gpu=on_gpu)
    elif grown == "batch_slots":
        after = training_footprint(sizes, replace(config, batch_slots=2 * slots), events, on_gpu=on_gpu)
    else:
        larger = replace(sizes, **{grown: 2 * getattr(sizes, grown)})
        after = training_footprint(larger, config, events, on_gpu=on_gpu)
    assert before.least <= before.likely
    # scores are held in blocks of whole users, of which there may be a few less of more items
    assert after.least >= 0.97 * before.least
    assert after.likely >= 0.97 * before.likely


@pytest.mark.parametrize("point", POINTS, ids=lambda point: "-".join(str(n) for n in point["size"].values()))
def test_it_is_what_was_measured(point: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine of two threads on which the benchmark ran, at the pipeline's default settings."""
    monkeypatch.setattr("sasrec_tasks.sasrec.footprint.workers", lambda: 2)
    size = point["size"]
    sizes = SASRecConfig(num_items=size["items"], hidden_units=64, max_len=size["max_len"])
    config = FitConfig(loss=advised_loss(size["items"]), num_negatives=1024, batch_slots=4096)
    need = training_footprint(sizes, config, size["events"], on_gpu=False)
    peak = point["tasks"]["train"]["peak_rss_mb"] * 1e6
    assert need.least <= peak <= need.likely <= 2 * peak
