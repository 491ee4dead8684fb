"""The figures of `evaluate`, held against ones counted user by user."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sasrec_tasks import contents, measures, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.sasrec.metrics import MISS, Ranks, per_user
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.ranking import rank
from sasrec_tasks.sasrec.scoring import constant_scorer

PROTOCOLS = ("sampled", "full", "full_with_seen")
METRICS = ("hr@10", "ndcg@10", "mrr")


@pytest.fixture(scope="module")
def first(finished: Any) -> RunStore:
    return RunStore(f"{finished.store}/first")


@pytest.fixture(scope="module")
def with_threshold(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A run on events of OUTCOME ≥ 3 only."""
    place = type(finished)(tmp_path_factory.mktemp("threshold"))
    place.source = finished.source
    store: RunStore = place.run("run", {"split.min_outcome": 3}, upto="evaluate")
    return store


@pytest.fixture(params=["first", "with_threshold"])
def store(request: pytest.FixtureRequest) -> RunStore:
    found: RunStore = request.getfixturevalue(request.param)
    return found


def metrics_of(store: RunStore) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json("evaluate", "metrics.json")
    return found


@cache
def sorted_events(store: RunStore) -> pd.DataFrame:
    """The source file alone, in order of time."""
    return pd.read_parquet(store.settings().source).sort_values("TIMESTAMP", kind="stable")


@cache
def model_and_ids(store: RunStore) -> tuple[SASRec, list[str]]:
    return trained.model(store, store.settings()), contents.item_ids(store)


@cache
def histories(store: RunStore, *, positives_only: bool = True) -> dict[str, list[str]]:
    """What each user did, in order."""
    settings, frame = store.settings(), sorted_events(store)
    if positives_only and settings.split.min_outcome is not None:
        frame = frame[frame["OUTCOME"] >= settings.split.min_outcome]
    return {str(user): list(rows["ITEM_ID"]) for user, rows in frame.groupby("USER_ID")}


def seen_before_last(store: RunStore, user: str) -> set[str]:
    """What a user did before the test event, events below min_outcome included."""
    frame = sorted_events(store)
    rows = frame[frame["USER_ID"] == user]
    positives = np.flatnonzero(rows["OUTCOME"] >= (store.settings().split.min_outcome or 0))
    return set(rows["ITEM_ID"].iloc[: positives[-1]])


def naive_scores(store: RunStore, history: list[str]) -> dict[str, float]:
    model, ids = model_and_ids(store)
    index = [ids.index(item) + 1 for item in history][-model.config.max_len :]
    with torch.inference_mode():
        last = model(torch.tensor([index]))[0, -1]
        return dict(zip(ids, (model.item_vectors()[1:] @ last).tolist(), strict=True))


def naive_figures(target: str, candidates: set[str], scores: dict[str, float]) -> dict[str, float]:
    """The expected value over the order of ties."""
    if target not in candidates:
        return dict.fromkeys(METRICS, 0.0)
    better = sum(scores[item] > scores[target] for item in candidates)
    tied = sum(scores[item] == scores[target] for item in candidates - {target})
    ranks = np.arange(better + 1, better + tied + 2)
    return {
        "hr@10": float((ranks <= 10).mean()),
        "ndcg@10": float(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean()),
        "mrr": float((1 / ranks).mean()),
    }


def test_metrics_json_has_its_shape(first: RunStore) -> None:
    metrics = metrics_of(first)
    blocks = [metrics, metrics["baselines"]["popularity"], metrics["baselines"]["recent_popularity"]]
    for block in blocks:
        for protocol in PROTOCOLS:
            for metric in METRICS:
                low, high = block[protocol]["ci95"][metric]
                assert 0 <= low <= block[protocol][metric] <= high <= 1
                assert low < high
    assert metrics["users_evaluated"] == 100
    assert metrics["negatives"] == 100
    assert metrics["seed"] == 42


def test_figures_equal_those_counted_user_by_user(store: RunStore) -> None:
    data = contents.interactions(store, store.settings())
    ids, users = contents.item_ids(store), pq.read_table(store.folder("split") / "users.parquet")["USER_ID"]
    negatives = measures.unseen_items(data, data.split.test, store.settings())
    expected: dict[str, list[dict[str, float]]] = {protocol: [] for protocol in PROTOCOLS}
    done = histories(store)
    for row, user in enumerate(users.take(pa.array(data.split.test.users)).to_pylist()):
        *history, target = done[user]
        scores = naive_scores(store, history)
        drawn = {ids[item - 1] for item in negatives[row] if item}
        expected["sampled"].append(naive_figures(target, drawn | {target}, scores))
        served = set(ids) - seen_before_last(store, user)
        expected["full"].append(naive_figures(target, served, scores))
        expected["full_with_seen"].append(naive_figures(target, set(ids), scores))
    for protocol in PROTOCOLS:
        for metric in METRICS:
            mean = np.mean([figures[metric] for figures in expected[protocol]])
            assert metrics_of(store)[protocol][metric] == pytest.approx(mean, abs=1e-6)


