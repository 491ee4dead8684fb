from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.blocks import Block
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.model_config import SASRecConfig

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

ModelFactory = Callable[..., SASRec]
histories = st.lists(st.integers(1, 30), min_size=1, max_size=10)


def seeded(model: SASRec, items: torch.Tensor) -> torch.Tensor:
    """The output, with the same dropout masks at every call."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        out: torch.Tensor = model(items)
    return out


@pytest.mark.parametrize(
    "sizes", [{}, {"blocks": "narrow"}, {"conv_width": 4, "positions": "rotary", "blocks": "gated"}]
)
@pytest.mark.parametrize("training", [False, True])
@given(history=st.lists(st.integers(1, 30), min_size=2, max_size=10), data=st.data())
@settings(deadline=None, max_examples=40)
def test_no_position_attends_to_a_later_one(
    random_model: ModelFactory, training: bool, sizes: dict[str, Any], history: list[int], data: st.DataObject
) -> None:
    model = random_model(num_blocks=2, dropout_rate=0.3, **sizes).train(training)
    slot = data.draw(st.integers(0, len(history) - 2))
    later = data.draw(st.lists(st.integers(1, 30), min_size=len(history), max_size=len(history)))
    changed = history[: slot + 1] + later[slot + 1 :]
    before, after = seeded(model, torch.tensor([history])), seeded(model, torch.tensor([changed]))
    torch.testing.assert_close(before[0, : slot + 1], after[0, : slot + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [False, True])
def test_every_position_attends_to_all_earlier_ones(random_model: ModelFactory, training: bool) -> None:
    model = random_model(dropout_rate=0.001 if training else 0.0).train(training)
    history = torch.arange(1, 11)[None]
    before = seeded(model, history)
    for slot in range(10):
        changed = history.clone()
        changed[0, slot] = 30
        differences = (seeded(model, changed) - before).abs().amax(-1)[0]
        assert (differences[slot:] > 1e-4).all()


@pytest.mark.parametrize(
    "sizes", [{}, {"conv_width": 4, "temperature": 0.1, "positions": "rotary", "blocks": "gated"}]
)
@pytest.mark.parametrize("device", DEVICES)
@given(rows=st.lists(histories, min_size=1, max_size=6), extra=st.integers(0, 10))
@settings(deadline=None, max_examples=40)
def test_padding_influences_nothing(
    random_model: ModelFactory, device: str, sizes: dict[str, Any], rows: list[list[int]], extra: int
) -> None:
    model = random_model(**sizes).to(device)
    width = min(max(len(row) for row in rows) + extra, 10)
    batch = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    with torch.no_grad():
        together = model(batch)
        for row, out in zip(rows, together, strict=True):
            alone = model(torch.tensor([row], device=device))[0]
            torch.testing.assert_close(out[: len(row)], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("blocks", ["plain", "narrow", "gated"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("num_heads", [1, 2])
@given(rows=st.lists(histories, min_size=1, max_size=6), data=st.data())
@settings(deadline=None, max_examples=20)
def test_one_slot_of_each_row_is_as_among_all(
    random_model: ModelFactory,
    device: str,
    blocks: str,
    positions: str,
    num_heads: int,
    rows: list[list[int]],
    data: st.DataObject,
) -> None:
    model = random_model(blocks=blocks, positions=positions, num_heads=num_heads, conv_width=3).to(device)
    width = max(map(len, rows))
    batch = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    slots = [[data.draw(st.integers(0, len(row) - 1))] for row in rows]
    slot = torch.tensor(slots, device=device)
    with torch.no_grad():
        expected = model(batch).take_along_dim(slot[..., None], 1)
        torch.testing.assert_close(model(batch, slot), expected, atol=1e-5, rtol=0)


@given(history=histories)
@settings(deadline=None, max_examples=40)
def test_most_recent_item_is_always_at_the_last_position(
    random_model: ModelFactory, history: list[int]
) -> None:
    """A short history reads the same in a model that has only the last positions."""
    model = random_model(max_len=10)
    short = random_model(max_len=len(history))
    weights = model.state_dict()
    weights["position_embedding.weight"] = weights["position_embedding.weight"][-len(history) :]
    short.load_state_dict(weights)
    items = torch.tensor([history])
    torch.testing.assert_close(seeded(model, items), seeded(short, items), atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_order_matters(random_model: ModelFactory, positions: str) -> None:
    model = random_model(positions=positions, num_blocks=1)
    one, other = (seeded(model, torch.tensor([history]))[0, -1] for history in ([3, 5, 7], [5, 3, 7]))
    assert not torch.allclose(one, other, atol=1e-3)


def test_rotary_positions_have_no_weights_and_read_any_length_alike(random_model: ModelFactory) -> None:
    short = random_model(positions="rotary", max_len=5)
    long = random_model(positions="rotary", max_len=10)
    assert not any("position" in name for name in short.state_dict())
    long.load_state_dict(short.state_dict())
    items = torch.tensor([[4, 2, 9, 30]])
    torch.testing.assert_close(seeded(short, items), seeded(long, items))


def test_rows_longer_than_max_len_are_refused(random_model: ModelFactory) -> None:
    with pytest.raises(ValueError, match="rows of 11 items for a model of max_len=10"):
        random_model(max_len=10)(torch.ones(1, 11, dtype=torch.int64))


@given(rows=st.lists(histories, min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_training_attention_equals_the_fused_kernel_when_nothing_is_dropped(
    random_model: ModelFactory, rows: list[list[int]]
) -> None:
    model = random_model(dropout_rate=0.001)  # rounds to 0/256: the training path, no drops
    width = max(len(row) for row in rows)
    batch = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    trained, evaluated = seeded(model.train(), batch), seeded(model.eval(), batch)
    torch.testing.assert_close(trained, evaluated, atol=1e-5, rtol=0)


def test_padding_item_starts_as_zero() -> None:
    assert not SASRec(SASRecConfig(num_items=5)).item_embedding.weight[0].any()


def test_with_a_temperature_scores_are_cosines_divided_by_it(random_model: ModelFactory) -> None:
    model = random_model(temperature=0.5)
    with torch.inference_mode():
        hidden = model(torch.tensor([[3, 1, 4]]))[0]
        scores = hidden @ model.item_vectors().T
        plain = torch.nn.functional.cosine_similarity(
            hidden[:, None], model.item_embedding.weight[None], dim=-1
        )
    torch.testing.assert_close(scores, plain / 0.5)
    assert scores.abs().max() <= 2.0001
    torch.testing.assert_close(model.item_vectors(torch.tensor([3, 5])), model.item_vectors()[[3, 5]])


def test_scores_are_by_the_input_embedding_itself(random_model: ModelFactory) -> None:
    model = random_model()
    assert model.item_vectors() is model.item_embedding.weight


def test_without_attention_dropout_only_attention_is_spared(random_model: ModelFactory) -> None:
    model = random_model(dropout_rate=0.5, attention_dropout=False).train()
    items = torch.tensor([[3, 1, 4]])
    assert not torch.equal(model(items), model(items))
    block = model.blocks[0]
    assert isinstance(block, Block)
    attention = block.attention
    x = torch.randn(2, 3, 8)
    assert torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("row", [[0, 3, 5], [3, 0, 5], [0, 0, 7]])
def test_padding_ahead_of_an_item_is_refused(random_model: Callable[..., SASRec], row: list[int]) -> None:
    with pytest.raises(ValueError, match="padding comes after a row's items"):
        random_model()(torch.tensor([[3, 5, 7], row]))
