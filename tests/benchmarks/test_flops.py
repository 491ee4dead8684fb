"""Operations that are counted, against those on paper."""

from __future__ import annotations

import flops
import numpy as np
import pytest

from sasrec_tasks.sasrec.fit import build
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import Sequences
from sasrec_tasks.sasrec.trainer import Trainer

D, LENGTH, USERS, ITEMS = 32, 40, 64, 100


def histories(length: int) -> Sequences:
    items = np.random.default_rng(0).integers(1, ITEMS + 1, USERS * length).astype(np.int32)
    return Sequences.from_offsets(np.arange(USERS + 1) * length, items, np.ones(len(items), np.float32))


def test_an_epoch_is_six_operations_a_weight_and_position_and_half_of_attention() -> None:
    model = build(SASRecConfig(num_items=ITEMS, hidden_units=D, max_len=LENGTH, attention_dropout=False), 0)
    trainer = Trainer(model, histories(LENGTH + 1), FitConfig(loss="bce", num_negatives=1, warmup_epochs=0))
    linear = 6 * 2 * 12 * D * D * USERS * LENGTH  # two blocks: 4 D² in attention, 8 D² behind it
    attention = 2 * 7 * 2 * LENGTH * LENGTH * D * USERS // 2  # two products forward, five backward
    assert flops.of_epoch(trainer) == pytest.approx(linear + attention, rel=0.02)


def test_serving_reads_the_last_slot_of_the_last_block_only() -> None:
    model = build(SASRecConfig(num_items=ITEMS, hidden_units=D, max_len=LENGTH, num_blocks=1), 0)
    scores = 2 * D * ITEMS * USERS
    reading = flops.of_serving(model, histories(LENGTH)) - scores
    weights_and_sum = (
        2 * 2 * D * LENGTH * USERS
    )  # over the slots as they are: neither keys nor values are projected
    one_slot = 2 * 12 * D * D * USERS
    assert reading == pytest.approx(weights_and_sum + one_slot, rel=0.02)
