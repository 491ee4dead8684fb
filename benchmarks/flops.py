"""Floating-point operations of training and of reading histories, counted as they run: matrix products and
attention, of which causality leaves half. Over the speed of the machine's fastest product they give the
least time that the work can take.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sasrec_tasks.sasrec.batches import by_slots
from sasrec_tasks.sasrec.gradient import batch_loss
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.scoring import ENCODE_SLOTS
from sasrec_tasks.sasrec.sequences import Sequences
from sasrec_tasks.sasrec.trainer import Trainer


def _causal(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value)) // 2  # type: ignore[no-untyped-call]


def _causal_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value)) // 2  # type: ignore[no-untyped-call]


def counter() -> FlopCounterMode:
    """Counts what runs in its context, in the same thread."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={attention: _causal, backward: _causal_backward})


def of_epoch(trainer: Trainer) -> int:
    """Forward and backward, of every batch of an epoch."""
    trainer.model.train()
    with counter() as count:
        for batch in trainer.batches.epoch(1):
            loss = batch_loss(trainer.model, batch, trainer.config.objective)
            torch.autograd.backward(loss)
            trainer.model.zero_grad()
    return int(count.get_total_flops())


@torch.inference_mode()
def of_serving(model: SASRec, histories: Sequences) -> int:
    """Reading all histories, and one score for each of their users and each item."""
    model.eval()
    histories = histories.last(model.config.max_len)
    lengths = histories.lengths
    order = np.argsort(lengths, kind="stable")
    with counter() as count:
        for rows in by_slots(order[lengths[order] > 0], lengths, ENCODE_SLOTS):
            items = torch.from_numpy(histories.select(rows).padded())
            model(items, torch.from_numpy(lengths[rows, None] - 1))
    scores = 2 * model.config.hidden_units * model.config.num_items * len(histories)
    return int(count.get_total_flops()) + scores
