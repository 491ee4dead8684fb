from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import HeldOut, LeaveLastTwoOut, Sequences


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models here are too small to share out
    yield
    torch.set_num_threads(threads)


def _sequences(items: list[list[int]], outcomes: list[list[float]] | None = None) -> Sequences:
    outcomes = [[1.0] * len(row) for row in items] if outcomes is None else outcomes
    return Sequences.from_offsets(
        np.concatenate([[0], np.cumsum([len(row) for row in items], dtype=np.int64)]),
        np.array([item for row in items for item in row], dtype=np.int32),
        np.array([outcome for row in outcomes for outcome in row], dtype=np.float32),
    )


@pytest.fixture(scope="session")
def sequences() -> Callable[..., Sequences]:
    """Lists of items per user (and of outcomes, 1 by default) → Sequences."""
    return _sequences


@pytest.fixture(scope="session")
def held_out() -> Callable[..., HeldOut]:
    """Targets and seen items per user → HeldOut whose history is what was seen."""

    def make(targets: list[int], seen: list[list[int]]) -> HeldOut:
        return HeldOut(
            users=np.arange(len(targets)),
            targets=np.array(targets, dtype=np.int64),
            outcomes=np.ones(len(targets), dtype=np.float32),
            history=_sequences(seen),
            seen=_sequences(seen),
        )

    return make


@pytest.fixture(scope="session")
def random_model() -> Callable[..., SASRec]:
    """A model whose weights are large enough for every part to matter."""

    def make(*, seed: int = 0, **sizes: float) -> SASRec:
        config = {"num_items": 30, "hidden_units": 8, "num_heads": 2, "max_len": 10, **sizes}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = SASRec(SASRecConfig(**config))  # type: ignore[arg-type]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_(std=0.5)
                model.item_embedding.weight[0] = 0
        return model.eval()

    return make


@pytest.fixture(scope="session")
def random_split() -> LeaveLastTwoOut:
    """48 users with 0 to 15 random events of 30 items."""
    random = np.random.default_rng(7)
    return LeaveLastTwoOut.of(
        _sequences([random.integers(1, 31, size=random.integers(0, 16)).tolist() for _ in range(48)])
    )


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[[Sequences], Sequences]:
    """The same sequences over read-only memory-mapped arrays."""

    def make(events: Sequences) -> Sequences:
        arrays = {}
        for name, array in vars(events).items():
            np.save(tmp_path / f"{name}.npy", array)
            arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        return Sequences(**arrays)

    return make
