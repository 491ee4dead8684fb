"""How much memory a training needs, before it begins.

What is held in known numbers is counted: weights and what is held beside each of them, events, the batch's
activations, the blocks of scores that validation ranks. The rest, the interpreter with its libraries, is what
was measured (docs/speed.md, *Growth*).
"""

from __future__ import annotations

from dataclasses import dataclass

from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.scoring import users_at_once
from sasrec_tasks.sasrec.threads import workers

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training holds at its peak: no less than ``least``, and about ``likely``."""

    least: int
    likely: int

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.least + other.least, self.likely + other.likely)


PROCESS = Footprint(300_000_000, 820_000_000)
"""The interpreter, its libraries, and what they keep for themselves."""

GPU = Footprint(0, 2_300_000_000)
"""What CUDA's libraries and PyTorch keep of a GPU, and the large blocks of scores there; measured on an H100."""

EVENT = Footprint(8, 30)
"""Per event: at least its item as int64; also its outcome, and copies while they are cut and sorted."""

COPIES = Footprint(4, 10)
"""Per parameter: weights, both moments of Adam, best weights; also gradients, and copies while they are saved."""

ACTIVATIONS = Footprint(6, 24)
"""Per slot, unit and block: what the way back needs of the way there."""


def training_footprint(sizes: SASRecConfig, config: FitConfig, events: int, *, on_gpu: bool) -> Footprint:
    """Memory of training a model of these sizes on so many events.

    On a GPU, only what lies there: no interpreter and no events.
    """
    width = sizes.hidden_units
    parameters = width * (sizes.num_items + sizes.max_len + 12 * width * sizes.num_blocks)
    units = (config.batch_slots or config.batch_size * sizes.max_len) * width * sizes.num_blocks
    scores = users_at_once(sizes.num_items, on_gpu) * sizes.num_items
    threads = 1 if on_gpu else workers()
    counted = Footprint(
        FLOAT * (COPIES.least * parameters + ACTIVATIONS.least * units + scores),
        FLOAT * (COPIES.likely * parameters + ACTIVATIONS.likely * units + 2 * threads * scores),
    )
    if on_gpu:
        return GPU + counted
    return PROCESS + Footprint(EVENT.least * events, EVENT.likely * events) + counted
