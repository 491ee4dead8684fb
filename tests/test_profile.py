"""A snapshot in a few figures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sasrec_tasks.profile import measure
from sasrec_tasks.timestamps import TICKS

AS_OF = datetime(2026, 1, 10, tzinfo=UTC)
HOUR = 3600


def snapshot(folder: Path, rows: list[tuple[Any, Any, int]], unit: str = "s") -> Path:
    users, items, before = zip(*rows, strict=True)  # before: seconds before as_of
    ticks = [(int(AS_OF.timestamp()) - each) * TICKS[unit] for each in before]
    file = folder / "snapshot.parquet"
    pq.write_table(
        pa.table({"USER_ID": pa.array(users, pa.string()), "ITEM_ID": items, "TIMESTAMP": ticks}), file
    )
    return file


@pytest.mark.parametrize("unit", list(TICKS))
def test_hours_are_counted_once_and_only_those_of_the_last_two_days(tmp_path: Path, unit: str) -> None:
    rows = [("a", "x", 1), ("b", "x", 2), ("a", "y", HOUR + 1), ("c", "z", 47 * HOUR), ("c", "y", 49 * HOUR)]
    found, known = measure(snapshot(tmp_path, rows, unit), rows=5, unit=unit, as_of=AS_OF, known_items=None)
    assert found == {"rows": 5, "users": 3, "items": 3, "events_per_user": 1.667, "hours": 3}
    assert known is None


def test_the_known_share_is_of_items_not_of_events(tmp_path: Path) -> None:
    file = snapshot(tmp_path, [("a", "x", 1)] * 7 + [("a", "new", 1), ("a", None, 1)])
    earlier = tmp_path / "items.parquet"
    pq.write_table(pa.table({"ITEM_ID": ["gone", "x"]}), earlier)
    found, known = measure(file, rows=8, unit="s", as_of=AS_OF, known_items=earlier)
    assert (found["items"], known) == (2, 0.5)


def test_many_users_are_counted_to_a_few_percent(tmp_path: Path) -> None:
    file = snapshot(tmp_path, [(f"u{i % 40_000}", "x", i % 100) for i in range(80_000)])
    found, _ = measure(file, rows=80_000, unit="s", as_of=AS_OF, known_items=None)
    assert found["users"] == pytest.approx(40_000, rel=0.05)
