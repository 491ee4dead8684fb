"""Replacing a file that others look at: whole, and on S3 only what was looked at."""

from __future__ import annotations

import fsspec
import pytest

from sasrec_tasks import files


def test_on_s3_a_file_that_was_changed_meanwhile_is_left(bucket: str) -> None:
    fs, path = fsspec.core.url_to_fs(f"{bucket}/pointer")
    nothing = files.tag(fs, path)
    files.replace(fs, path, b"first", expected=nothing)
    first = files.tag(fs, path)
    with pytest.raises(OSError, match="pointer: was written to by another run meanwhile"):
        files.replace(fs, path, b"also first", expected=nothing)
    assert fs.cat_file(path) == b"first"
    files.replace(fs, path, b"second", expected=first)
    with pytest.raises(OSError, match="try again"):
        files.replace(fs, path, b"also second", expected=first)
    assert fs.cat_file(path) == b"second"
    fs.rm_file(path)
    with pytest.raises(OSError, match="try again"):
        files.replace(fs, path, b"third", expected=first)
    files.replace(fs, path, b"third")
    assert fs.cat_file(path) == b"third"


def test_elsewhere_there_are_no_tags() -> None:
    fs, path = fsspec.core.url_to_fs("memory://nowhere/pointer")
    assert files.tag(fs, path) is None
    files.replace(fs, path, b"first", expected=files.tag(fs, path))
    assert fs.cat_file(path) == b"first"
