"""Places on file systems of any kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from sasrec_tasks.filesystem import opened
from sasrec_tasks.s3 import S3FileSystem
from sasrec_tasks.sources.files import list_files


def test_what_others_have_written_since_is_seen(bucket: str) -> None:
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    for number in range(1, 3):
        other.pipe_file(f"{bucket}/events/{number}.parquet", b"")
        fs, path = opened(f"{bucket}/events", "source")
        assert len(fs.ls(path)) == number
        assert len(list_files(f"{bucket}/events")[1]) == number


def test_a_server_that_can_not_be_reached_is_an_error_of_input_and_output(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    S3FileSystem.clear_instance_cache()
    fs, path = opened(f"{bucket}/runs", "store")
    with pytest.raises(OSError, match=r"Could not connect to the endpoint URL.*AWS_ENDPOINT_URL"):
        fs.ls(path)
    with pytest.raises(OSError, match="Could not connect"):
        fs.pipe_file(f"{path}/file", b"")


def test_keys_that_are_missing_are_one_too(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.aws
    S3FileSystem.clear_instance_cache()
    fs, path = opened(f"{bucket}/runs", "store")
    with pytest.raises(OSError, match=r"Unable to locate credentials.*AWS_ACCESS_KEY_ID"):
        fs.cat_file(f"{path}/settings.json")


@pytest.fixture(autouse=True)
def _no_file_system_of_another_environment() -> Iterator[None]:
    yield
    S3FileSystem.clear_instance_cache()
