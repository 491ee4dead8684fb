"""What `train` promises: resuming, no leak, the meaning of OUTCOME, a time budget."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sasrec_tasks import contents, memory, runs, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, BadSettings, GateRefused
from sasrec_tasks.fitting import fit_config
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.sasrec import fit
from sasrec_tasks.tables import Recommendations, open_tables
from sasrec_tasks.train import some_users


def weights(store: RunStore) -> bytes:
    return (store.folder("train") / "model.safetensors").read_bytes()


def history(store: RunStore) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store.folder("train") / "history.parquet").to_pylist()
    return rows


def with_items(events: pa.Table, user_place: int, items: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    """Each user's event at a place from the end (-1: the last) with another item."""
    frame = events.to_pandas().sort_values(["USER_ID", "TIMESTAMP"], kind="stable").reset_index(drop=True)
    chosen = frame.groupby("USER_ID").nth(user_place).index
    frame.loc[chosen, "ITEM_ID"] = items(frame.loc[chosen, "ITEM_ID"].to_numpy())
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_a_training_killed_in_mid_epoch_resumes_and_ends_with_the_same_weights(
    place: Any, killed_in_mid_epoch: Callable[..., list[dict[str, Any]]]
) -> None:
    settings = {"train.epochs": 20, "train.early_stopping_patience": None, "train.batch_size": 8}
    whole = place.run("whole", settings, upto="train")
    killed = place.run("killed", settings, upto="split")
    before = killed_in_mid_epoch(killed, "train")
    moment = datetime.now(UTC)
    assert 3 <= len(before) < 20

    summary = run_task("train", killed.uri)

    assert summary["resumed_from_epoch"] == len(before)
    assert weights(killed) == weights(whole)
    rows = history(killed)
    assert [row["epoch"] for row in rows] == list(range(1, 21))
    for row, earlier in zip(rows, before, strict=False):
        assert row["loss"] == earlier["loss"]
        assert row["metric"] == earlier["metric"]
        assert row["finished_at"] == datetime.fromisoformat(earlier["finished_at"]) < moment
    assert all(row["finished_at"] > moment for row in rows[len(before) :])
    assert [row["loss"] for row in rows] == [row["loss"] for row in history(whole)]


