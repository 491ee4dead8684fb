"""Weights of an earlier model carried over to a new catalogue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import PADDING, Int64, Sequences


def fits(new: SASRecConfig, earlier: SASRecConfig) -> bool:
    """Whether weights can be carried over: all is the same but the catalogue and dropout."""
    same = {"num_items": 1, "dropout_rate": 0.0, "attention_dropout": False}
    return replace(new, **same) == replace(earlier, **same)  # type: ignore[arg-type]


@torch.no_grad()
def carry_over(
    model: SASRec, earlier: SASRec, index: Int64, histories: Sequences, *, item_share: float = 1.0
) -> int:
    """Give an untrained ``model`` the weights of ``earlier``; of the item vectors, a share.

    An item that the earlier model does not know begins as the mean of those that were right before or after it in
    ``histories``, or of all, if none of those is known: near what it was consumed with, not at a random place.

    Trained on from all of its weights, a model stays worse than one that is trained anew on the same data. Weights
    that are shrunk, and mixed with untrained ones, don't (Ash & Adams, "On Warm-Starting Neural Network Training",
    NeurIPS 2020, section 4). Here it is the item vectors that know the earlier data by heart.

    Args:
        index: (num_items + 1,), the earlier model's index of each item; padding for those that it does not know.
        histories: of training, in the new catalogue's indices.
        item_share: of the earlier item vectors; the rest is the model's own, as it was drawn.

    Returns:
        Number of items that the earlier model does not know.

    Raises:
        ValueError: the models differ in more than their catalogue.
    """
    if not fits(model.config, earlier.config):
        raise ValueError(f"weights of {earlier.config} do not fit {model.config}")
    old = earlier.item_embedding.weight
    vectors = old[torch.from_numpy(index)].to(model.item_embedding.weight.device)
    known = index != PADDING
    unknown = np.flatnonzero(~known)[1:]  # without padding itself
    if len(unknown):
        vectors[torch.from_numpy(unknown)] = _neighbours(vectors, known, unknown, histories)
    weights = {
        name: tensor for name, tensor in earlier.state_dict().items() if name != "item_embedding.weight"
    }
    vectors = torch.lerp(model.item_embedding.weight, vectors, item_share)
    model.load_state_dict({**weights, "item_embedding.weight": vectors})
    return len(unknown)


def _neighbours(vectors: Tensor, known: np.ndarray, unknown: Int64, histories: Sequences) -> Tensor:
    """(unknown, D): the mean vector of the known items beside each unknown one."""
    users, _, positions = histories.flat()
    items = histories.items[positions].astype(np.int64)
    together = users[1:] == users[:-1]
    before, after = items[:-1][together], items[1:][together]
    pairs = [(before, after), (after, before)]
    of, beside = (np.concatenate(each) for each in zip(*pairs, strict=True))
    chosen = ~known[of] & known[beside]
    place = torch.from_numpy(np.searchsorted(unknown, of[chosen]))
    sums = vectors.new_zeros(len(unknown), vectors.shape[1])
    sums.index_add_(0, place.to(vectors.device), vectors[torch.from_numpy(beside[chosen])])
    counts = torch.bincount(place, minlength=len(unknown)).to(vectors.device)[:, None]
    everything = vectors[torch.from_numpy(np.flatnonzero(known))].mean(0)
    return torch.where(counts > 0, sums / counts.clamp(min=1), everything)
