"""The model card says what is in the run's files, for programs and for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.model_card import as_markdown


@pytest.fixture(scope="module")
def card(finished: Any) -> dict[str, Any]:
    store = RunStore.of(finished.store, "first")
    found: dict[str, Any] = store.read_json("evaluate", "model_card.json")
    return found


def test_it_names_data_period_training_and_settings(finished: Any, card: dict[str, Any]) -> None:
    store = RunStore.of(finished.store, "first")
    events = sorted(pq.read_table(finished.source)["TIMESTAMP"].to_pylist())
    assert card["data"]["first_event"] == datetime.fromtimestamp(events[0], UTC).isoformat()
    assert card["data"]["last_event"] == datetime.fromtimestamp(events[-1], UTC).isoformat()
    assert card["data"]["events"] == len(events)
    assert card["training"] == store.marker("train").summary  # type: ignore[union-attr]
    assert card["metrics"] == store.read_json("evaluate", "metrics.json")
    assert card["weights_sha256"] == store.marker("train").files["model.safetensors"]["sha256"]  # type: ignore[union-attr]
    assert card["settings"]["train.hidden_units"] == store.settings().train.hidden_units


def test_the_markdown_is_of_the_json(finished: Any, card: dict[str, Any]) -> None:
    text = (RunStore.of(finished.store, "first").folder("evaluate") / "model_card.md").read_text()
    assert text == as_markdown(card)
    low, high = card["metrics"]["full"]["ci95"]["ndcg@10"]
    assert f"{card['metrics']['full']['ndcg@10']:.4f} ({low:.4f}–{high:.4f})" in text
    for limit in card["limits"]:
        assert limit in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables if "train." in line}) == 1


def test_odd_names_do_not_break_the_markdown(card: dict[str, Any]) -> None:
    odd = {**card, "data": {**card["data"], "source": "a|b`c\n# d"}}
    text = as_markdown(odd)
    assert "\n# d" not in text
    assert "`` a\\|b`c # d ``" in text
