"""The promises of a claim: one holder at a time, and none for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest
from filelock import Timeout

from sasrec_tasks import claims


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    folder = str(tmp_path) if request.param == "local" else str(request.getfixturevalue("bucket"))
    return f"{folder}/.task.lock"


def at(place: str) -> tuple[fsspec.AbstractFileSystem, str]:
    fs, path = fsspec.core.url_to_fs(place)
    return fs, path


def test_one_holds_it_at_a_time(place: str) -> None:
    holders: list[str] = []
    seen: list[int] = []

    def hold(name: str) -> None:
        for _ in range(3):
            with claims.held(*at(place)) as check:
                holders.append(name)
                seen.append(len(holders))
                time.sleep(0.02)
                check()
                holders.remove(name)

    threads = [threading.Thread(target=hold, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 9


def test_it_is_free_again_after_an_error(place: str) -> None:
    with pytest.raises(ZeroDivisionError), claims.held(*at(place)):
        raise ZeroDivisionError
    with claims.held(*at(place)) as check:
        check()


HOLDS = """
import sys, time, fsspec
from sasrec_tasks import claims
with claims.held(*fsspec.core.url_to_fs(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_holder_held_is_taken_over(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE", 1.0)
    with subprocess.Popen([sys.executable, "-c", HOLDS, place], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with claims.held(*at(place)) as check:
        check()


def test_a_holder_that_works_for_long_keeps_it(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE", 0.6)
    monkeypatch.setattr(claims, "PATIENCE", 2.0)
    with claims.held(*at(place)) as check:
        with pytest.raises((TimeoutError, Timeout)), claims.held(*at(place)):
            pass
        check()


def test_a_holder_that_was_taken_for_dead_is_told(bucket: str) -> None:
    fs, path = at(f"{bucket}/.task.lock")
    with claims.held(fs, path) as check:
        fs.pipe_file(path, b"another")
        with pytest.raises(OSError, match="taken over by another try of this task"):
            check()
    assert fs.cat_file(path) == b"another"  # which stays with its holder
