from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.blocks import (
    Attention,
    Block,
    CausalConvolution,
    Dropout,
    Gate,
    rotated,
)
from sasrec_tasks.sasrec.model_config import SASRecConfig

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@given(shift=st.integers(1, 100))
@settings(deadline=None, max_examples=20)
def test_rotary_positions_tell_distances_only(shift: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 6)  # the same at every slot
    slots = torch.arange(200)
    products = rotated(q.expand(200, 6), slots) @ rotated(k.expand(200, 6), slots).T  # (query slot, key slot)
    torch.testing.assert_close(products[shift:, shift:], products[:-shift, :-shift], atol=1e-4, rtol=0)
    assert products[0].std() > 0.1
    torch.testing.assert_close(products.diagonal(), (q * k).sum().expand(200), atol=1e-4, rtol=0)


def test_training_attention_equals_the_fused_kernel_on_average() -> None:
    torch.manual_seed(0)
    attention = Attention(SASRecConfig(num_items=1, hidden_units=8, num_heads=2, dropout_rate=0.3))
    x = torch.randn(1, 6, 8)
    with torch.no_grad():
        draws = attention.train()(x.expand(20_000, 6, 8))
        expected = attention.eval()(x)[0]
    error = draws.std(0) / 20_000**0.5
    assert (draws.std(0) > 0).all()
    assert ((draws.mean(0) - expected).abs() < 6 * error).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_dropout_keeps_rate_and_expectation(rate: float, device: str) -> None:
    torch.manual_seed(0)
    n = 400_003  # not whole words
    out = Dropout(rate)(torch.ones(n, device=device))
    deviation = (rate * (1 - rate) / n) ** 0.5
    assert float((out == 0).float().mean()) == pytest.approx(rate, abs=1 / 512 + 5 * deviation)
    assert float(out.double().mean()) == pytest.approx(1, abs=5 * deviation / (1 - rate))
    assert len(out.unique()) == 2


def test_dropout_drops_neighbours_independently() -> None:
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).double() - 0.5
    for lag in range(1, 17):
        assert abs(float((dropped[lag:] * dropped[:-lag]).mean()) / 0.25) < 5 / 400_000**0.5


def test_dropout_follows_the_torch_seed() -> None:
    dropout, x = Dropout(0.5), torch.ones(3, 50)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


@given(rate=st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_dropout_stays_finite_at_any_rate(rate: float) -> None:
    assert torch.isfinite(Dropout(rate)(torch.ones(100))).all()


def test_dropout_does_nothing_in_eval_mode() -> None:
    x = torch.randn(1000)
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_a_gate_lets_between_nothing_and_twice_in_and_starts_as_none() -> None:
    gate, x, branch = Gate(4), torch.randn(3, 4), torch.randn(3, 4)
    with torch.no_grad():
        for bias, share in ((0.0, 1.0), (50.0, 2.0), (-50.0, 0.0)):
            gate.linear.weight.zero_()
            gate.linear.bias.fill_(bias)
            torch.testing.assert_close(gate(x, branch), share * branch)
        gate.linear.weight.normal_()
        gate.linear.bias.zero_()
        opened = gate(x, torch.ones(3, 4))
    assert opened.min() < 0.9
    assert opened.max() > 1.1


@pytest.mark.parametrize("width", [1, 2, 8, 64, 100])
def test_a_gated_net_costs_about_as_much_as_a_plain_one(width: int) -> None:
    gated, plain = (
        sum(weight.numel() for weight in Block(config).feed_forward.parameters())
        for config in (
            SASRecConfig(num_items=1, hidden_units=width, blocks="gated"),
            SASRecConfig(num_items=1, hidden_units=width, blocks="plain"),
        )
    )
    assert gated <= 1.1 * plain + 48


def test_a_narrow_net_is_as_wide_as_the_embeddings() -> None:
    net = Block(SASRecConfig(num_items=1, hidden_units=6, blocks="narrow")).feed_forward
    assert {tuple(weight.shape) for weight in net.parameters()} == {(6, 6), (6,)}


def test_the_convolution_starts_as_nothing_and_mixes_the_last_slots() -> None:
    convolution = CausalConvolution(3, 4)
    x = torch.randn(2, 7, 3)
    torch.testing.assert_close(convolution(x), x)
    with torch.no_grad():
        convolution.weight.normal_()
    weight = convolution.weight[:, 0]  # (channels, width), the slot itself last
    wanted = torch.zeros_like(x)
    for slot in range(7):
        for back in range(min(slot, 3) + 1):
            wanted[:, slot] += x[:, slot - back] * weight[:, 3 - back]
    torch.testing.assert_close(convolution(x), wanted)
    torch.testing.assert_close(convolution(x[:, :2]), wanted[:, :2])  # rows shorter than the kernel
