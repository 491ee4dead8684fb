"""The whole pipeline with source, store and table on S3, and what becomes of files whose connection is cut."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from fault_bucket import Bucket
from fault_network import behind_a_proxy
from fault_proxy import Fault, Proxy

from sasrec_tasks import config, files, filesystem, prune, s3
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.pipeline import TASKS, newest_run, run_task
from sasrec_tasks.s3 import S3FileSystem
from sasrec_tasks.tables import Recommendations

Command = Callable[..., Any]


def test_night_after_night_on_s3(
    place: Any, bucket: str, chains: Callable[[], pa.Table], command: Command
) -> None:
    place.source, place.store, place.table = f"{bucket}/events", f"{bucket}/runs", f"{bucket}/table"
    with fsspec.open(f"{bucket}/events/date=2025-12-30/part.parquet", "wb") as file:
        pq.write_table(chains(), file)
    first = place.run("first")
    assert place.run("second", {"as_of": "2026-01-02"}).marker("gate").summary["champion"] == "first"
    assert newest_run(place.store).run_id == "second"
    served = Recommendations(place.table)
    assert (served.version, served.run_id, served.users()) == (1, "second", 100)
    assert set(served.for_user("user 3")["RUN_ID"]) == {"second"}
    again = [run_task(task, first.uri) for task in TASKS]  # clearing a finished run changes nothing
    assert [marker.summary for task in TASKS if (marker := RunStore(first.uri).marker(task))] == again
    assert Recommendations(place.table).version == 1

    shown = command("history", "--table", place.table, "--json")
    assert [row["RUN_ID"] for row in json.loads(shown.out)] == ["first", "second"]
    assert command("rollback", "--table", place.table).status == 0
    assert Recommendations(place.table).run_id == "first"


def test_events_of_a_delta_table_on_s3(place: Any, bucket: str, chains: Callable[[], pa.Table]) -> None:
    place.source, place.store = f"{bucket}/events", f"{bucket}/runs"
    write_deltalake(place.source, chains())
    store = place.run("run", upto="split")
    assert store.read_json("ingest", "manifest.json")["rows"] == len(chains())
    assert RunStore(store.uri).marker("split").summary["users"] == 100  # type: ignore[union-attr]


# What is cut


@pytest.fixture
def behind(s3_server: str) -> Iterator[tuple[Bucket, Proxy]]:
    """A bucket, and the proxy that it is reached by."""
    with behind_a_proxy(s3_server) as found:
        yield found


def test_whatever_is_asked_of_a_server_that_is_gone_is_an_os_error(
    behind: tuple[Bucket, Proxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, proxy = behind
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fs, path = filesystem.opened(f"{bucket.url}/file", "table")
    fs.pipe_file(path, b"content")
    proxy.arm(Fault(0, "before", lasting=True))
    (tmp_path / "local").write_bytes(b"local")

    def write() -> None:
        with fs.open(path, "wb") as file:
            file.write(b"other")

    def read() -> None:
        with fs.open(path, "rb") as file:
            file.read()

    for ask in (
        write,
        read,
        lambda: fs.cat_file(path),
        lambda: fs.get_file(path, str(tmp_path / "got")),
        lambda: fs.put_file(str(tmp_path / "local"), path),
        lambda: fs.pipe_file(path, b"other"),
        lambda: fs.rm_file(path),
        lambda: fs.info(path, refresh=True),
        lambda: files.listed(fs, bucket.name),
    ):
        with pytest.raises(OSError, match="S3: "):
            ask()
    proxy.mend()
    assert fs.cat_file(path) == b"content"


def test_a_server_that_takes_nothing_more_is_given_up(
    behind: tuple[Bucket, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, proxy = behind
    fs, path = filesystem.opened(f"{bucket.url}/file", "table")
    fs.pipe_file(path, b"content")
    monkeypatch.setattr(s3, "LONGEST", 1.0)
    proxy.arm(Fault(0, "silent"))
    with pytest.raises(OSError, match="S3: put_object had not come to its end after 1 s"):
        fs.pipe_file(path, b"other")
    proxy.mend()
    assert fs.cat_file(path) == b"content"


@pytest.mark.parametrize("megabytes", [1, 12])
def test_an_answer_that_breaks_off_is_asked_for_again_or_an_os_error(
    behind: tuple[Bucket, Proxy], tmp_path: Path, megabytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large file, whose parts are fetched side by side, s3fs does not ask again."""
    bucket, proxy = behind
    monkeypatch.setattr(S3FileSystem, "default_block_size", 5 * 2**20)
    fs, path = filesystem.opened(f"{bucket.url}/file", "table")
    content = os.urandom(megabytes * 2**20)
    bucket.client.put_object(Bucket=bucket.name, Key="file", Body=content)
    fs.info(path)
    got = tmp_path / "got"

    def whole() -> bytes:
        return bytes(fs.cat_file(path))

    def fetched() -> bytes:
        fs.get_file(path, str(got))
        return got.read_bytes()

    for number in range(4):
        for get in (whole, fetched):
            proxy.arm(Fault(number, "half answered"))
            with suppress(OSError):
                assert get() == content
            proxy.mend()
            is_whole = False
            for _ in range(6):  # by connections to parts that were on their way when all were cut
                with suppress(OSError):
                    is_whole = get() == content
                    break
            assert is_whole


def test_a_put_on_a_condition_whose_answer_was_lost_has_come_to_pass(behind: tuple[Bucket, Proxy]) -> None:
    bucket, proxy = behind
    fs, path = filesystem.opened(f"{bucket.url}/pointer", "table")
    fs.exists(path)
    proxy.arm(Fault(0, "unanswered"))
    files.replace(fs, path, b"first", expected="")
    assert proxy.struck
    tag = files.tag(fs, path)
    proxy.arm(Fault(0, "unanswered"))
    files.replace(fs, path, b"second", expected=tag)
    assert proxy.struck
    assert bucket.read("pointer") == b"second"
    with pytest.raises(files.Changed):
        files.replace(fs, path, b"third", expected=tag)


def test_uploads_in_parts_that_were_cut_off_are_aborted(
    behind: tuple[Bucket, Proxy], caplog: pytest.LogCaptureFixture
) -> None:
    bucket, _ = behind
    names = ["table/part", "table/_delta_log/0.json", "table_runs/part", "table2/part"]
    for name in names:
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=name)
    long_ago, now = datetime(2009, 1, 1, tzinfo=UTC), datetime.now(UTC)  # moto's are of 2010
    table = f"{bucket.url}/table"
    assert filesystem.abort_uploads(table, long_ago) == 0
    assert filesystem.abort_uploads(bucket.url, now) == 0
    assert filesystem.abort_uploads(table, now, dry_run=True) == 2
    assert sorted(name for name, _ in bucket.uploads()) == sorted(names)
    assert filesystem.abort_uploads(table, now) == 2
    assert sorted(name for name, _ in bucket.uploads()) == ["table2/part", "table_runs/part"]
    prune.prune(table, "", config.Prune())
    assert [name for name, _ in bucket.uploads()] == ["table2/part"]
    assert filesystem.abort_uploads("s3://is-not-there/table", now) == 0
    assert "have a lifecycle rule of the bucket abort them" in caplog.text


def test_nothing_is_aborted_on_a_disk(tmp_path: Path) -> None:
    assert filesystem.abort_uploads(str(tmp_path), datetime.now(UTC)) == 0
