"""Several processes that train together do what one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.sasrec.checkpoint import Checkpoint
from sasrec_tasks.sasrec.fit import FitResult, build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.parallel import ALONE, Distributed, Group, own
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut, Sequences
from sasrec_tasks.sasrec.trainer import Trainer

PROCESSES = 3
SIZES = SASRecConfig(num_items=40, hidden_units=16, max_len=10, dropout_rate=0.0)
CONFIG = FitConfig(
    epochs=3,
    loss="sampled_softmax",
    num_negatives=8,
    negative_sampling="shared",
    early_stopping_patience=None,
)


class Told:
    """A group of which only the numbers are asked."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def add_up(self, tensors: Any) -> None:
        raise AssertionError


def split(users: int = 60, seed: int = 0) -> LeaveLastTwoOut:
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 20, users)
    items = random.integers(1, SIZES.num_items + 1, lengths.sum()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return LeaveLastTwoOut.of(Sequences.from_offsets(offsets, items, np.ones(len(items), np.float32)))


@given(st.lists(st.integers(0, 30), max_size=50), st.integers(1, 6))
def test_each_sequence_is_one_process_s_and_they_lie_together(lengths: list[int], size: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))])
    items = np.ones(offsets[-1], np.int32)
    events = Sequences.from_offsets(offsets, items, items.astype(np.float32))
    parts = [own(events, Told(rank, size)) for rank in range(size)]
    assert np.concatenate(parts).tolist() == list(range(len(events)))
    most = max(lengths, default=0)
    assert all(events.select(part).lengths.sum() <= sum(lengths) / size + most for part in parts)


@pytest.mark.parametrize("sampling", ["shared", "other", "unseen"])
def test_together_their_batches_are_those_of_one(sampling: Any) -> None:
    train = split().train
    config = replace(CONFIG, negative_sampling=sampling)
    whole = list(Trainer(build(SIZES, 1), train, config).batches.epoch(1))
    shares = [
        list(Trainer(build(SIZES, 1), train, config, Told(rank, PROCESSES)).batches.epoch(1))
        for rank in range(PROCESSES)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        rows = [row for part in parts for row in part.inputs.tolist()]
        assert sorted(strip(row) for row in rows) == sorted(strip(row) for row in batch.inputs.tolist())
        assert sum(part.positions for part in parts) == batch.positions
        assert sum(float(part.weight) for part in parts) == pytest.approx(float(batch.weight))
        if sampling == "shared":
            assert all(torch.equal(part.negatives, batch.negatives) for part in parts)


def strip(row: list[int]) -> list[int]:
    return [item for item in row if item]


def one_of_them(rank: int, size: int, folder: str, config: FitConfig, sizes: SASRecConfig) -> None:
    """A process of a training, which leaves its weights."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size
    )
    result, weights = trained(config, sizes, Path(folder) / "state.safetensors", Distributed())
    torch.save([weights, [vars(epoch) for epoch in result.history]], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def trained(
    config: FitConfig, sizes: SASRecConfig, state: Path, group: Group = ALONE
) -> tuple[FitResult, dict[str, torch.Tensor]]:
    model, data = build(sizes, 1), split()
    checkpoint = Checkpoint(state, "test")
    result = fit(model, data.train, config, validation=data.validation, checkpoint=checkpoint, group=group)
    return result, model.state_dict()


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (CONFIG, SIZES),
        (replace(CONFIG, loss="softmax", learning_rate_schedule="cosine"), SIZES),
        (CONFIG, replace(SIZES, num_items=100_000)),  # whose embedding has sparse gradients
        (replace(CONFIG, batch_slots=None, batch_size=2), SIZES),  # some have no rows of a batch
        (replace(CONFIG, batch_slots=None, batch_size=2), replace(SIZES, num_items=100_000)),
    ],
    ids=["sampled", "softmax", "many items", "no rows", "many items, no rows"],
)
def test_they_train_the_model_that_one_trains(config: FitConfig, sizes: SASRecConfig, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
        one_of_them, (PROCESSES, str(tmp_path), config, sizes), nprocs=PROCESSES
    )
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)]
    result, weights = trained(config, sizes, tmp_path / "alone.safetensors")
    for name, alone in weights.items():
        assert all(torch.equal(found[0][0][name], other[0][name]) for other in found[1:])
        torch.testing.assert_close(found[0][0][name], alone, rtol=1e-3, atol=1e-4)
    for together, epoch in zip(found[0][1], result.history, strict=True):
        assert together["loss"] == pytest.approx(epoch.loss, rel=1e-4)
        assert together["metric"] == pytest.approx(epoch.metric, rel=1e-2)


def test_fewer_go_on_from_where_more_have_left_off(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(  # type: ignore[attr-defined,no-untyped-call]
        one_of_them, (PROCESSES, str(tmp_path), replace(CONFIG, epochs=2), SIZES), nprocs=PROCESSES
    )
    result, _ = trained(CONFIG, SIZES, tmp_path / "state.safetensors")
    assert result.resumed_from_epoch == 2
    assert len(result.history) == 3
