"""What a cluster makes is what one machine makes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import ARRAYS, ITEMS, RANKS, USERS
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.shards import FOLDER
from sasrec_tasks.tables import Recommendations

pytestmark = pytest.mark.scale

Again = Callable[..., RunStore]


def rows(store: RunStore) -> Any:
    """The published rows."""
    return Recommendations(store.settings().table).to_pandas()


@pytest.mark.parametrize("changes", [{}, {"split.min_item_events": 20, "split.drop_repeats": False}])
def test_events_are_in_the_same_order_to_the_byte(
    again: Again, by_ray: dict[str, Any], changes: dict[str, Any]
) -> None:
    arrays, tables = [], []
    for settings in ({}, by_ray):
        store = again("split", **changes, **settings)
        run_task("split", store.uri)
        folder = Path(store.root, "split")
        arrays.append({path.name: path.read_bytes() for path in folder.glob("*.npy")})
        tables.append([pq.read_table(folder / name) for name in (ITEMS, USERS)])
        shutil.rmtree(store.root)
    here, there = arrays
    assert set(here) == {f"{name}s.npy" for name in ARRAYS} | {"offsets.npy"}
    assert [name for name in here if here[name] != there[name]] == []
    assert [one.equals(other) for one, other in zip(*tables, strict=True)] == [True, True]


def test_the_same_weights_give_the_same_metrics_and_the_same_table(
    local: RunStore, again: Again, by_ray: dict[str, Any]
) -> None:
    store = again("evaluate", **by_ray)
    for task in ("evaluate", "gate", "export"):
        run_task(task, store.uri)
    here, there = (pq.read_table(Path(each.root, "evaluate", RANKS)) for each in (local, store))
    assert here.equals(there)
    assert rows(local).equals(rows(store))
    assert not list(Path(store.root, FOLDER).glob("*"))


def test_training_together_is_as_good(
    local: RunStore, again: Again, by_ray: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Dropout is drawn otherwise by several, so that weights differ as by another seed. The task says what they say."""
    store = again("train", **by_ray)
    with caplog.at_level(logging.INFO):
        run_task("train", store.uri)
    assert "train: ended (all epochs are done) with epoch 3: loss " in caplog.text
    here, there = (pq.read_table(Path(each.root, "train", "history.parquet")) for each in (local, store))
    assert here["epoch"].equals(there["epoch"])
    np.testing.assert_allclose(here["loss"].to_numpy(), there["loss"].to_numpy(), rtol=0.03)
    np.testing.assert_allclose(here["metric"].to_numpy()[-1], there["metric"].to_numpy()[-1], rtol=0.25)
