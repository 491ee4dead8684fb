"""What killed processes left goes, what living ones work on stays."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sasrec_tasks import abandoned, files


@pytest.fixture(scope="module")
def dead() -> int:
    """Number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_folders_and_files_of_dead_processes_of_this_host_go(tmp_path: Path, dead: int) -> None:
    host = socket.gethostname()
    for name in (f".a.{host}.{dead}.x", f".a.{host}.{os.getpid()}.x", f".a.elsewhere.{dead}.x", ".a.lock"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / f".a.{host}.{dead}.y").touch()
    (tmp_path / f".ab.{host}.{dead}.y").touch()
    abandoned.remove(tmp_path, ".a.")
    assert {path.name for path in tmp_path.iterdir()} == {
        f".a.{host}.{os.getpid()}.x",
        f".a.elsewhere.{dead}.x",
        ".a.lock",
        f".ab.{host}.{dead}.y",
    }


def test_old_files_of_other_hosts_go_where_files_are_written_in_one_go(tmp_path: Path) -> None:
    for name in (".a.elsewhere.1.old", ".a.elsewhere.1.new", "a"):
        (tmp_path / name).touch()
    long_ago = time.time() - 3 * 86_400
    os.utime(tmp_path / ".a.elsewhere.1.old", (long_ago, long_ago))
    abandoned.remove(tmp_path, ".a.", written_in_one_go=True)
    assert {path.name for path in tmp_path.iterdir()} == {".a.elsewhere.1.new", "a"}


def test_a_temporary_folder_is_gone_afterwards_and_the_abandoned_ones_before(
    tmp_path: Path, dead: int
) -> None:
    left = tmp_path / f"a-{socket.gethostname()}.{dead}.x"
    left.mkdir()
    with abandoned.temporary_folder("a-", tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
        abandoned.remove(tmp_path, "a-")
        assert folder.exists()
    assert not list(tmp_path.iterdir())


def test_a_replaced_file_leaves_nothing_beside_it_whether_it_worked_or_not(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    fs = fsspec.filesystem("file")
    (tmp_path / f".file.{socket.gethostname()}.{dead}.x").touch()
    files.replace(fs, str(tmp_path / "file"), b"old")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(fs, str(tmp_path / "file"), b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
