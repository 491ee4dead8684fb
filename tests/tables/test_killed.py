"""A publisher that is killed between staging its rows and serving them: yesterday's are served."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from adbc_driver_postgresql import dbapi

from sasrec_tasks.tables import Published, Recommendations, open_tables
from sasrec_tasks.tables.postgres import PostgresTables

Publish = Callable[..., Published]
Served = Callable[[str], tuple[int, set[tuple[str, str]]]]


def kill_before_serving(url: str, run_id: str) -> None:
    script = Path(__file__).with_name("stopped.py")
    with subprocess.Popen(
        [sys.executable, str(script), url, run_id], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "staged\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_yesterdays_rows_are_served_and_a_retry_publishes_once(
    url: str, publish: Publish, served: Served
) -> None:
    publish(url, "yesterday")
    kill_before_serving(url, "today")
    assert served(url) == (0, {("u", "yesterday"), ("v", "yesterday")})
    assert Recommendations(url).popular()["RUN_ID"].tolist() == ["yesterday"]
    assert publish(url, "today").version == 1
    assert served(url) == (1, {("u", "today"), ("v", "today")})
    assert Recommendations(url).popular()["RUN_ID"].tolist() == ["today"]
    assert [(kept.version, kept.run_id) for kept in open_tables(url).kept()] == [
        (1, "today"),
        (0, "yesterday"),
    ]


def test_in_a_database_nothing_is_left_of_it(postgres: str, publish: Publish) -> None:
    url = f"{postgres}&table=killed"
    for run_id in ("yesterday", "today"):
        kill_before_serving(url, run_id)
        publish(url, run_id)
    with dbapi.connect(PostgresTables(url).uri) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relname LIKE 'killed%' AND relkind IN ('r', 'v')")
        found = [name for (name,) in cursor.fetchall()]
    # two views, the versions, and the rows and popular items of each publish
    assert len(found) == 2 + 1 + 2 * 2, found
