from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np

from sasrec_tasks import contents
from sasrec_tasks.artifacts import RunStore

T = 1_700_000_000
ROWS = [(f"u{i % 5}", f"i{i * i % 7}", 1.0, T - i) for i in range(40)]


def test_a_store_elsewhere_holds_the_same_as_a_local_one(front: Any, front_at: Any) -> None:
    elsewhere = front_at(front.folder, f"memory://{uuid.uuid4().hex}")
    source = front.write(ROWS)
    local, remote = front.run(source), elsewhere.run(source)
    assert remote.uri.startswith("memory://")
    assert not remote.is_local
    a, b = (contents.interactions(store, store.settings()) for store in (local, RunStore(remote.uri)))
    np.testing.assert_array_equal(a.events.items, b.events.items)
    np.testing.assert_array_equal(a.events.starts, b.events.starts)
    np.testing.assert_array_equal(a.timestamps, b.timestamps)
    np.testing.assert_array_equal(a.split.test.targets, b.split.test.targets)
    assert contents.item_ids(local) == contents.item_ids(remote)
    assert a.num_items == b.num_items == 4
    for task in ("validate", "split"):
        there, here = remote.marker(task), local.marker(task)
        assert there is not None
        assert here is not None
        assert there.digest == here.digest


def test_arrays_are_mapped_rather_than_loaded(front: Any) -> None:
    store = front.run(front.write(ROWS))
    found = contents.interactions(store, store.settings())
    for array in (found.events.items, found.events.outcomes, found.timestamps):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_pickles_are_not_read(front: Any) -> None:
    store = front.run(front.write(ROWS))
    for name in ("items", "offsets", "outcomes", "timestamps"):
        content = (Path(store.root) / "split" / f"{name}.npy").read_bytes()
        assert content.startswith(b"\x93NUMPY")
        assert np.load(Path(store.root) / "split" / f"{name}.npy", allow_pickle=False).dtype != object
