"""What is pruned by a clock that is wrong: nothing that is served, or at work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from wall_clock import day_ahead, hour_behind, shifted

from sasrec_tasks.tables import Published, open_tables
from sasrec_tasks.tables.retention import Keep

Publish = Callable[..., Published]
Served = Callable[[str], tuple[int, set[tuple[str, str]]]]


def prune(url: str, clock: Callable[[], float]) -> None:
    with shifted(clock):
        open_tables(url).prune(Keep(versions=2, days=0.5))


@pytest.mark.parametrize("clock", [day_ahead, hour_behind])
def test_a_publish_at_work_and_what_it_replaces_stay(
    url: str, publish: Publish, served: Served, clock: Callable[[], float]
) -> None:
    for run_id in ("a", "b", "c"):
        publish(url, run_id)
    reader = open_tables(url).rows(2)
    publish(url, "d", meanwhile=lambda: prune(url, clock))
    assert served(url) == (3, {("u", "d"), ("v", "d")})
    assert set(reader.read_all()["RUN_ID"].to_pylist()) == {"c"}
    prune(url, clock)
    assert served(url) == (3, {("u", "d"), ("v", "d")})
    assert [kept.run_id for kept in open_tables(url).kept()][:2] == ["d", "c"]


def test_what_a_clock_that_was_ahead_has_published_is_replaced_and_pruned_in_turn(
    url: str, publish: Publish, served: Served
) -> None:
    with shifted(day_ahead):
        publish(url, "a")
    with shifted(hour_behind):
        publish(url, "b")
    publish(url, "c")
    assert served(url) == (2, {("u", "c"), ("v", "c")})
    assert [each.run_id for each in open_tables(url).published()] == ["c", "b", "a"]
    later = datetime.now(UTC) + timedelta(days=3)
    open_tables(url).prune(Keep(versions=2, days=0, now=later))
    assert [kept.run_id for kept in open_tables(url).kept()] == ["c", "b"]