def test_the_history_has_a_row_per_epoch(finished: Any) -> None:
    table = pq.read_table(Path(finished.store) / "first" / "train" / "history.parquet")
    assert table.column_names == ["epoch", "loss", "metric", "seconds", "finished_at"]
    assert table.schema.field("finished_at").type == pa.timestamp("ms", tz="UTC")
    assert table["epoch"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert all(column.null_count == 0 for column in table.columns)


def test_the_weights_follow_from_the_seed(place: Any, finished: Any) -> None:
    first = RunStore(f"{finished.store}/first")
    assert weights(place.run("same", upto="train")) == weights(first)
    assert weights(place.run("other", {"train.random_state": 1}, upto="train")) != weights(first)


@pytest.mark.parametrize("metric", ["ndcg@10", "loss"])
def test_the_best_weights_are_restored(place: Any, metric: str) -> None:
    settings = {
        "train.epochs": 60,
        "train.early_stopping_patience": 3,
        "train.early_stopping_metric": metric,
        "train.learning_rate": 0.05,
    }
    store = place.run("run", settings, upto="train")
    summary, rows = store.marker("train").summary, history(store)
    best = min if metric == "loss" else max
    assert summary["stopped"] == "patience"
    assert summary["metric"] == best(row["metric"] for row in rows)
    assert len(rows) == summary["best_epoch"] + 3
    model = trained.model(store, store.settings())
    data = contents.interactions(store, store.settings())
    again = fit.validate(model, data.split.validation, fit_config(data.num_items, store.settings()))
    assert again == pytest.approx(summary["metric"], rel=1e-5)


def test_the_test_items_do_not_reach_the_weights(place: Any, finished: Any, chains: Any) -> None:
    place.write(with_items(chains(), -1, np.random.default_rng(1).permutation))
    changed = place.run("changed", upto="train")
    unchanged = RunStore(f"{finished.store}/first")
    tests = [contents.interactions(store, store.settings()).split.test for store in (changed, unchanged)]
    assert (tests[0].targets != tests[1].targets).mean() > 0.5
    assert weights(changed) == weights(unchanged)


def test_the_validation_items_only_choose_the_epoch(place: Any, chains: Any) -> None:
    one_epoch = {"train.epochs": 1}
    unchanged = place.run("unchanged", one_epoch, upto="train")
    place.write(with_items(chains(), -2, np.random.default_rng(1).permutation))
    changed = place.run("changed", one_epoch, upto="train")
    assert history(changed)[0]["metric"] != history(unchanged)[0]["metric"]
    assert weights(changed) == weights(unchanged)


def test_the_training_items_reach_the_weights(place: Any, chains: Any) -> None:
    one_epoch = {"train.epochs": 1}
    unchanged = place.run("unchanged", one_epoch, upto="train")
    place.write(with_items(chains(), -3, np.random.default_rng(1).permutation))
    assert weights(place.run("changed", one_epoch, upto="train")) != weights(unchanged)


@pytest.mark.parametrize(
    ("outcomes", "says"),
    [((1.0, 5.0), "(OUTCOME - 1) / 4"), ((5.0, 5.0), "OUTCOME / 5"), ((-1.0, 1.0), "(OUTCOME - -1) / 2")],
)
def test_soft_labels_outside_0_1_are_refused_with_the_remedy(
    place: Any, chains: Any, outcomes: tuple[float, float], says: str
) -> None:
    events = chains()
    values = np.full(len(events), outcomes[1])
    values[0] = outcomes[0]
    place.write(events.set_column(2, "OUTCOME", pa.array(values)))
    with pytest.raises(BadData, match="OUTCOME") as raised:
        place.run("run", {"train.outcome": "soft"}, upto="train")
    assert says in str(raised.value)
    assert place.source in str(raised.value)


def test_what_outcome_means_is_a_setting(place: Any, chains: Any) -> None:
    events = chains()
    place.write(events.set_column(2, "OUTCOME", pc.divide(events["OUTCOME"], 5.0)))
    meanings = {
        "implicit": {},
        "soft": {"train.outcome": "soft"},
        "squares": {"train.loss": "mse"},
        "rating": {"train.outcome": "rating", "train.loss": "mse"},
    }
    found = {name: weights(place.run(name, settings, upto="train")) for name, settings in meanings.items()}
    assert len(set(found.values())) == len(meanings)


def test_implicit_feedback_does_not_look_at_outcomes(place: Any, finished: Any, chains: Any) -> None:
    place.write(chains().set_column(2, "OUTCOME", pa.array(np.full(len(chains()), 77.0))))
    assert weights(place.run("run", upto="train")) == weights(RunStore(f"{finished.store}/first"))


def test_training_ends_with_its_time_budget(place: Any) -> None:
    store = place.run("run", {"train.max_minutes": 1e-6, "train.epochs": 1000}, upto="train")
    summary = store.marker("train").summary
    assert summary["stopped"] == "time"
    assert summary["epochs"] == 1
    assert trained.model(store, store.settings()).is_finite()


def test_a_diverging_training_names_the_learning_rate(place: Any, chains: Any) -> None:
    events = chains()
    place.write(events.set_column(2, "OUTCOME", pc.multiply(events["OUTCOME"], 1e30)))
    settings = {"train.outcome": "rating", "train.loss": "mse", "train.learning_rate": 1}
    with pytest.raises(BadSettings, match=r"train\.learning_rate=1"):
        place.run("run", settings, upto="train")


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gradient_that_explodes_leaves_the_best_weights_and_the_gate_lets_them_pass(
    place: Any,
    exploding: Callable[[int, float], None],
    caplog: pytest.LogCaptureFixture,
    value: float,
    precision: str,
) -> None:
    exploding(5, value)
    store = place.run("run", {"train.precision": precision})
    summary = store.marker("train").summary
    history = pq.read_table(store.folder("train") / "history.parquet").to_pylist()
    assert (summary["stopped"], summary["epochs"], len(history)) == ("diverged", 4, 4)
    assert summary["metric"] == max(epoch["metric"] for epoch in history)
    assert trained.model(store, store.settings()).is_finite()
    told = rf"train: diverged in epoch 5, .* of epoch {summary['best_epoch']}: lower learning_rate, which is 0\.01"
    assert re.search(told, caplog.text)
    assert ("precision=float32" in caplog.text) == (precision == "bfloat16")
    assert store.read_json("gate", "verdict.json")["passed"]
    assert Recommendations(place.table).run_id == "run"


def test_weights_from_before_a_gradient_exploded_that_are_not_good_enough_are_refused(
    place: Any, exploding: Callable[[int, float], None]
) -> None:
    exploding(2, math.nan)
    with pytest.raises(GateRefused, match="not better than popularity"):
        place.run("run", {"train.learning_rate": 1e-9})
    assert not list(open_tables(place.table).published())


def test_a_gradient_that_explodes_in_the_first_epoch_fails_the_night_with_what_to_try(
    place: Any, exploding: Callable[[int, float], None]
) -> None:
    exploding(1, math.inf)
    with pytest.raises(
        BadSettings, match=r"train\.learning_rate=0\.01: train: .*in epoch 1: lower learning_rate"
    ):
        place.run("run")
    row = runs.read(f"{place.table}_runs").to_pylist()[0]
    assert (row["ENDING"], row["TASK"]) == ("failed", "train")
    assert "diverged in epoch 1" in row["REASON"]
    assert not list(open_tables(place.table).published())


def test_early_stopping_looks_at_some_users_only(finished: Any) -> None:
    store = RunStore(f"{finished.store}/first")
    settings = store.settings()
    validation = contents.interactions(store, settings).split.validation

    def chosen(limit: int) -> list[int]:
        train = settings.train.model_copy(update={"validation_users": limit})
        return list(some_users(validation, settings.model_copy(update={"train": train})).users)

    assert len(chosen(7)) == len(set(chosen(7))) == 7
    assert set(chosen(7)) < set(validation.users)
    assert chosen(7) == chosen(7)
    assert chosen(10**6) == list(validation.users)


def test_other_settings_do_not_resume_the_checkpoint(place: Any) -> None:
    store = place.run("run", {"train.learning_rate": 0.001}, upto="train")
    place.start("run", {"train.learning_rate": 0.002})
    assert run_task("train", store.uri)["resumed_from_epoch"] is None


def test_a_finished_training_is_not_done_again(place: Any) -> None:
    store = place.run("run", upto="train")
    marker = store.marker("train")
    assert run_task("train", store.uri) == marker.summary
    assert store.marker("train") == marker


def test_histories_without_a_pair_to_learn_from_are_refused(place: Any) -> None:
    rows = [(f"u{user}", f"i{place % 2}", 1.0, place) for user in range(5) for place in range(3)]
    names = ("USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP")
    place.write(pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)}))
    with pytest.raises(BadData, match="two training events"):
        place.run("run", upto="train")


