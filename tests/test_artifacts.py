"""The promises of a run's folder: a marker or nothing, the first to commit wins, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.artifacts import MARKER, RUN_ID, RunStore, write_json
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import from_names


class Work:
    """Writes a file, and counts how often it was asked to."""

    def __init__(self, content: str = "content", name: str = "file.txt") -> None:
        self.content, self.name, self.calls = content, name, 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        (folder / self.name).write_text(self.content)
        return {"said": self.content}


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RunStore:
    place = str(tmp_path / "runs") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return RunStore.of(place, "manual__2024-01-01T00:00:00+00:00")


def damage(store: RunStore, name: str, change: Callable[[bytes], bytes]) -> None:
    place = f"{store.root}/{name}"
    store.fs.pipe_file(place, change(store.fs.cat_file(place)))


# Run ids


@pytest.mark.parametrize(
    "run_id",
    ["", ".", "..", "../other", "a/b", "/etc", "a\\b", ".hidden", "a b", "a\n", "a\0", "é", "*", "a::b",
     "file::", "?", "x" * 251],
)  # fmt: skip
def test_a_run_id_that_could_lead_elsewhere_is_refused(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(BadSettings, match="run id"):
        RunStore.of(str(tmp_path), run_id)


@pytest.mark.parametrize(
    "run_id",
    [
        "scheduled__2024-01-01T00:00:00+00:00",
        "manual__2024-01-01T00:00:00.123456+00:00_aB3",
        "a..b",
        "~x",
        "-",
    ],
)
def test_run_ids_of_airflow_are_folders_of_the_store(tmp_path: Path, run_id: str) -> None:
    store = RunStore.of(f"{tmp_path}/", run_id)
    assert Path(store.root) == tmp_path / run_id
    assert store.run_id == run_id


@given(st.from_regex(RUN_ID, fullmatch=True))
def test_no_run_leaves_the_store(run_id: str) -> None:
    try:
        store = RunStore.of("/nowhere/store", run_id)
    except BadSettings:
        assert "::" in run_id
    else:
        assert Path(os.path.normpath(store.root)).parent == Path("/nowhere/store")


def test_a_store_must_be_named() -> None:
    with pytest.raises(BadSettings, match="store: not set"):
        RunStore.of("", "run")


@pytest.mark.parametrize("place", ["/nowhere/runs", "/nowhere/runs/", "memory://", "memory://runs", "/"])
def test_siblings_share_the_store(place: str) -> None:
    store = RunStore.of(place, "one")
    assert store.sibling("two").root == RunStore.of(place, "two").root
    assert store.sibling("two").fs is store.fs


# Settings


def test_settings_come_back_as_they_were_frozen(store: RunStore) -> None:
    settings = from_names({"source": "é", "as_of": "2024-01-01", "ingest.columns": {"a": "USER_ID"}})
    assert store.freeze(settings) == settings
    assert RunStore(store.uri).settings() == settings
    assert RunStore(store.uri).is_started()


def test_as_of_stays_when_a_run_is_started_again(store: RunStore) -> None:
    before = datetime.now(UTC)
    first = store.freeze(from_names({"train.epochs": 5})).as_of
    assert first is not None
    assert before <= first <= datetime.now(UTC)
    again = store.freeze(from_names({"train.epochs": 6}))
    assert again.as_of == first
    assert store.settings().as_of == first
    assert store.settings().train.epochs == 6


def test_a_run_that_was_not_started_is_named(store: RunStore) -> None:
    assert not store.is_started()
    with pytest.raises(BadSettings, match=r"manual__2024.*no run of this id"):
        store.settings()


def test_settings_of_a_damaged_or_foreign_file_name_it(store: RunStore) -> None:
    store.freeze(from_names({}))
    damage(store, "settings.json", lambda _: json.dumps({"train.epochs": 0}).encode())
    with pytest.raises(BadSettings, match=r"settings\.json.*train\.epochs=0"):
        store.settings()


def test_many_starts_of_one_run_leave_whole_settings(store: RunStore) -> None:
    failures: list[Exception] = []

    def start(number: int) -> None:
        try:
            for _ in range(20):
                RunStore(store.uri).freeze(from_names({"train.epochs": number, "as_of": "2024-01-01"}))
        except Exception as error:
            failures.append(error)

    _together(*(lambda number=number: start(number) for number in range(1, 5)))
    assert not failures
    assert store.settings().train.epochs in range(1, 5)


def _together(*calls: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Once


def test_work_is_done_once(store: RunStore) -> None:
    work = Work()
    first = store.once("ingest", work, settings={"a": 1})
    again = RunStore(store.uri).once("ingest", work, settings={"a": 1})
    assert first == again == {"said": "content"}
    assert work.calls == 1
    assert (store.folder("ingest") / "file.txt").read_text() == "content"


def test_other_settings_are_other_work_and_leave_no_old_file(store: RunStore) -> None:
    store.once("ingest", Work("old", "old.txt"), settings={"a": 1})
    store.once("ingest", Work("new", "new.txt"), settings={"a": 2})
    marker = store.marker("ingest")
    assert marker is not None
    assert set(marker.files) == {"new.txt"}
    assert {name.rpartition("/")[2] for name in store.fs.ls(f"{store.root}/ingest", detail=False)} == {
        "new.txt",
        MARKER,
    }


def test_other_inputs_are_other_work(store: RunStore) -> None:
    later = Work()
    for content, calls in (("a", 1), ("a", 1), ("b", 2)):
        store.once("ingest", Work(content), settings={"content": content})
        store.once("validate", later, reads=["ingest"], settings={})
        assert later.calls == calls


def test_the_same_files_made_anew_are_the_same_inputs(store: RunStore) -> None:
    """What hangs on files hangs on their bytes, not on when or how they were made."""
    later = Work()
    for setting in (1, 2):
        store.once("ingest", Work("same"), settings={"a": setting})
        store.once("validate", later, reads=["ingest"], settings={})
    assert later.calls == 1


def test_what_was_not_done_can_not_be_read(store: RunStore) -> None:
    with pytest.raises(BadSettings, match="`ingest`"):
        store.folder("ingest")
    with pytest.raises(BadSettings, match="`validate` needs `ingest`"):
        store.once("validate", Work(), reads=["ingest"], settings={})


def test_work_that_fails_leaves_nothing(store: RunStore) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.once("ingest", fails, settings={})
    assert store.marker("ingest") is None
    assert not [name for name in store.fs.find(store.root) if "half" in name]
    work = Work()
    store.once("ingest", work, settings={})
    assert work.calls == 1


def test_work_that_fails_leaves_what_was_there(store: RunStore) -> None:
    store.once("ingest", Work("good"), settings={"a": 1})

    def fails(folder: Path) -> dict[str, Any]:
        (folder / "file.txt").write_text("bad")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.once("ingest", fails, settings={"a": 2})
    assert (store.folder("ingest") / "file.txt").read_text() == "good"


def test_forgotten_work_is_done_again(store: RunStore) -> None:
    work = Work()
    store.once("ingest", work, settings={})
    store.forget("ingest")
    store.forget("validate")
    assert store.marker("ingest") is None
    store.once("ingest", work, settings={})
    assert work.calls == 2


@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-1], lambda content: b"", lambda content: content + b"x"],
    ids=["cut", "emptied", "longer"],
)
def test_damage_is_found_and_mended_by_running_again(
    store: RunStore, change: Callable[[bytes], bytes]
) -> None:
    store.once("ingest", Work(), settings={})
    damage(store, "ingest/file.txt", change)
    with pytest.raises(OSError, match=r"ingest/file\.txt: damaged or missing: run `ingest` again"):
        RunStore(store.uri).folder("ingest")
    RunStore(store.uri).once("ingest", Work(), settings={})
    assert (RunStore(store.uri).folder("ingest") / "file.txt").read_text() == "content"


def test_a_missing_file_is_found_and_mended_by_running_again(store: RunStore) -> None:
    store.once("ingest", Work(), settings={})
    store.fs.rm_file(f"{store.root}/ingest/file.txt")
    with pytest.raises(OSError, match="damaged or missing"):
        RunStore(store.uri).folder("ingest")
    RunStore(store.uri).once("ingest", Work(), settings={})
    assert (RunStore(store.uri).folder("ingest") / "file.txt").read_text() == "content"


def test_damage_of_the_same_size_is_found(store: RunStore) -> None:
    store.once("ingest", Work("content"), settings={})
    damage(store, "ingest/file.txt", lambda _: b"cOntent")
    with pytest.raises(OSError, match="damaged"):
        RunStore(store.uri).folder("ingest")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"[]",
        lambda content: content.replace(b"12345", b"12346"),
        lambda content: content.replace(b'"summary"', b'"summarx"'),
        lambda content: content.replace(b'"sha256"', b'"sha25v"'),
    ],
)
def test_a_damaged_marker_is_none_and_the_work_is_done_again(
    store: RunStore, change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    store.once("ingest", Work("12345"), settings={})
    damage(store, "ingest/_SUCCESS", change)
    assert store.marker("ingest") is None
    assert "ingest/_SUCCESS: damaged" in caplog.text
    with pytest.raises(
        BadSettings, match="`validate` needs `ingest`, which has not finished in this run: run it"
    ):
        store.once("validate", Work(), reads=["ingest"], settings={})
    work = Work("12345")
    store.once("ingest", work, settings={})
    assert work.calls == 1
    assert store.marker("ingest") is not None


def test_a_marker_of_an_earlier_version_has_no_checksum(store: RunStore) -> None:
    store.once("ingest", Work(), settings={})
    written = store.marker("ingest")
    assert written is not None
    damage(store, "ingest/_SUCCESS", lambda _: json.dumps(asdict(written)).encode())
    assert store.marker("ingest") == written


def test_what_a_killed_try_has_put_in_place_is_no_part_of_the_next_one(store: RunStore) -> None:
    store.once("ingest", Work("old", "old.txt"), settings={})
    store.fs.rm_file(f"{store.root}/ingest/{MARKER}")
    store.once("ingest", Work("new", "new.txt"), settings={})
    assert not store.fs.exists(f"{store.root}/ingest/old.txt")
    assert (store.folder("ingest") / "new.txt").read_text() == "new"


@pytest.mark.parametrize(
    "change", [lambda content: content[:-9], lambda c: c.replace(b'epochs": 5', b'epochs": 6')]
)
def test_damaged_settings_are_named_and_replaced_by_starting_again(
    store: RunStore, change: Callable[[bytes], bytes]
) -> None:
    settings = from_names({"train.epochs": 5, "as_of": "2024-01-01"})
    store.freeze(settings)
    damage(store, "settings.json", change)
    for call in (store.settings, lambda: store.freeze(from_names({"train.epochs": 5}))):
        with pytest.raises(BadSettings, match=r"settings\.json: damaged: .* start the run again"):
            call()
    assert store.freeze(settings) == settings
    assert store.settings() == settings


def test_the_marker_says_what_was_written(store: RunStore) -> None:
    store.once("ingest", Work("12345"), settings={})
    marker = store.marker("ingest")
    assert marker is not None
    assert marker.files["file.txt"]["bytes"] == 5
    assert marker.summary == {"said": "12345"}
    assert datetime.fromisoformat(marker.finished_at).tzinfo is not None


def test_json_that_no_other_reader_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})


# Two tries at once


def test_the_first_to_commit_wins_and_the_late_one_leaves(tmp_path: Path) -> None:
    store = RunStore.of(str(tmp_path), "run")
    both_work, first_is_done = threading.Barrier(2), threading.Event()
    summaries: dict[str, Any] = {}

    def attempt(name: str) -> None:
        def work(folder: Path) -> dict[str, Any]:
            (folder / "file.txt").write_text(name)
            both_work.wait(30)
            if name == "late":
                assert first_is_done.wait(30)
            return {"by": name}

        summaries[name] = RunStore(store.uri).once("train", work, settings={})
        first_is_done.set()

    _together(lambda: attempt("first"), lambda: attempt("late"))
    assert summaries == {"first": {"by": "first"}, "late": {"by": "first"}}
    assert (store.folder("train") / "file.txt").read_text() == "first"
    assert _debris(tmp_path / "run") == []


def test_a_crowd_of_tries_leaves_one_whole_result(tmp_path: Path) -> None:
    store = RunStore.of(str(tmp_path), "run")
    summaries: list[Any] = []
    start = threading.Barrier(8)

    def attempt(name: str) -> None:
        def work(folder: Path) -> dict[str, Any]:
            start.wait(30)
            for number in range(5):
                (folder / f"{number}.txt").write_text(name * 1000)
            return {"by": name}

        summaries.append(RunStore(store.uri).once("train", work, settings={}))

    _together(*(lambda name=name: attempt(name) for name in "abcdefgh"))
    assert len({summary["by"] for summary in summaries}) == 1
    contents = {(store.folder("train") / f"{number}.txt").read_text() for number in range(5)}
    assert contents == {summaries[0]["by"] * 1000}
    assert _debris(tmp_path / "run") == []


def _debris(run: Path) -> list[str]:
    return [path.name for path in run.iterdir() if path.is_dir() and path.name.startswith(".")]


KILLED = """
import sys, time
from pathlib import Path
from sasrec_tasks.artifacts import RunStore

