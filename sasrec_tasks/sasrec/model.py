"""SASRec (Kang & McAuley, ICDM 2018): a causal transformer over a user's items.

Pre-norm blocks, plain or gated, learned or rotary positions, output scores by the input embedding
itself.

Rows are laid out oldest first with the padding at the end, while learned *positions* are counted from
the right: the most recent item of a row always has the last position, ``max_len - 1``. Under causal
attention no real slot can then see a padded one, so padding needs no mask and influences nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sasrec_tasks.sasrec.sequences import PADDING

Positions = Literal["learned", "rotary"]
Blocks = Literal["plain", "gated"]


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Sizes of a model; with its weights, all that is needed to build it again."""

    num_items: int
    hidden_units: int = 50  # width d of embeddings and attention
    num_blocks: int = 2
    blocks: Blocks = "plain"  # or gated residual branches, and a gated feed-forward net
    num_heads: int = 1
    dropout_rate: float = 0.2  # on embeddings, attention weights and feed-forward
    attention_dropout: bool = True  # without it, attention weights are never held: twice as fast on CPU
    max_len: int = 50  # how many of the most recent items are read
    positions: Positions = "learned"  # an embedding for each, or queries and keys turned by their distance
    conv_width: int = 1  # slots that a convolution ahead of attention mixes; 1: none
    temperature: float | None = None  # scores are cosines divided by it; None: dot products

    def __post_init__(self) -> None:
        for name in ("num_items", "hidden_units", "num_blocks", "num_heads", "max_len", "conv_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.hidden_units % self.num_heads:
            raise ValueError(
                f"hidden_units ({self.hidden_units}) must be divisible by num_heads ({self.num_heads})"
            )
        for name, choices in {"positions": Positions, "blocks": Blocks}.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, not {getattr(self, name)!r}"
                )
        if self.positions == "rotary" and self.hidden_units // self.num_heads % 2:
            raise ValueError(
                f"rotary positions need heads of even width: hidden_units / num_heads is "
                f"{self.hidden_units // self.num_heads}"
            )
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate must be in [0, 1), not {self.dropout_rate}")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")

    def as_dict(self) -> dict[str, int | float | bool | str | None]:
        """The sizes by name, as JSON can hold them."""
        return asdict(self)


ROTARY_BASE = 1000.0
"""Turns the slowest pair of channels by a fraction of a circle over some hundred slots."""


class Dropout(nn.Module):
    """Dropout whose mask costs one random byte an element (the rate is rounded to 1/256).

    On CPU, drawing a Bernoulli number per element takes a third of a training step; cutting
    64-bit draws of the same generator into bytes takes a few percent.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.dropped = min(round(rate * 256), 255)  # of 256 byte values

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with a random part set to zero and the rest scaled up; in eval mode ``x``."""
        if not self.training or self.rate == 0:
            return x
        if x.is_cuda:
            return F.dropout(x, self.rate)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = (words.view(torch.uint8)[: x.numel()] >= self.dropped).view(x.shape)
        return x * kept.to(x.dtype).mul_(256 / (256 - self.dropped))


def rotated(x: Tensor) -> Tensor:
    """Rotary positions (Su et al., RoFormer, 2021): a query meets a key by their distance alone.

    Channels, in pairs, are turned by angles in proportion to the slot. So every slot of a row trains
    what the last one needs when it is served; learned positions train the last one once a row.

    Args:
        x: (..., T, width) queries or keys, width even.

    Returns:
        (..., T, width).
    """
    T, width = x.shape[-2:]
    frequencies = ROTARY_BASE ** -(torch.arange(0, width, 2, device=x.device) / width)  # (width / 2,)
    angles = torch.arange(T, device=x.device)[:, None] * frequencies  # (T, width / 2)
    cosine, sine = angles.cos(), angles.sin()
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


