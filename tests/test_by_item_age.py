"""The figures by the age of items, held against ones counted from the source and the ranks."""

from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sasrec_tasks import contents, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.by_item_age import AGES
from sasrec_tasks.item_age import age_name
from sasrec_tasks.sasrec.metrics import Ranks, per_user
from sasrec_tasks.sasrec.scoring import model_scorer
from sasrec_tasks.sasrec.top_k import top_k
from sasrec_tasks.terminal import report

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400
PROTOCOLS = ("sampled", "full", "full_with_seen")


def shown(what: Any) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.fixture(scope="module")
def store(new_items_every_day: RunStore) -> RunStore:
    return new_items_every_day


@pytest.fixture(scope="module")
def metrics(store: RunStore) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json("evaluate", "metrics.json")
    return found


@pytest.fixture(scope="module")
def source(store: RunStore) -> pd.DataFrame:
    return pd.read_parquet(store.settings().source).sort_values("TIMESTAMP", kind="stable")


@pytest.fixture(scope="module")
def bucket_of(source: pd.DataFrame) -> dict[str, int]:
    """Item → number of its bucket."""
    ages = (AS_OF.timestamp() - source.groupby("ITEM_ID")["TIMESTAMP"].min()) / DAY
    return {str(item): sum(age >= least for least in AGES) - 1 for item, age in ages.items()}


def test_buckets_are_always_the_same(metrics: dict[str, Any]) -> None:
    bounds = [of["item_age_days"] for of in metrics["by_item_age"]]
    assert bounds == [[0, 1], [1, 7], [7, 30], [30, 90], [90, None]]
    assert [age_name(of) for of in bounds] == ["less than 1", "1 to 7", "7 to 30", "30 to 90", "90 and more"]
    oldest = metrics["by_item_age"][-1]
    assert (oldest["items"], oldest["users"], oldest["full"]) == (0, 0, None)


def test_users_and_ranks_are_those_of_the_test_items_of_that_age(
    store: RunStore, metrics: dict[str, Any], bucket_of: dict[str, int]
) -> None:
    ranks = pq.read_table(store.folder("evaluate") / "ranks.parquet").to_pandas()
    of_user = ranks["ITEM_ID"].map(bucket_of)
    assert set(of_user) >= {0, 2, 3}
    for number, of in enumerate(metrics["by_item_age"]):
        assert of["users"] == (of_user == number).sum()
        if not of["users"]:
            continue
        own = ranks[of_user == number]
        for scorer, figures in {"model": of, **of["baselines"]}.items():
            for protocol in PROTOCOLS:
                better, tied = (own[f"{scorer}.{protocol}.{name}"].to_numpy() for name in ("better", "tied"))
                for metric, values in per_user(Ranks(better=better, tied=tied)).items():
                    assert figures[protocol][metric] == pytest.approx(values.mean())


def test_shares_are_those_of_the_catalogue_the_newest_events_and_the_lists(
    store: RunStore, metrics: dict[str, Any], source: pd.DataFrame, bucket_of: dict[str, int]
) -> None:
    data, ids = contents.interactions(store, store.settings()), ["", *contents.item_ids(store)]
    newest = source.iloc[int(np.floor(0.9 * (len(source) - 1))) :]
    recent = Counter(bucket_of[item] for item in newest["ITEM_ID"])
    test = data.split.test
    scorer = model_scorer(trained.model(store, store.settings()), test.history)
    _, listed = top_k(scorer, test.seen, np.arange(len(test)), 10)
    names = [ids[item] for item in listed.ravel()]
    lists = Counter(bucket_of[name] for name in names)
    for number, of in enumerate(metrics["by_item_age"]):
        items = [item for item, bucket in bucket_of.items() if bucket == number]
        assert of["items"] == len(items)
        assert of["share_of_catalogue"] == pytest.approx(len(items) / len(bucket_of))
        assert of["share_of_recent_events"] == pytest.approx(
            recent[number] / len(newest), abs=2 / len(newest)
        )
        assert of["share_of_recommendations"]["model"] == pytest.approx(lists[number] / len(names))
        assert of["items_recommended"]["model"] == len(set(names) & set(items))
    for share in ("share_of_catalogue", "share_of_recent_events"):
        assert sum(of[share] for of in metrics["by_item_age"]) == pytest.approx(1)
    for scorer_name in ("model", "popularity", "recent_popularity"):
        shares = [of["share_of_recommendations"][scorer_name] for of in metrics["by_item_age"]]
        assert sum(shares) == pytest.approx(1)


def test_items_without_a_training_event_are_apart(
    store: RunStore, metrics: dict[str, Any], source: pd.DataFrame
) -> None:
    length = source.groupby("USER_ID")["ITEM_ID"].transform("size")
    training = source[(length < 3) | (source.groupby("USER_ID").cumcount() < length - 2)]
    never = set(source["ITEM_ID"]) - set(training["ITEM_ID"])
    assert "never trained on" in never
    found = metrics["never_trained_on"]
    assert found["items"] == len(never)
    targets = pq.read_table(store.folder("evaluate") / "ranks.parquet")["ITEM_ID"].to_pylist()
    assert found["users"] == sum(target in never for target in targets) >= 20
    assert found["baselines"]["popularity"]["full"]["hr@10"] == 0
    assert found["share_of_recommendations"]["popularity"] == 0


def test_another_as_of_is_another_age(store: RunStore, finished: Any) -> None:
    place = type(finished)(finished.folder.parent / f"{finished.folder.name}-later")
    place.folder.mkdir(exist_ok=True)
    place.source = store.settings().source
    run = place.run("run", {"train.epochs": 1}, upto="evaluate")
    before = run.read_json("evaluate", "metrics.json")["by_item_age"]
    later = place.run("run", {"train.epochs": 1, "as_of": "2026-01-11"}, upto="evaluate")
    after = later.read_json("evaluate", "metrics.json")["by_item_age"]
    assert sum(of["items"] for of in before[:2]) > 0
    assert [of["items"] for of in after[:2]] == [0, 0]


def test_people_see_it(store: RunStore, metrics: dict[str, Any], finished: Any) -> None:
    card = (store.folder("evaluate") / "model_card.md").read_text()
    text = shown(report(store))
    assert max(map(len, text.splitlines())) <= 80
    for of in (of for of in metrics["by_item_age"] if of["users"]):
        name, figure = age_name(of["item_age_days"]), f"{of['full']['ndcg@10']:.4f}"
        for place, bar in ((card, "|"), (text, " ")):
            line = next(line for line in place.splitlines() if line.strip("| ").startswith(name))
            assert figure in line.split(bar) or f" {figure} " in line
            assert f"{of['share_of_recommendations']['model']:.1%}" in line
    assert "no training event" in card
    assert "no training event" in text
    assert "By age of the test item" not in shown(report(RunStore(f"{finished.store}/first")))
