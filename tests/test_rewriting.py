"""Files of finished tasks that are replaced: all of them or none, whenever it is killed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks import rewriting
from sasrec_tasks.artifacts import Damaged, RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import from_names

TWO = ("ingest", "split")


def begun(place: str, run_id: str = "run") -> RunStore:
    run = RunStore.of(f"{place}/runs", run_id)
    run.freeze(from_names({"source": "x", "table": f"{place}/table"}))
    for task, reads in (("ingest", ()), ("split", ("ingest",))):
        run.once(task, _writing("before"), reads=reads, settings={})
    return run


def _writing(text: str) -> Any:
    def work(folder: Path) -> dict[str, Any]:
        for name in ("a", "b", "same"):
            (folder / name).write_text(name if name == "same" else text)
        return {"said": text}

    return work


def _make(task: str, to: Path) -> dict[str, Any]:
    for name in ("a", "b"):
        (to / name).write_text(f"after, of {task}")
    return {"said": "after"}


def rewrite(run: RunStore) -> None:
    with rewriting.locked(run):
        markers = {task: marker for task in TWO if (marker := run.marker(task))}
        rewriting.rewrite(run, _make, before=markers)


def content(run: RunStore, task: str) -> tuple[str, ...]:
    return tuple((run.folder(task) / name).read_text() for name in ("a", "b", "same"))


@pytest.fixture(params=["on a disk", "on S3"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("bucket")) if request.param == "on S3" else str(tmp_path)


def test_later_tasks_find_what_they_have_read_before_and_nothing_is_to_be_done_again(there: str) -> None:
    run = begun(there)
    before = {task: run.marker(task) for task in TWO}
    rewrite(run)
    run = RunStore(run.uri)
    for task in TWO:
        assert content(run, task) == (f"after, of {task}", f"after, of {task}", "same")
        old, new = before[task], run.marker(task)
        assert old
        assert new
        assert (new.digest, new.fingerprint, new.finished_at) == (
            old.digest,
            old.fingerprint,
            old.finished_at,
        )
        assert new.summary == {"said": "after"}
        assert run.is_done(task, run.fingerprint(task, TWO[: TWO.index(task)], {}))
    assert not run.fs.exists(f"{run.root}/{rewriting.FOLDER}")


def test_a_task_that_makes_nothing_stays_as_it_is(tmp_path: Path) -> None:
    run = begun(str(tmp_path))
    before = (Path(run.root) / "ingest" / "_SUCCESS").read_bytes()
    with rewriting.locked(run):
        markers = {task: marker for task in TWO if (marker := run.marker(task))}
        assert rewriting.rewrite(run, lambda task, to: None, before=markers) == 0
    assert (Path(run.root) / "ingest" / "_SUCCESS").read_bytes() == before
    assert not (Path(run.root) / rewriting.FOLDER).exists()


class Killed(BaseException):
    pass


def test_a_kill_leaves_what_was_or_what_is_to_be_and_the_next_time_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = set()
    for number in itertools.count():
        run = begun(str(tmp_path), f"run-{number}")
        left = itertools.count(number, -1)

        def killing(call: Any, left: Any = left) -> Any:
            def or_killed(self: Any, *args: Any, **kwargs: Any) -> Any:
                if next(left) <= 0:
                    raise Killed
                return call(self, *args, **kwargs)

            return or_killed

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killing(Path.replace))
            patch.setattr(type(run.fs), "rm_file", killing(type(run.fs).rm_file))
            patch.setattr(type(run.fs), "rm", killing(type(run.fs).rm))
            try:
                rewrite(run)
            except Killed:
                pass
            else:
                break
        state = []
        for task in TWO:
            try:
                state.append(content(RunStore(run.uri), task))
            except (BadSettings, Damaged):
                state.append(("none",))
        heads = {each[0] for each in state}
        assert not ("before" in heads and any(head.startswith("after") for head in heads)), heads
        states.add(tuple(each[0] for each in state))
        rewrite(run)
        for task in TWO:
            assert content(RunStore(run.uri), task)[0] == f"after, of {task}"
        assert not (Path(run.root) / rewriting.FOLDER).exists()
    assert number >= 8
    assert ("before", "before") in states
    assert ("none", "none") in states


def test_what_was_done_anew_after_a_kill_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "put_marker", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            rewrite(run)
    assert run.marker("ingest") is None
    run.once("ingest", _writing("of another source"), settings={})
    with rewriting.locked(run):
        pass
    assert [run.marker(task) for task in TWO] == [None, None]
    assert not list((Path(run.root) / "ingest").iterdir())


def test_a_commit_of_what_was_read_before_is_refused(tmp_path: Path) -> None:
    run = begun(str(tmp_path))

    def work(folder: Path) -> dict[str, Any]:
        (folder / "c").write_text((run.folder("split") / "a").read_text())
        rewrite(RunStore(run.uri))
        return {}

    with pytest.raises(OSError, match="split: its files were replaced since they were read: try again"):
        run.once("evaluate", work, reads=["split"], settings={})
    assert run.marker("evaluate") is None
    run.once("evaluate", lambda folder: {"n": (folder / "c").write_text("x")}, reads=["split"], settings={})
