"""How much the table would change."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sasrec_tasks.change import Change, compare, measure
from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
Lists = dict[str, list[str]]


def rows_of(lists: Lists) -> pa.RecordBatch:
    rows = [
        {
            "USER_ID": user,
            "RANK": rank,
            "ITEM_ID": item,
            "SCORE": 1.0,
            "ORIGIN": "model",
            "RUN_ID": "old",
            "AS_OF": AS_OF,
        }
        for user, items in sorted(lists.items())
        for rank, item in enumerate(items, 1)
    ]
    return pa.RecordBatch.from_pylist(rows, RECOMMENDATIONS)


def change(folder: Path, old: Lists, new: Lists, *, users: int = 1000, random_state: int = 0) -> Change:
    tables = open_tables(str(folder / "table"))
    version = tables.publish(
        iter([rows_of(old)]), POPULAR.empty_table(), run_id="old", as_of=AS_OF, metadata={}
    ).version
    published = next(each for each in tables.published() if each.version == version)
    return measure(
        tables,
        published,
        tonight=[pa.RecordBatch.from_pydict({"USER_ID": pa.array(sorted(new), pa.string())})],
        lists=lambda chosen: [rows_of({user: new[user] for user in chosen})],
        users=users,
        random_state=random_state,
    )


ITEMS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)
TABLES = st.dictionaries(st.sampled_from(["u1", "u2", "ü", "4", "five"]), ITEMS, min_size=1)


@given(TABLES, TABLES)
@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_it_is_what_counting_by_hand_gives(
    tmp_path_factory: pytest.TempPathFactory, old: Lists, new: Lists
) -> None:
    found = change(tmp_path_factory.mktemp("table"), old, new)
    both = old.keys() & new.keys()
    shares = []
    for user in both:
        k = min(len(old[user]), len(new[user]))
        shares.append(len(set(old[user][:k]) & set(new[user][:k])) / k)
    assert found.users_before == len(old)
    assert found.users_lost == pytest.approx(len(old.keys() - new.keys()) / len(old))
    assert found.users_compared == len(both)
    if both:
        assert found.overlap == pytest.approx(sum(shares) / len(shares))
        assert found.lists_changed == pytest.approx(sum(share == 0 for share in shares) / len(shares))
    else:
        assert found.overlap is found.lists_changed is None


@given(TABLES, TABLES, st.integers(1, 5))
@hypothesis_settings(max_examples=15, deadline=None)
def test_two_models_lists_are_compared_like_the_tables(old: Lists, new: Lists, users: int) -> None:
    both = sorted(old.keys() & new.keys())
    found = compare(
        *(lambda chosen, of=of: [rows_of({user: of[user] for user in chosen})] for of in (old, new)),
        tonight=[pa.RecordBatch.from_pydict({"USER_ID": pa.array(both, pa.string())})],
        users=users,
        random_state=0,
    )
    assert found.users_compared == min(users, len(both))
    if users >= len(both) > 0:
        shares = []
        for user in both:
            k = min(len(old[user]), len(new[user]))
            shares.append(len(set(old[user][:k]) & set(new[user][:k])) / k)
        assert found.overlap == pytest.approx(sum(shares) / len(shares))
        assert found.lists_changed == pytest.approx(sum(share == 0 for share in shares) / len(shares))


def test_a_draw_of_users_is_compared_the_same_one_each_time(tmp_path: Path) -> None:
    old = {f"u{n}": ["a", "b"] for n in range(60)}
    new = {user: ["a", "b"] if n % 2 else ["c", "d"] for n, user in enumerate(old)}
    first, again = (change(tmp_path / str(n), old, new, users=20) for n in range(2))
    assert first == again
    assert first.users_compared == 20
    other = {change(tmp_path / f"s{n}", old, new, users=20, random_state=n).overlap for n in range(4)}
    assert len(other) > 1