def work(folder):
    (folder / "file.txt").write_text("half")
    print("working", flush=True)
    time.sleep(600)
    return {}

RunStore(sys.argv[1]).once("train", work, settings={})
"""


def killed_try(uri: str) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, uri], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGKILL)


def test_a_killed_try_counts_for_nothing_and_the_next_one_clears_up(tmp_path: Path) -> None:
    store = RunStore.of(str(tmp_path), "run")
    killed_try(store.uri)
    assert store.marker("train") is None
    assert len(_debris(tmp_path / "run")) == 1
    work = Work()
    store.once("train", work, settings={})
    assert work.calls == 1
    assert (store.folder("train") / "file.txt").read_text() == "content"
    assert _debris(tmp_path / "run") == []


def test_clearing_up_spares_tries_that_still_work(tmp_path: Path) -> None:
    store = RunStore.of(str(tmp_path), "run")

    def slow(folder: Path) -> dict[str, Any]:
        (folder / "file.txt").write_text("slow")
        store.once("train", Work("slow"), settings={"a": 1})
        assert (folder / "file.txt").read_text() == "slow"
        return {}

    store.once("train", slow, settings={"a": 1})
    assert (store.folder("train") / "file.txt").read_text() == "slow"


def test_a_late_one_does_not_replace_what_was_done_meanwhile_on_other_inputs(store: RunStore) -> None:
    store.once("train", Work("before"), settings={"a": 0})

    def late(folder: Path) -> dict[str, Any]:
        (folder / "file.txt").write_text("late")
        RunStore(store.uri).once("train", Work("newer"), settings={"a": 2})
        return {}

    with pytest.raises(OSError, match=r"finished meanwhile .*: it stays, and this late one leaves"):
        store.once("train", late, settings={"a": 1})
    assert (store.folder("train") / "file.txt").read_text() == "newer"
    store.once("train", Work("again"), settings={"a": 1})  # a new try, that knows of it, may
    assert (store.folder("train") / "file.txt").read_text() == "again"


def test_the_marker_is_written_last(tmp_path: Path) -> None:
    """Whoever looks while tries commit sees a marker with the files that it names, or none."""
    store = RunStore.of(str(tmp_path), "run")
    stop, wrong, seen = threading.Event(), [], 0

    def look() -> None:
        nonlocal seen
        while not stop.is_set():
            marker = store.marker("train")
            if marker is None:
                continue
            seen += 1
            whole = all((tmp_path / "run" / "train" / name).exists() for name in marker.files)
            if not whole and store.marker("train") == marker:
                wrong.append(marker)

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(30):
        store.once("train", Work(str(number), f"{number}.txt"), settings={"number": number})
    stop.set()
    watcher.join()
    assert seen
    assert not wrong


# What tries share


def test_tries_share_a_folder(store: RunStore) -> None:
    folder, changed = store.shared_folder("train", "checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "epoch.txt").write_text("3")
    changed()
    other, _ = RunStore(store.uri).shared_folder("train", "checkpoint")
    assert (other / "epoch.txt").read_text() == "3"
    assert store.marker("train") is None


def test_what_tries_share_outlives_the_commit(store: RunStore) -> None:
    folder, changed = store.shared_folder("train", "checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "epoch.txt").write_text("3")
    changed()
    store.once("train", Work(), settings={})
    other, _ = RunStore(store.uri).shared_folder("train", "checkpoint")
    assert (other / "epoch.txt").read_text() == "3"
    assert (store.folder("train") / "file.txt").read_text() == "content"
