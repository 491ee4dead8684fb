"""SASRec (Kang & McAuley, ICDM 2018): a causal transformer over a user's items.

Pre-norm blocks, plain, narrow or gated, learned or rotary positions, output scores by the input embedding
itself.

Rows are laid out oldest first with the padding at the end, while learned *positions* are counted from
the right: the most recent item of a row always has the last position, ``max_len - 1``. Under causal
attention no real slot can then see a padded one, so padding needs no mask and influences nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sasrec_tasks.sasrec.blocks import Block, Dropout
from sasrec_tasks.sasrec.model_config import SASRecConfig
from sasrec_tasks.sasrec.sequences import PADDING


class SASRec(nn.Module):
    """The model: item indices in, one representation per slot out.

    The score of item ``i`` after slot ``t`` is ``representations[t] @ item_vectors()[i]`` (paper, eq. 6,
    with the shared embedding of section III-D).
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config = config
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_units, padding_idx=PADDING)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.max_len, config.hidden_units)
        self.dropout = Dropout(config.dropout_rate)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.hidden_units)
        self.apply(_initialise)

    def forward(self, items: Tensor, slot: Tensor | None = None) -> Tensor:
        """Representation of every slot, or of one in each row.

        Args:
            items: (B, T) int64, T ≤ max_len; each row oldest first, then padding (0). On a CPU, padding
                ahead of an item is refused; on a GPU the check would have to wait for it.
            slot: (B, 1) int64, the slot that is wanted of each row: the last block leaves out the rest.

        Returns:
            (B, T, hidden_units), where the values at padded slots mean nothing; or (B, 1, hidden_units).
        """
        _, T = items.shape
        if self.config.max_len < T:
            raise ValueError(f"rows of {T} items for a model of max_len={self.config.max_len}")
        if not items.is_cuda and bool(((items[:, :-1] == PADDING) & (items[:, 1:] != PADDING)).any()):
            raise ValueError("padding comes after a row's items: a 0 stands before another number")
        x = self.item_embedding(items)
        if self.config.positions == "learned":
            lengths = (items != PADDING).sum(1, keepdim=True)  # (B, 1)
            slots = torch.arange(T, device=items.device)  # (T,)
            positions = (self.config.max_len - lengths + slots).clamp(max=self.config.max_len - 1)  # (B, T)
            x = x + self.position_embedding(positions)
        x = self.dropout(x)
        *first, last = self.blocks
        for block in first:
            x = block(x)
        x = last(x, slot)
        out: Tensor = self.norm(x)
        if self.config.temperature is not None:
            out = F.normalize(out, dim=-1) / self.config.temperature
        return out

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """What representations are multiplied with to score items.

        Args:
            items: (...) int64; None for all, padding included.

        Returns:
            (..., hidden_units), or (num_items + 1, hidden_units): embeddings, of length 1 if there is
            a temperature.
        """
        vectors = self.item_embedding.weight if items is None else self.item_embedding(items)
        return vectors if self.config.temperature is None else F.normalize(vectors, dim=-1)

    def is_finite(self) -> bool:
        """Whether all weights are numbers.

        Outputs don't tell: the fused CPU attention kernel turns NaN into zeros.
        """
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters())


def _initialise(module: nn.Module) -> None:
    """Normal(0, 0.02) weights, zero biases; the padding item stays zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
