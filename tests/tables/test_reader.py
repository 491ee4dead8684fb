"""The consumers' reader, on tables of every kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import NotKept, Published, Recommendations, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
Publish = Callable[..., Published]
Lists = dict[str, list[str]]


def publish(url: str, run_id: str, lists: Lists) -> Published:
    """Each user's items."""
    about = {"SCORE": 0.5, "ORIGIN": "model", "RUN_ID": run_id, "AS_OF": JANUARY}
    rows = [
        {"USER_ID": user, "RANK": rank, "ITEM_ID": item, **about}
        for user, items in sorted(lists.items())
        for rank, item in enumerate(items, 1)
    ]
    popular = [{"RANK": 1, "ITEM_ID": f"popular of {run_id}", **about, "ORIGIN": "popular"}]
    return open_tables(url).publish(
        iter([pa.RecordBatch.from_pylist(rows, RECOMMENDATIONS)]),
        pa.Table.from_pylist(popular, POPULAR),
        run_id=run_id,
        as_of=JANUARY,
        metadata={"metrics": 1},
    )


def test_a_reader_says_what_it_reads(url: str) -> None:
    publish(url, "a", {"u": ["x", "y"], "v": ["x"]})
    found = Recommendations(url)
    assert (found.version, found.run_id, found.as_of) == (0, "a", JANUARY)
    assert found.metadata["metrics"] == 1
    assert found.age.total_seconds() > 0
    assert found.users() == 2
    assert "version=0" in repr(found)
    frame = found.to_pandas()
    assert frame["ITEM_ID"].tolist() == ["x", "y", "x"]
    assert list(frame.columns) == RECOMMENDATIONS.names


def test_a_users_rows_or_the_popular_items(url: str) -> None:
    publish(url, "a", {"42": ["x", "y"]})
    found = Recommendations(url)
    assert found.for_user("42")["ITEM_ID"].tolist() == ["x", "y"]
    assert found.for_user("42")["RANK"].tolist() == [1, 2]
    unknown = found.for_user("nobody")
    assert unknown["ITEM_ID"].tolist() == found.popular()["ITEM_ID"].tolist() == ["popular of a"]
    assert unknown["ORIGIN"].tolist() == ["popular"]
    assert found.for_user("nobody", popular_if_unknown=False).empty


def test_a_reader_stays_with_its_version(url: str) -> None:
    publish(url, "a", {"u": ["x"]})
    before = Recommendations(url)
    publish(url, "b", {"u": ["y"]})
    assert before.for_user("u")["ITEM_ID"].tolist() == ["x"]
    assert before.popular()["ITEM_ID"].tolist() == ["popular of a"]
    assert Recommendations(url).for_user("u")["ITEM_ID"].tolist() == ["y"]
    assert Recommendations(url).popular()["ITEM_ID"].tolist() == ["popular of b"]


def test_an_earlier_version_is_read_as_it_was(url: str) -> None:
    first, second = (publish(url, run_id, {"u": [run_id]}) for run_id in ("one", "two"))
    for published, run_id in ((first, "one"), (second, "two")):
        chosen = Recommendations(url, version=published.version)
        assert (chosen.version, chosen.run_id) == (published.version, run_id)
        assert chosen.to_pandas()["ITEM_ID"].tolist() == [run_id]
        assert chosen.popular()["ITEM_ID"].tolist() == [f"popular of {run_id}"]
    with pytest.raises(OSError, match="version 4711 is no publish"):
        Recommendations(url, version=4711)


def test_changes_are_the_whole_lists_of_those_who_see_others(url: str) -> None:
    publish(url, "a", {"same": ["x", "y"], "order": ["x", "y"], "item": ["x"], "gone": ["x"]})
    publish(url, "b", {"same": ["x", "y"], "order": ["y", "x"], "item": ["z"], "new": ["x"]})
    changes = Recommendations(url).changes(since_version=0)
    found = {
        user: (of["CHANGE"].iloc[0], of["ITEM_ID"].dropna().tolist())
        for user, of in changes.groupby("USER_ID")
    }
    assert found == {
        "order": ("changed", ["y", "x"]),
        "item": ("changed", ["z"]),
        "new": ("new", ["x"]),
        "gone": ("gone", []),
    }
    assert Recommendations(url).changes(since_version=1).empty


def test_changes_applied_to_the_old_rows_give_the_new_ones(url: str) -> None:
    publish(url, "a", {f"u{n}": [f"i{n % 7}", f"i{n % 5 + 7}"] for n in range(50)})
    old = Recommendations(url).to_pandas()
    publish(url, "b", {f"u{n}": [f"i{n % 7}", f"i{n % 3 + 7}"] for n in range(10, 60)})
    changes = Recommendations(url).changes(since_version=0)
    kept = old[~old["USER_ID"].isin(changes["USER_ID"])]
    columns = ["USER_ID", "RANK", "ITEM_ID"]
    applied = pd.concat([kept[columns], changes.dropna(subset=["ITEM_ID"])[columns]])
    expected = Recommendations(url).to_pandas()[columns].sort_values(columns)
    assert (
        applied.sort_values(columns).astype({"RANK": int}).to_numpy().tolist() == expected.to_numpy().tolist()
    )


def test_a_version_that_is_not_kept_is_an_error(url: str) -> None:
    publish(url, "a", {"u": ["x"]})
    for version in (7, -1):
        with pytest.raises(NotKept, match=f"version {version} is not kept: .* the newest is 0"):
            Recommendations(url).changes(since_version=version)


def test_where_nothing_is_published(url: str) -> None:
    with pytest.raises(BadSettings, match="nothing is published"):
        Recommendations(url)


def test_a_reader_needs_neither_torch_nor_airflow() -> None:
    heavy = "{'torch', 'airflow', 'pandera'} & set(sys.modules)"
    code = f"import sys; from sasrec_tasks.tables import Recommendations; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
