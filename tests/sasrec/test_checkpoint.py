from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sasrec_tasks.sasrec
from sasrec_tasks.sasrec import checkpoint as checkpoint_module
from sasrec_tasks.sasrec.checkpoint import (
    Checkpoint,
    Epoch,
    TrainingState,
    Weights,
)
from sasrec_tasks.sasrec.fit import build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut

ROOT = Path(next(iter(sasrec_tasks.sasrec.__path__))).parents[1]


def state(number: int, size: int = 5) -> TrainingState:
    weights = {"a.b": torch.full((size,), float(number)), "c/d": torch.ones(2, 2).T * number}
    return TrainingState(
        weights=weights,
        best={name: tensor + 0.5 for name, tensor in weights.items()},
        optimizer={"0.step": torch.tensor(3.0), "0.exp_avg": torch.arange(4.0)},
        average={"n_averaged": torch.tensor(3), "module.a.b": torch.arange(3.0)},
        history=(
            Epoch(
                epoch=1, loss=0.1 + 0.2, metric=None, seconds=1.5, finished_at="2025-01-01T00:00:00.000+00:00"
            ),
            Epoch(
                epoch=2, loss=1e-300, metric=1 / 3, seconds=2.5, finished_at="2025-01-01T00:01:00.000+00:00"
            ),
        ),
    )


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_state(a: TrainingState | None, b: TrainingState) -> bool:
    return (
        a is not None
        and a.history == b.history
        and same(a.weights, b.weights)
        and same(a.best, b.best)
        and same(a.average, b.average)
        and same(a.optimizer, b.optimizer)
    )


def test_the_state_saved_last_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new" / "folder" / "state", "f")
    checkpoint.save(state(1))
    checkpoint.save(state(2))
    assert same_state(checkpoint.load(), state(2))
    assert [file.name for file in checkpoint.path.parent.iterdir()] == ["state"]


def test_a_loaded_state_can_be_saved_over_its_own_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "f")
    checkpoint.save(state(1))
    loaded = checkpoint.load()
    assert loaded is not None
    checkpoint.save(loaded)
    assert same_state(checkpoint.load(), state(1))


def test_there_is_no_state_without_a_file(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "state", "f").load() is None


def test_a_state_of_another_fingerprint_is_not_loaded(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "state", "f").save(state(1))
    assert Checkpoint(tmp_path / "state", "g").load() is None
    assert Checkpoint(tmp_path / "state", "f").load() is not None


@given(share=st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_a_file_cut_short_anywhere_is_not_loaded(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    checkpoint = Checkpoint(tmp_path_factory.mktemp("cut") / "state", "f")
    checkpoint.save(state(1))
    whole = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(whole[: int(share * len(whole))])
    assert checkpoint.load() is None


@given(place=st.integers(0), value=st.integers(1, 255))
@settings(deadline=None, max_examples=150)
def test_no_damage_to_the_header_stops_a_training_from_starting(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    checkpoint = Checkpoint(tmp_path_factory.mktemp("damage") / "state", "f")
    checkpoint.save(state(1))
    content = bytearray(checkpoint.path.read_bytes())
    content[place % (8 + int.from_bytes(content[:8], "little"))] ^= value
    checkpoint.path.write_bytes(content)
    loaded = checkpoint.load()
    assert loaded is None or isinstance(loaded, TrainingState)


@given(place=st.integers(0), bit=st.integers(0, 7))
@settings(deadline=None)
def test_no_flipped_bit_is_gone_on_from(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    checkpoint = Checkpoint(tmp_path_factory.mktemp("flipped") / "state", "f")
    checkpoint.save(state(1))
    content = bytearray(checkpoint.path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    checkpoint.path.write_bytes(content)
    loaded = checkpoint.load()
    assert loaded is None or same_state(loaded, state(1))


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 100, b"{}" * 50])
def test_a_file_of_something_else_is_not_loaded(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    assert Checkpoint(tmp_path / "state", "f").load() is None


def test_a_failed_save_keeps_the_old_state_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "f")
    checkpoint.save(state(1))

    def disk_full(tensors: Weights, path: Path, metadata: dict[str, str]) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", disk_full)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(state(2))
    assert same_state(checkpoint.load(), state(1))
    assert list(tmp_path.iterdir()) == [checkpoint.path]


def start(script: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


SAVE_FOR_EVER = """
import sys, torch
from pathlib import Path
from sasrec_tasks.sasrec.checkpoint import Checkpoint, TrainingState
checkpoint, number = Checkpoint(Path(sys.argv[1]), "f"), 0
while True:
    number += 1
    weights = {str(part): torch.full((50_000,), float(number)) for part in range(4)}
    checkpoint.save(TrainingState(weights=weights, best={}, optimizer={}, average={}, history=()))
    print(number, flush=True)
"""


def numbers(loaded: TrainingState) -> set[float]:
    return {number for tensor in loaded.weights.values() for number in tensor.tolist()}


def test_sigkill_while_saving_leaves_a_whole_state(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "f")
    with start(SAVE_FOR_EVER, checkpoint.path) as process:
        assert process.stdout is not None
        for _ in range(20):
            saved = int(process.stdout.readline())
            loaded = checkpoint.load()  # a reader meets no torn file either
            assert loaded is not None
            assert len(numbers(loaded)) == 1
        time.sleep(0.003)  # into the next one
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    loaded = checkpoint.load()
    assert loaded is not None
    assert len(numbers(loaded)) == 1
    assert max(numbers(loaded)) >= saved


KILL_IN_EPOCH_3 = """
import os, signal, sys, numpy, torch
from pathlib import Path
from sasrec_tasks.sasrec.checkpoint import Checkpoint
from sasrec_tasks.sasrec.fit import build, fit
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import Sequences
torch.set_num_threads(1)
train = Sequences(**numpy.load(sys.argv[2]))
model = build(SASRecConfig(num_items=30, hidden_units=8, max_len=10), 1)

def on_step(progress):
    if progress.epoch == 3 and progress.done > progress.total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint = Checkpoint(Path(sys.argv[1]), "f")
fit(model, train, FitConfig(epochs=5, batch_size=8), checkpoint=checkpoint, on_step=on_step)
"""


def test_a_training_killed_in_the_middle_of_an_epoch_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, random_split: LeaveLastTwoOut
) -> None:
    train = random_split.train
    np.savez(tmp_path / "train.npz", **vars(train))
    checkpoint = Checkpoint(tmp_path / "state", "f")
    with start(KILL_IN_EPOCH_3, checkpoint.path, tmp_path / "train.npz") as process:
        pass
    assert process.returncode == -signal.SIGKILL

    def trained(checkpoint: Checkpoint | None) -> tuple[SASRec, int | None]:
        model = build(SASRecConfig(num_items=30, hidden_units=8, max_len=10), 1)
        result = fit(model, train, FitConfig(epochs=5, batch_size=8), checkpoint=checkpoint)
        return model, result.resumed_from_epoch

    unbroken, _ = trained(None)
    resumed, resumed_from = trained(checkpoint)
    assert resumed_from == 2
    assert same(resumed.state_dict(), unbroken.state_dict())


def test_saving_takes_the_state_as_it_is_now(tmp_path: Path, random_model: Callable[..., SASRec]) -> None:
    model = random_model()
    checkpoint = Checkpoint(tmp_path / "state", "f")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint.save(
        TrainingState(weights=model.state_dict(), best=before, optimizer={}, average={}, history=())
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    loaded = checkpoint.load()
    assert loaded is not None
    assert same(loaded.weights, before)