def test_everybody_with_three_positive_events_is_evaluated(store: RunStore) -> None:
    expected = {user for user, items in histories(store).items() if len(items) >= 3}
    rows = pq.read_table(store.folder("evaluate") / "ranks.parquet").to_pylist()
    assert {row["USER_ID"] for row in rows} == expected
    assert metrics_of(store)["users_evaluated"] == len(rows) == len(expected)
    assert all(row["ITEM_ID"] == histories(store)[row["USER_ID"]][-1] for row in rows[:20])


def test_ranks_give_the_metrics_again(store: RunStore) -> None:
    table = pq.read_table(store.folder("evaluate") / "ranks.parquet")
    metrics = metrics_of(store)
    for scorer, block in {"model": metrics, **metrics["baselines"]}.items():
        for protocol in PROTOCOLS:
            ranks = Ranks(
                better=table[f"{scorer}.{protocol}.better"].to_numpy(),
                tied=table[f"{scorer}.{protocol}.tied"].to_numpy(),
            )
            for metric, values in per_user(ranks).items():
                assert block[protocol][metric] == pytest.approx(values.mean())


def test_a_target_seen_before_is_a_miss_where_seen_items_are_left_out(first: RunStore) -> None:
    rows = pq.read_table(first.folder("evaluate") / "ranks.parquet").to_pylist()
    repeated = [row["ITEM_ID"] in histories(first)[row["USER_ID"]][:-1] for row in rows]
    assert any(repeated)
    assert not all(repeated)
    assert [row["model.full.better"] == MISS for row in rows] == repeated
    assert all(row["model.full_with_seen.better"] < MISS for row in rows)


def test_popularity_is_counted_on_training_events_only(store: RunStore) -> None:
    done = histories(store)
    training = [items[:-2] if len(items) >= 3 else items for items in done.values()]
    expected = Counter(item for items in training for item in items)
    popular, _ = measures.popularity(contents.interactions(store, store.settings()), store.settings())
    counted = dict(zip(contents.item_ids(store), popular[1:].tolist(), strict=True))
    assert counted == {item: expected[item] for item in counted}


def test_recent_popularity_counts_the_newest_training_events(store: RunStore) -> None:
    settings = store.settings()
    frame = pd.read_parquet(settings.source).sort_values(["USER_ID", "TIMESTAMP"], kind="stable")
    if settings.split.min_outcome is not None:
        frame = frame[frame["OUTCOME"] >= settings.split.min_outcome]
    length = frame.groupby("USER_ID")["ITEM_ID"].transform("size")
    place = frame.groupby("USER_ID").cumcount()
    training = frame[(length < 3) | (place < length - 2)]
    _, recent = measures.popularity(contents.interactions(store, settings), settings)
    share = recent.sum() / len(training)
    newest = training.nlargest(int(recent.sum()), "TIMESTAMP", keep="all")
    expected = Counter(newest["ITEM_ID"])
    assert 0.1 <= share < 0.15
    counted = dict(zip(contents.item_ids(store), recent[1:].tolist(), strict=True))
    assert counted == {item: expected[item] for item in counted}


def test_negatives_are_unseen_and_distinct_and_the_same_for_every_model(store: RunStore) -> None:
    data = contents.interactions(store, store.settings())
    settings = store.settings()
    few = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"negatives": 5})})
    drawn = measures.unseen_items(data, data.split.test, few)
    users = pq.read_table(store.folder("split") / "users.parquet")["USER_ID"].to_pylist()
    everything = histories(store, positives_only=False)
    ids = np.array(["", *contents.item_ids(store)])
    for user, items in zip(data.split.test.users, drawn, strict=True):
        assert len(set(items)) == 5
        assert not set(ids[items]) & {"", *everything[users[user]]}
    assert (drawn == measures.unseen_items(data, data.split.test, few)).all()


def test_too_few_unseen_items_are_all_used_and_counted(first: RunStore, place: Any, chains: Any) -> None:
    assert metrics_of(first)["users_with_fewer_negatives"] == 100  # 60 items can't give 100 negatives
    place.write(chains(items=140, users=120))
    store = place.run("run", {"evaluate.negatives": 125}, upto="evaluate")
    unseen = [140 - len(set(items)) for items in histories(store).values()]
    catalogue = len(contents.item_ids(store))
    expected = sum(catalogue - 140 + free < 125 for free in unseen)
    assert 0 < expected < 120
    assert metrics_of(store)["users_with_fewer_negatives"] == expected


def test_coverage_is_the_share_of_items_in_somebodys_top_10(first: RunStore) -> None:
    shown: set[str] = set()
    for items in histories(first).values():
        *history, _ = items
        scores = naive_scores(first, history)
        left = sorted(set(scores) - set(history), key=lambda item: -scores[item])
        shown |= set(left[:10])
    assert metrics_of(first)["coverage@10"]["model"] == pytest.approx(
        len(shown) / len(model_and_ids(first)[1])
    )
    assert metrics_of(first)["coverage@10"]["popularity"] < 1


