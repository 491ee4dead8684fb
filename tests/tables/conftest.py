"""What tests of tables share: a table of every kind, and runs of two users each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest

from sasrec_tasks.tables import Published, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)

numbers = itertools.count()


@pytest.fixture(params=["delta", "parquet", "postgres", "delta on S3", "parquet on S3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A table that is not there yet."""
    if request.param == "postgres":
        return f"{request.getfixturevalue('postgres')}&table=table_{next(numbers)}"
    folder = request.getfixturevalue("bucket") if request.param.endswith("S3") else tmp_path
    return f"{'parquet+' if request.param.startswith('parquet') else ''}{folder}/table"


def _batch(run_id: str, as_of: datetime = JANUARY, user: str = "u") -> pa.RecordBatch:
    row = {"USER_ID": user, "RANK": 1, "ITEM_ID": f"of {run_id}", "SCORE": 0.5, "ORIGIN": "model"}
    return pa.RecordBatch.from_pylist([{**row, "RUN_ID": run_id, "AS_OF": as_of}], RECOMMENDATIONS)


def _publish(
    url: str,
    run_id: str,
    *,
    as_of: datetime = JANUARY,
    meanwhile: Callable[[], object] = lambda: None,
    error: BaseException | None = None,
    metadata: dict[str, Any] | None = None,
) -> Published:
    def rows() -> Iterator[pa.RecordBatch]:
        yield _batch(run_id, as_of, "u")
        other = Thread(target=meanwhile)  # deltalake can't be called from where it reads rows
        other.start()
        other.join()
        if error:
            raise error
        yield _batch(run_id, as_of, "v")

    popular = {"RANK": 1, "ITEM_ID": "p", "SCORE": 0.5, "ORIGIN": "popular", "RUN_ID": run_id, "AS_OF": as_of}
    return open_tables(url).publish(
        rows(),
        pa.Table.from_pylist([popular], POPULAR),
        run_id=run_id,
        as_of=as_of,
        metadata=metadata or {},
    )


def _runs(url: str) -> list[str]:
    return [published.run_id for published in open_tables(url).published()]


def _served(url: str) -> tuple[int, set[tuple[str, str]]]:
    newest = next(open_tables(url).published())
    rows = open_tables(url).for_users(["u", "v", "w"]).to_pylist()
    return newest.version, {(row["USER_ID"], row["RUN_ID"]) for row in rows}


@pytest.fixture(scope="session")
def batch() -> Callable[..., pa.RecordBatch]:
    """run_id, as_of, user → one row."""
    return _batch


@pytest.fixture(scope="session")
def publish() -> Callable[..., Published]:
    """Publish two users; when the first has been read, `meanwhile` happens and `error` is raised."""
    return _publish


@pytest.fixture(scope="session")
def runs() -> Callable[[str], list[str]]:
    """url → the runs that are published, newest first."""
    return _runs


@pytest.fixture(scope="session")
def served() -> Callable[[str], tuple[int, set[tuple[str, str]]]]:
    """url → version, and user and run of each row."""
    return _served
