from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
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
