from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import quality
from domains import DOMAINS, Domain, interactions, popularity


@pytest.fixture(params=list(DOMAINS.values()), ids=list(DOMAINS))
def domain(request: pytest.FixtureRequest) -> Domain:
    chosen: Domain = request.param
    return replace(chosen, users=200)


def test_a_domain_is_the_same_for_the_same_seed_and_known_to_the_schema(domain: Domain) -> None:
    table = interactions(domain, np.random.default_rng(1))
    assert table.equals(interactions(domain, np.random.default_rng(1)))
    assert table.column_names == ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]
    frame = table.to_pandas()
    assert frame["USER_ID"].nunique() == 200
    assert frame["ITEM_ID"].nunique() <= domain.items
    assert frame.groupby("USER_ID").size().min() >= 3


def test_what_is_forgotten_is_not_popular_before_its_release_nor_long_after() -> None:
    shares = popularity(DOMAINS["news"], np.random.default_rng(1))
    live = shares > shares.max(1, keepdims=True) / 100
    first, last = live.argmax(0), live.shape[0] - live[::-1].argmax(0)
    assert (shares >= 0).all()
    assert np.median(last - first) < live.shape[0] / 4


@pytest.mark.parametrize("seed", [1, 2])
def test_the_default_recipe_is_ahead_of_popularity_old_and_new(tmp_path: Path, seed: int) -> None:
    source = tmp_path / "small.parquet"
    pq.write_table(interactions(DOMAINS["small"], np.random.default_rng(seed)), source)
    report = quality.run(str(source), {"evaluate.bootstrap_samples": 100}, work=str(tmp_path), run_id="run")
    metrics = report["metrics"]
    for protocol in ("full", "sampled"):
        for baseline in ("popularity", "recent_popularity"):
            beaten = metrics["baselines"][baseline][protocol]["ndcg@10"]
            assert metrics[protocol]["ndcg@10"] > 1.5 * beaten
