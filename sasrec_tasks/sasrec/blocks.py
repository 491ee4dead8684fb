"""What a block of the model is made of: attention, feed-forward net, and what surrounds them.

(B, T, D): rows, slots, width. Rows are oldest first with the padding at the end; under causal
attention no real slot sees a padded one.
"""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sasrec_tasks.sasrec.model_config import SASRecConfig

ROTARY_BASE = 1000.0
"""Turns the slowest pair of channels by a fraction of a circle over some hundred slots."""


class Drawing(threading.local):
    """Where a thread's random numbers come from; None: from torch's own generator."""

    generator: torch.Generator | None = None


drawing = Drawing()


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
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(
            -(2**63), None, generator=drawing.generator
        )
        # 1 or 0 in the bytes themselves: booleans take PyTorch ten times as long to make, and to make floats of.
        kept = words.view(torch.uint8)[: x.numel()].ge_(self.dropped)
        return x * kept.view(x.shape).to(x.dtype).mul_(256 / (256 - self.dropped))


def rotated(x: Tensor, slots: Tensor) -> Tensor:
    """Rotary positions (Su et al., RoFormer, 2021): a query meets a key by their distance alone.

    Channels, in pairs, are turned by angles in proportion to the slot. So every slot of a row trains
    what the last one needs when it is served; learned positions train the last one once a row.

    Args:
        x: (B, H, T, width) queries or keys, width even.
        slots: (T,), or (B, 1, T) where rows differ.

    Returns:
        (B, H, T, width).
    """
    width = x.shape[-1]
    frequencies = ROTARY_BASE ** -(torch.arange(0, width, 2, device=x.device) / width)  # (width / 2,)
    angles = slots[..., None] * frequencies  # (..., T, width / 2)
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
        q, k, v = self._heads(self.qkv(x))  # each (B, H, T, D/H)
        if self.rotary:
            slots = torch.arange(T, device=x.device)
            q, k = rotated(q, slots), rotated(k, slots)
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

    def at(self, x: Tensor, slot: Tensor) -> Tensor:
        """(B, T, D), and one slot of each row (B, 1) → its output (B, 1, D), at less than a T-th of the cost.

        A single query is worth moving to where the slots are: q · (W x) = (Wᵀ q) · x, and a weighted sum of values
        is the values' projection of a weighted sum of slots. So no slot but one is projected; with rotary positions,
        keys are, since each is turned by its own angle.
        """
        B, T, D = x.shape
        of_q, of_k, of_v = self.qkv.weight.chunk(3)  # each (D, D)
        bias_q, bias_k, bias_v = self.qkv.bias.chunk(3)
        slots = torch.arange(T, device=x.device)
        one = x.take_along_dim(slot[..., None], 1)  # (B, 1, D)
        (q,) = self._heads(F.linear(one, of_q, bias_q))  # (B, H, 1, D/H)
        if self.rotary:
            (k,) = self._heads(F.linear(x, of_k, bias_k))  # (B, H, T, D/H)
            scores = (rotated(q, slot[:, None]) @ rotated(k, slots).transpose(-2, -1))[:, :, 0]  # (B, H, T)
        else:  # the keys' bias adds the same to all slots of a row
            moved = torch.einsum("bhd,hde->bhe", q[:, :, 0], of_k.view(self.num_heads, -1, D))  # (B, H, D)
            scores = moved @ x.transpose(1, 2)  # (B, H, T)
        scores = scores.mul_((D // self.num_heads) ** -0.5).masked_fill_((slots > slot)[:, None], -torch.inf)
        seen = scores.softmax(-1) @ x  # (B, H, D)
        y = torch.einsum("bhe,hde->bhd", seen, of_v.view(self.num_heads, -1, D))  # (B, H, D/H)
        out: Tensor = self.out(y.reshape(B, 1, D) + bias_v)
        return out

    def _heads(self, projected: Tensor) -> Tensor:
        """(B, T, n D) → (n, B, H, T, D/H)."""
        B, T, _ = projected.shape
        width = self.out.in_features // self.num_heads
        return projected.view(B, T, -1, self.num_heads, width).permute(2, 0, 3, 1, 4)


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


def feed_forward(config: SASRecConfig) -> nn.Module:
    """The net that every slot goes through by itself.

    Plain: four times as wide as the embeddings, with GELU, as transformers have it since GPT-2. Narrow: as wide as
    they are, with ReLU (paper, section III-B); half the operations of a block. Gated: SwiGLU.
    """
    d = config.hidden_units
    if config.blocks == "gated":
        return GatedLinear(d, config.dropout_rate)
    hidden, activation = (d, nn.ReLU()) if config.blocks == "narrow" else (4 * d, nn.GELU())
    return nn.Sequential(nn.Linear(d, hidden), activation, Dropout(config.dropout_rate), nn.Linear(hidden, d))


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
        self.feed_forward = feed_forward(config)
        self.feed_forward_gate = Gate(d) if is_gated else Ungated()
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, x: Tensor, slot: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, T, D); or, of one slot of each row (B, 1), (B, 1, D)."""
        ahead = self.convolution(self.attention_norm(x))
        if slot is None:
            attended = self.attention(ahead)
        else:
            attended, x = self.attention.at(ahead, slot), x.take_along_dim(slot[..., None], 1)
        x = x + self.attention_gate(x, self.dropout(attended))
        fed = self.feed_forward(self.feed_forward_norm(x))
        out: Tensor = x + self.feed_forward_gate(x, self.dropout(fed))
        return out
