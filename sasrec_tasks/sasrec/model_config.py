"""The sizes of a model, and which parts it is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

Positions = Literal["learned", "rotary"]
Blocks = Literal["plain", "narrow", "gated"]


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Sizes of a model; with its weights, all that is needed to build it again."""

    num_items: int
    hidden_units: int = 50  # width d of embeddings and attention
    num_blocks: int = 2
    blocks: Blocks = "plain"  # what the feed-forward net is like: see `blocks.feed_forward`
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