class Attention(nn.Module):
    """Causal multi-head self-attention (paper, section III-B)."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_units, 3 * config.hidden_units)
        self.out = nn.Linear(config.hidden_units, config.hidden_units)
        self.dropout = Dropout(config.dropout_rate if config.attention_dropout else 0.0)
        self.rotary = config.positions == "rotary"

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D); a slot sees itself and the slots before it."""
        B, T, D = x.shape
        heads = self.qkv(x).view(B, T, 3, self.num_heads, D // self.num_heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        if self.rotary:
            q, k = rotated(q), rotated(k)
        if self.training and self.dropout.rate > 0 and not x.is_cuda:
            # The fused CPU kernel has no dropout; its fallback draws Bernoulli numbers.
            future = torch.ones(T, T, dtype=torch.bool).triu(1)
            weights = (q @ k.transpose(-2, -1)) * (D // self.num_heads) ** -0.5  # (B, H, T, T)
            weights = weights.masked_fill(future, float("-inf")).softmax(-1)
            y = self.dropout(weights) @ v
        else:
            rate = self.dropout.rate if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        out: Tensor = self.out(y.transpose(1, 2).reshape(B, T, D))
        return out


class CausalConvolution(nn.Conv1d):
    """Each channel's weighted sum of a slot and the ones just before it; starts as the slot itself.

    A depthwise convolution ahead of attention, after Primer (So et al., NeurIPS 2021): attention need
    not learn to find the last few items by their positions.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, channels, width, groups=channels, bias=False)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:, 0, -1] = 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        return super().forward(F.pad(x.transpose(1, 2), (self.kernel_size[0] - 1, 0))).transpose(1, 2)


class GatedLinear(nn.Module):
    """The feed-forward net SwiGLU (Shazeer 2020): one projection, through SiLU, gates another.

    Two thirds as many hidden channels as a plain net of the same cost, in eights.
    """

    def __init__(self, width: int, dropout_rate: float) -> None:
        super().__init__()
        hidden = max(8 * width // 3 // 8, 1) * 8
        self.up = nn.Linear(width, 2 * hidden)
        self.dropout = Dropout(dropout_rate)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        gate, value = self.up(x).chunk(2, -1)
        out: Tensor = self.down(self.dropout(F.silu(gate) * value))
        return out


class Gate(nn.Module):
    """How much of a residual branch is let in, 0 to 2 per channel, by what it is added to; starts at 1.

    After the gated residuals of LiGR (Borisyuk et al. 2025), at twice their scale, so that
    an untrained gate is none.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """(B, T, D) and (B, T, D) → (B, T, D)."""
        return 2 * torch.sigmoid(self.linear(x)) * branch


class Ungated(nn.Module):
    """Lets a residual branch in as it is."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """(B, T, D) and (B, T, D) → the second."""
        return branch


class Block(nn.Module):
    """Attention, then a position-wise feed-forward net, each on a residual branch."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        d, is_gated = config.hidden_units, config.blocks == "gated"
        self.attention_norm = nn.LayerNorm(d)
        self.convolution = CausalConvolution(d, config.conv_width) if config.conv_width > 1 else nn.Identity()
        self.attention = Attention(config)
        self.attention_gate = Gate(d) if is_gated else Ungated()
        self.feed_forward_norm = nn.LayerNorm(d)
        self.feed_forward = (
            GatedLinear(d, config.dropout_rate)
            if is_gated
            else nn.Sequential(
                nn.Linear(d, 4 * d),
                nn.GELU(),
                Dropout(config.dropout_rate),
                nn.Linear(4 * d, d),
            )
        )
        self.feed_forward_gate = Gate(d) if is_gated else Ungated()
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        attended = self.attention(self.convolution(self.attention_norm(x)))
        x = x + self.attention_gate(x, self.dropout(attended))
        fed = self.feed_forward(self.feed_forward_norm(x))
        out: Tensor = x + self.feed_forward_gate(x, self.dropout(fed))
        return out


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

    def forward(self, items: Tensor) -> Tensor:
        """Representation of every slot.

        Args:
            items: (B, T) int64, T ≤ max_len; each row oldest first, then padding (0).

        Returns:
            (B, T, hidden_units); the values at padded slots mean nothing.
        """
        _, T = items.shape
        if self.config.max_len < T:
            raise ValueError(f"rows of {T} items for a model of max_len={self.config.max_len}")
        x = self.item_embedding(items)
        if self.config.positions == "learned":
            lengths = (items != PADDING).sum(1, keepdim=True)  # (B, 1)
            slots = torch.arange(T, device=items.device)  # (T,)
            positions = (self.config.max_len - lengths + slots).clamp(max=self.config.max_len - 1)  # (B, T)
            x = x + self.position_embedding(positions)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
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
