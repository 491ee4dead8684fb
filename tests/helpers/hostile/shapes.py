"""Data of shapes that nothing can be learned from, or that are large in one direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hostile.case import Case, Found, Given, Place, Served, bad_data
from hostile.data import PAIRS, Row, T, rows, table


def cases() -> Iterator[Case]:
    """All of this kind."""
    yield from _too_little()
    yield from _lopsided()
    yield from _large()


def _of(events: list[Row], **settings: Any) -> Callable[[Place], Given]:
    def make(place: Place) -> Given:
        place.write(table(events))
        return {name.replace("__", "."): value for name, value in settings.items()}

    return make


def _too_little() -> Iterator[Case]:
    one_user = "USER_ID: all rows are of one user: recommendations are learned from many"
    few = "FILE: USER_ID: no user has 3 events (the longest history has …): one each is held out"
    yield Case(
        what="one event",
        make=_of(rows()[:1]),
        gets=bad_data(f"FILE: {one_user}", "split"),
    )
    yield Case(what="one user", make=_of(rows()[:8]), gets=bad_data(f"FILE: {one_user}", "split"))
    yield Case(
        what="one item",
        make=_of([(f"user {n % 4}", "item", 1.0, T + n) for n in range(40)]),
        gets=bad_data(
            "FILE: ITEM_ID: 1 item(s) with split.min_item_events=1 events: at least 2 are needed", "split"
        ),
    )
    yield Case(
        what="the same row 160 times",
        make=_of([rows()[0]] * 160),
        gets=bad_data(f"FILE: {one_user}", "split"),
    )
    yield Case(
        what="the same two rows 80 times each, which are delivered twice",
        make=_of([("a", "x", 1.0, T), ("b", "y", 1.0, T)] * 80),
        gets=bad_data(few, "split"),
    )
    yield Case(
        what="an event of each user",
        make=_of([(f"user {n}", f"item {n % 12}", 1.0, T + n) for n in range(160)]),
        gets=bad_data(few, "split"),
    )
    yield Case(
        what="two events of each user",
        make=_of([(f"user {n // 2}", f"item {n % 12}", 1.0, T + n) for n in range(160)]),
        gets=bad_data(few, "split"),
    )
    yield Case(
        what="`split.min_item_events` that no item has",
        make=_of(rows(), split__min_item_events=1000),
        gets=bad_data("FILE: ITEM_ID: 0 item(s) with split.min_item_events=1000 events", "split"),
    )
    yield Case(
        what="`split.min_user_events` that no user has",
        make=_of(rows(), split__min_user_events=1000),
        gets=bad_data("FILE: USER_ID: no user has 1000 events (the longest history has 8)", "split"),
    )
    yield Case(
        what="`split.min_outcome` that no event has",
        make=_of(rows(), split__min_outcome=1e9),
        gets=bad_data(
            "FILE: USER_ID: no user has 3 events of OUTCOME ≥ 1e+09 (the longest history has 0)", "split"
        ),
    )


def _holds(users: int, events: int) -> Callable[[Found], None]:
    def holds(found: Found) -> None:
        assert found.summaries["split"]["users"] == users
        assert found.summaries["split"]["events"] == events
        origins = found.summaries["export"]["users_by_origin"]
        assert sum(origins.values()) == users
        assert len(found.users) == users - origins["none"]

    return holds


def _lopsided() -> Iterator[Case]:
    yield Case(
        what="two users, two items, three events of one user",
        make=_of([("a", "x", 1.0, T), ("a", "y", 1.0, T + 1), ("a", "x", 1.0, T + 2), ("b", "x", 1.0, T)]),
        gets=bad_data(
            "FILE: no user has two training events: one more event per user than the two held out", "train"
        ),
    )
    yield Case(
        what="users who have all seen all items",
        make=_of([(f"user {n // 12}", f"item {n % 12}", 1.0, T + n) for n in range(240)]),
        gets=Served(
            "without rows: nothing is left to recommend, the popular items are for all", _holds(20, 240)
        ),
    )
    yield Case(
        what="all times equal",
        make=_of([(*row[:3], T) for row in rows()]),
        gets=Served(
            "in the order of the rows; of a user's events with one item one is left", _holds(20, PAIRS)
        ),
    )
    yield Case(
        what="each row twice, as it was delivered twice",
        make=_of([row for row in rows() for _ in range(2)]),
        gets=Served("as the plain data: the second is dropped"),
    )
    yield Case(
        what="a user who did the same with one item 1,000 times",
        make=_of([*rows(), *[("user 00", "item 00", 1.0, T + 10**5 + n) for n in range(1000)]]),
        gets=Served("with that user as any other", _holds(20, 1160)),
    )
    yield Case(
        what="an item that all users end with",
        make=_of([*rows(), *[(f"user {n:02d}", "item 99", 1.0, T + 10**6) for n in range(20)]]),
        gets=Served("with it as any other", _holds(20, 180)),
    )
    yield Case(
        what="19 of 20 users with one event each",
        make=_of([*rows()[:8], *[(f"user {n:02d}", f"item {n % 12:02d}", 1.0, T) for n in range(1, 20)]]),
        gets=Served("with the popular or the model's items for each", _holds(20, 27)),
    )
    yield Case(
        what="outcomes that are all the same, with `train.outcome=rating`",
        make=_of([(*row[:2], 3.0, row[3]) for row in rows()], train__outcome="rating"),
        gets=Served("with finite scores", _holds(20, 160)),
    )


def _large() -> Iterator[Case]:
    yield Case(
        what="more items than events of any user (5,000 items once each)",
        make=_of([*rows(), *[(f"user {n % 20:02d}", f"rare {n}", 1.0, T + n) for n in range(5000)]]),
        gets=Served("with them", _holds(20, 5160)),
    )
    yield Case(
        what="a user with 200,000 events",
        make=lambda place: _one_busy_user(place, 200_000),
        gets=Served("with that user as any other", _holds(21, 200_160)),
    )
    yield Case(
        what="a user with 5 million events",
        make=lambda place: _one_busy_user(place, 5_000_000),
        gets=Served("with that user as any other", _holds(21, 5_000_160)),
        slow=True,
    )
    yield Case(
        what="20 million equal rows in a file of a few kilobytes",
        make=_bomb,
        gets=Served("as the plain data: they are read a batch at a time, and dropped as delivered twice"),
        slow=True,
    )


def _one_busy_user(place: Place, events: int) -> None:
    numbers = np.arange(events)
    busy = pa.table(
        {
            "USER_ID": pa.repeat(pa.scalar("user busy"), events),
            "ITEM_ID": pa.array([f"item {n:02d}" for n in range(12)]).take(pa.array(numbers * 7 % 12)),
            "OUTCOME": pa.array(np.ones(events)),
            "TIMESTAMP": pa.array(T + numbers),
        }
    )
    place.write(pa.concat_tables([table(), busy]))


def _bomb(place: Place) -> None:
    one = table(rows()[:1])
    million = pa.concat_tables([one] * 1000).combine_chunks()
    million = pa.concat_tables([million] * 1000).combine_chunks()
    with pq.ParquetWriter(place.source, one.schema, compression="zstd") as writer:
        writer.write_table(table())
        for _ in range(20):
            writer.write_table(million)