def test_novelty_and_popularity_are_those_of_the_top_10(first: RunStore) -> None:
    data = contents.interactions(first, first.settings())
    train = data.split.train
    counts = np.bincount(train.items[train.flat()[2]], minlength=data.num_items + 1)
    ids, novelty, popularity = ["", *contents.item_ids(first)], [], []
    for items in histories(first).values():
        *history, _ = items
        scores = naive_scores(first, history)
        for item in sorted(set(scores) - set(history), key=lambda item: -scores[item])[:10]:
            events = counts[ids.index(item)]
            novelty.append(-np.log2(max(events, 1) / len(train)))
            popularity.append(events)
    metrics = metrics_of(first)
    assert metrics["novelty@10"]["model"] == pytest.approx(np.mean(novelty), rel=1e-4)
    assert metrics["average_popularity@10"]["model"] == pytest.approx(np.mean(popularity), rel=1e-4)
    assert metrics["average_popularity@10"]["popularity"] > metrics["average_popularity@10"]["model"]
    assert metrics["novelty@10"]["popularity"] < metrics["novelty@10"]["model"]


def test_all_cut_offs_are_there_and_rise(store: RunStore) -> None:
    for protocol in PROTOCOLS:
        figures = metrics_of(store)[protocol]
        for name in ("hr", "ndcg", "recall"):
            values = [figures[f"{name}@{k}"] for k in (1, 5, 10, 20)]
            assert values == sorted(values)
        assert figures["recall@5"] == figures["hr@5"]
        assert figures["hr@1"] == figures["ndcg@1"]


def test_buckets_of_history_length_make_up_the_whole(store: RunStore) -> None:
    metrics = metrics_of(store)
    buckets = metrics["by_history_length"]
    users = np.array([bucket["users"] for bucket in buckets])
    assert users.sum() == metrics["users_evaluated"]
    for protocol in PROTOCOLS:
        values = [bucket[protocol]["ndcg@10"] for bucket in buckets]
        assert np.average(values, weights=users) == pytest.approx(metrics[protocol]["ndcg@10"])
        for name, baseline in metrics["baselines"].items():
            values = [bucket["baselines"][name][protocol]["ndcg@10"] for bucket in buckets]
            assert np.average(values, weights=users) == pytest.approx(baseline[protocol]["ndcg@10"])
    edges = [edge for bucket in buckets for edge in bucket["history_length"] if edge is not None]
    assert edges == sorted(edges)
    in_first = [len(items) - 1 for items in histories(store).values() if len(items) >= 3]
    least, most = buckets[0]["history_length"]
    assert users[0] == sum(least <= length <= most for length in in_first)


def test_a_constant_model_gets_what_chance_gets(place: Any, chains: Any) -> None:
    place.write(chains(items=160))
    store = place.run("run", upto="split")
    data = contents.interactions(store, store.settings())
    constant = constant_scorer(np.ones(data.num_items + 1, dtype=np.float32))
    placed = rank(
        constant, data.split.test, measures.unseen_items(data, data.split.test, store.settings()), 0
    )
    assert per_user(placed.sampled)["hr@10"].mean() == pytest.approx(10 / 101)


def test_some_users_may_stand_for_all(place: Any, first: RunStore) -> None:
    """Each as if all were measured, the champion on the same ones."""
    for name in ("one", "other"):
        some = place.run(name, {"evaluate.test_users": 30})
        whole, drawn = (
            pq.read_table(of.folder("evaluate") / contents.RANKS).to_pandas().set_index("USER_ID")
            for of in (first, some)
        )
        assert metrics_of(some)["users_evaluated"] == len(drawn) == 30
        assert list(drawn.index) == [user for user in whole.index if user in drawn.index]
        exact = [
            column for column in whole if ".sampled." not in column
        ]  # negatives are drawn for all at once
        pd.testing.assert_frame_equal(drawn[exact], whole.loc[drawn.index, exact])
    champion = some.read_json("gate", contents.VERDICT)["champion"]
    assert champion["run_id"] == "one"
    assert champion["difference"] == 0


def test_the_same_model_is_measured_the_same(place: Any, first: RunStore) -> None:
    again = metrics_of(place.run("again", upto="evaluate"))
    assert again == metrics_of(first)


def test_baselines_do_not_hang_on_the_model(place: Any, first: RunStore, bad: dict[str, Any]) -> None:
    other = metrics_of(place.run("other", bad, upto="evaluate"))
    assert other["full"] != metrics_of(first)["full"]
    assert other["baselines"] == metrics_of(first)["baselines"]


def test_the_model_learns_more_than_popularity_tells(first: RunStore) -> None:
    metrics = metrics_of(first)
    for protocol in PROTOCOLS:
        assert metrics[protocol]["ndcg@10"] > 1.2 * metrics["baselines"]["popularity"][protocol]["ndcg@10"]


def test_a_small_catalogue_is_measured(place: Any, chains: Any) -> None:
    place.write(chains(items=6))
    store = place.run("run", upto="evaluate")
    summary = run_task("evaluate", store.uri)
    assert json.loads(json.dumps(summary)) == summary
    assert metrics_of(store)["full_with_seen"]["hr@10"] == 1
