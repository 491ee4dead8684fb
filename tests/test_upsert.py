"""A table in PostgreSQL that is kept up with the recommendations."""

from __future__ import annotations

import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS
from sasrec_tasks.upsert import upsert

Lists = dict[str, list[str]]


@pytest.fixture
def target(postgres: str) -> tuple[str, str]:
    """Server, and name of a table of the test's own."""
    return postgres, f"top_{uuid.uuid4().hex[:8]}"


def address(target: tuple[str, str]) -> str:
    server, name = target
    return f"{server}{'&' if '?' in server else '?'}table={name}"


def publish(folder: Path, run_id: str, day: int, lists: Lists) -> int:
    as_of = datetime(2026, 1, day, tzinfo=UTC)
    rows = [
        {"USER_ID": user, "RANK": rank, "ITEM_ID": item, "SCORE": float(day), "ORIGIN": "model"}
        | {"RUN_ID": run_id, "AS_OF": as_of}
        for user, items in sorted(lists.items())
        for rank, item in enumerate(items, 1)
    ]
    popular = [{**rows[0], "ORIGIN": "popular"}]
    published = open_tables(str(folder / "table")).publish(
        iter([pa.RecordBatch.from_pylist(rows, RECOMMENDATIONS)]),
        pa.Table.from_pylist(popular, POPULAR),
        run_id=run_id,
        as_of=as_of,
        metadata={},
    )
    return published.version


def held(target: tuple[str, str]) -> Lists:
    server, name = target
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT user_id, item_id FROM {name} ORDER BY user_id, rank")
        found: Lists = {}
        for user, item in cursor.fetchall():
            found.setdefault(user, []).append(item)
        return found


def written_by(target: tuple[str, str], user: str) -> int:
    """The transaction that wrote a user's first row."""
    server, name = target
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT xmin::text::bigint FROM {name} WHERE user_id = $1 AND rank = 1", parameters=(user,)
        )
        return int(cursor.fetchone()[0])


def test_changed_new_and_gone_users_follow_and_others_are_not_written(tmp_path: Path, target: Any) -> None:
    first = publish(tmp_path, "one", 1, {"same": ["a", "b"], "other": ["a", "b"], "gone": ["a"]})
    assert upsert(str(tmp_path / "table"), address(target)) == {
        "version": first,
        "since": None,
        "users": 3,
        "rows": 5,
    }
    before = written_by(target, "same")
    lists = {"same": ["a", "b"], "other": ["b", "a", "c"], "new": ["c"]}
    second = publish(tmp_path, "two", 2, lists)
    done = upsert(str(tmp_path / "table"), address(target))
    assert done == {"version": second, "since": first, "users": 3, "rows": 4}
    assert held(target) == lists
    assert written_by(target, "same") == before
    again = upsert(str(tmp_path / "table"), address(target))
    assert (again["users"], again["rows"]) == (0, 0)


def test_a_version_that_is_not_kept_is_no_obstacle(tmp_path: Path, target: Any) -> None:
    publish(tmp_path, "one", 1, {"u": ["a"], "v": ["b"]})
    upsert(str(tmp_path / "table"), address(target))
    server, name = target
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"UPDATE {name}_loaded SET version = 4711")
        connection.commit()
    publish(tmp_path, "two", 2, {"u": ["c"]})
    done = upsert(str(tmp_path / "table"), address(target))
    assert (done["since"], done["rows"]) == (4711, 1)
    assert held(target) == {"u": ["c"]}


@pytest.mark.parametrize("nights", [1, 2])
def test_a_table_that_was_made_anew_is_loaded_whole(tmp_path: Path, target: Any, nights: int) -> None:
    publish(tmp_path, "one", 1, {"u": ["a"], "v": ["b"]})
    upsert(str(tmp_path / "table"), address(target))
    for folder in ("table", "table_popular"):
        shutil.rmtree(tmp_path / folder)
    for day in range(2, 2 + nights):
        publish(tmp_path, f"anew {day}", day, {"u": ["c"], "w": ["d"]})
    done = upsert(str(tmp_path / "table"), address(target))
    assert (done["version"], done["since"], done["rows"]) == (nights - 1, 0, 2)
    assert held(target) == {"u": ["c"], "w": ["d"]}


def test_a_rollback_is_followed(tmp_path: Path, target: Any) -> None:
    from sasrec_tasks.rollback import roll_back

    publish(tmp_path, "one", 1, {"u": ["a"], "v": ["b"]})
    publish(tmp_path, "two", 2, {"u": ["c"], "v": ["b"]})
    upsert(str(tmp_path / "table"), address(target))
    roll_back(str(tmp_path / "table"))
    assert upsert(str(tmp_path / "table"), address(target))["users"] == 1
    assert held(target) == {"u": ["a"], "v": ["b"]}


@pytest.mark.parametrize("to", ["folder", "postgresql://h/db", "postgresql://h/db?table=Top Items"])
def test_what_is_no_table_of_a_database_is_told(tmp_path: Path, to: str) -> None:
    publish(tmp_path, "one", 1, {"u": ["a"]})
    with pytest.raises(BadSettings, match="name a table"):
        upsert(str(tmp_path / "table"), to)