@pytest.mark.parametrize(
    ("there", "error"),
    [
        (memory.Allowed(limit=100_000_000, free=50_000_000), BadSettings),  # never
        (memory.Allowed(limit=100_000_000_000, free=-(10**10)), OSError),  # not now
    ],
    ids=["limit", "free"],
)
def test_what_can_not_fit_into_memory_is_refused_with_the_figures(
    place: Any, monkeypatch: pytest.MonkeyPatch, there: memory.Allowed, error: type[Exception]
) -> None:
    run = place.run("run", {}, upto="split")
    monkeypatch.setattr(memory, "allowed", lambda: there)
    with pytest.raises(
        error, match=r"train: needs about [\d.]+ GB of memory, [\d.]+ GB at least; cpu has [\d.]+ GB"
    ):
        run_task("train", run.uri)
    assert run.marker("train") is None


def test_what_may_be_tight_is_told(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = place.run("run", {}, upto="split")
    monkeypatch.setattr(memory, "allowed", lambda: memory.Allowed(limit=10**11, free=10**8))
    monkeypatch.setattr(memory, "resident", lambda: 3 * 10**8)
    run_task("train", run.uri)
    (told,) = [each for each in caplog.records if "needs about" in each.getMessage()]
    assert told.levelname == "WARNING"
