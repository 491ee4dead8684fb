"""A run's folder without a user: as if the user had not been there, for all that later tasks read by places."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from sasrec_tasks import comparison, contents, eligible, forget_run, pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.mentions import INSTEAD, Mentions
from sasrec_tasks.naming import from_names

USERS = {
    "the first": ["user 0"],
    "the last": ["user 99"],
    "one": ["user 42"],
    "some": ["user 0", "user 10", "user 99"],
}
QUICK = {"gate.force_publish": True, "train.epochs": 1, "validate.max_rejected_share": 0.5}


def with_bad_rows(events: pa.Table) -> pa.Table:
    """Events of which every fiftieth has no outcome."""
    outcome = events["OUTCOME"].to_numpy().copy()
    outcome[::50] = np.nan
    return events.set_column(2, "OUTCOME", pa.array(outcome))


def pairs(folder: Path) -> str:
    """Items that are left out to users, and to people who have no events."""
    users = [f"user {number}" for number in range(0, 100, 2)] * 2 + ["stranger 1", "stranger 2"]
    items = [f"item {number % 60}" for number in range(len(users))]
    pq.write_table(pa.table({"USER_ID": users, "ITEM_ID": items}), folder / "pairs.parquet")
    return str(folder / "pairs.parquet")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, chains: Any) -> RunStore:
    """A run with rejected rows and pairs, published. Copied before it is changed."""
    folder = tmp_path_factory.mktemp("ended")
    pq.write_table(with_bad_rows(chains()), folder / "source.parquet")
    places = {"source": f"{folder}/source.parquet", "store": f"{folder}/runs", "table": f"{folder}/table"}
    sizes = {"train.hidden_units": 16, "train.max_len": 20, "train.device": "cpu", "as_of": "2026-01-01"}
    settings = from_names({**QUICK, **sizes, **places, "export.excluded_pairs": pairs(folder)})
    run = pipeline.start(settings, "run")
    for task in pipeline.TASKS:
        pipeline.run_task(task, run.uri)
    return run


@pytest.fixture
def run(ended: RunStore, tmp_path: Path) -> RunStore:
    shutil.copytree(ended.root, tmp_path / "runs" / "run")
    return RunStore.of(f"{tmp_path}/runs", "run")


def without(source: str, users: list[str], folder: Path) -> str:
    """The source without the users."""
    events = pq.read_table(source)
    theirs = pa.compute.is_in(events["USER_ID"], pa.array(users))
    pq.write_table(events.filter(pa.compute.invert(theirs)), folder / "without.parquet")
    return str(folder / "without.parquet")


@pytest.mark.parametrize("who", USERS)
def test_it_is_what_the_run_would_have_been_without_them(who: str, run: RunStore, tmp_path: Path) -> None:
    users = USERS[who]
    done = forget_run.clean(run, Mentions(users))
    assert done.discarded == {}
    assert done.files > 0
    run = RunStore(run.uri)
    source = without(run.settings().source, users, tmp_path)
    settings = run.settings().model_copy(update={"source": source, "store": f"{tmp_path}/other"})
    fresh = pipeline.start(settings, "run")
    for task in ("ingest", "validate", "split"):
        pipeline.run_task(task, fresh.uri)
    for task, name in (
        ("ingest", contents.SNAPSHOT), ("validate", contents.REJECTED), ("split", contents.USERS)
    ):  # fmt: skip
        cleaned, expected = (pq.read_table(each.folder(task) / name) for each in (run, fresh))
        columns = [each for each in cleaned.column_names if each != "file"]  # of the other source
        assert_frame_equal(*(table.select(columns).to_pandas() for table in (cleaned, expected)))
    for name in ("offsets", "items", "outcomes", "timestamps"):
        cleaned, expected = (np.load(each.folder("split") / f"{name}.npy") for each in (run, fresh))
        np.testing.assert_array_equal(cleaned, expected)
        assert cleaned.dtype == expected.dtype
    manifest, expected = (each.read_json("ingest", contents.MANIFEST) for each in (run, fresh))
    assert manifest["rows"] == expected["rows"]
    assert [each["rows"] for each in manifest["files"]] == [each["rows"] for each in expected["files"]]
    assert manifest["rows_of_forgotten_users"] > 0
    rows = [example["row"] for example in run.read_json("validate", contents.REPORT)["examples"]]
    assert set(rows) <= set(pq.read_table(fresh.folder("validate") / contents.REJECTED)["row"].to_pylist())
    eligible.freeze(fresh, settings, ended=False)
    for name in (*contents.EXCLUDED, "items.npy"):
        if (fresh.folder("eligible") / name).exists():
            cleaned, expected = (np.load(each.folder("eligible") / name) for each in (run, fresh))
            np.testing.assert_array_equal(cleaned, expected)
    test = contents.interactions(run, settings).split.test
    assert len(test) == len(pq.read_table(run.folder("evaluate") / contents.RANKS))
    for task in ("gate", "export"):
        assert not {example["user"] for example in run.read_json(task, contents.EXAMPLES)} & set(users)


def test_items_keep_their_numbers_though_nobody_else_had_them(run: RunStore, front: Any) -> None:
    events = [(user, item, 1.0, 1000 + n) for user in ("a", "b") for n, item in enumerate(("x", "y", "z"))]
    store = front.run(front.write([*events, ("c", "only", 1.0, 5), ("c", "a first", 1.0, 6)]))
    before = contents.item_ids(store)
    assert before == ["a first", "only", "x", "y", "z"]
    forget_run.clean(store, Mentions(["c"]))
    store = RunStore(store.uri)
    data = contents.interactions(store, store.settings())
    assert contents.item_ids(store) == before
    assert data.num_items == 5
    assert [before[item - 1] for item in data.events.items] == ["x", "y", "z"] * 2


def test_a_stranger_who_has_pairs_alone_goes_too(run: RunStore) -> None:
    file = run.folder("eligible") / contents.STRANGERS
    assert pq.read_table(file)["USER_ID"].to_pylist() == ["stranger 1", "stranger 2"]
    before = {name: (run.folder("eligible") / name).read_bytes() for name in contents.EXCLUDED}
    forget_run.clean(run, Mentions(["stranger 1"]))
    run = RunStore(run.uri)
    assert pq.read_table(run.folder("eligible") / contents.STRANGERS)["USER_ID"].to_pylist() == ["stranger 2"]
    assert {name: (run.folder("eligible") / name).read_bytes() for name in contents.EXCLUDED} == before


def test_nobody_changes_nothing_and_a_second_time_neither(run: RunStore) -> None:
    def files() -> dict[str, tuple[bytes, float]]:
        found = (file for file in Path(run.root).rglob("*") if file.is_file() and file.suffix != ".lock")
        return {str(file): (file.read_bytes(), file.stat().st_mtime) for file in found}

    before = files()
    assert forget_run.clean(run, Mentions(["nobody", "user", "item 1"])).files == 0
    assert files() == before
    assert forget_run.clean(run, Mentions(["user 7"])).files > 0
    after = files()
    assert forget_run.clean(RunStore(run.uri), Mentions(["user 7"])).files == 0
    assert files() == after
    newest = [max(round(moment, 6) for _, moment in found.values()) for found in (after, before)]
    assert newest[0] <= newest[1]  # to the microsecond, which is all that a date-time holds


def test_nothing_of_the_run_is_to_be_done_again(run: RunStore, ended: RunStore) -> None:
    before = {task: ended.marker(task) for task in pipeline.TASKS}
    forget_run.clean(run, Mentions(["user 42"]))
    run = RunStore(run.uri)
    for task in ("ingest", "validate", "split"):
        pipeline.run_task(task, run.uri)
    for task, marker in before.items():
        assert marker
        assert run.marker(task).finished_at == marker.finished_at  # type: ignore[union-attr]
        assert run.folder(task)  # every file is the one that its marker names
    assert run.marker("split").summary["users_forgotten"] == 1  # type: ignore[union-attr]


def test_a_file_that_is_damaged_is_made_anew_by_its_task_and_the_others_are_cleaned(run: RunStore) -> None:
    snapshot = Path(run.root) / "ingest" / contents.SNAPSHOT
    snapshot.write_bytes(snapshot.read_bytes()[:-1])
    done = forget_run.clean(run, Mentions(["user 42"]))
    assert set(done.discarded) == {
        "ingest",
        "validate",
    }  # the rows that are rejected are numbered by the snapshot
    assert not snapshot.exists()
    run = RunStore(run.uri)
    assert "user 42" not in pq.read_table(run.folder("split") / contents.USERS)["USER_ID"].to_pylist()
    assert run.folder("train")


def test_what_killed_tries_have_left_goes(run: RunStore) -> None:
    (Path(run.root) / "split" / "_SUCCESS").unlink()
    (Path(run.root) / "train" / "checkpoint").mkdir(exist_ok=True)
    (Path(run.root) / "train" / "checkpoint" / "state").write_text("")
    forget_run.clean(run, Mentions(["user 42"]))
    assert not list((Path(run.root) / "split").iterdir())
    assert (Path(run.root) / "train" / "checkpoint" / "state").exists()


def test_reasons_name_nobody_any_more(run: RunStore) -> None:
    failure = Path(run.root) / "failure.json"
    failure.write_text(
        json.dumps({"task": "validate", "reason": 'USER_ID is odd, for instance "user 42", row 42'})
    )
    forget_run.clean(run, Mentions(["user 42"]))
    assert json.loads(failure.read_text())["reason"] == f'USER_ID is odd, for instance "{INSTEAD}", row 42'


def test_of_one_user_who_is_left_nothing_can_be_learned_and_the_run_is_to_be_split_again(front: Any) -> None:
    store = front.run(front.write([(user, f"item {n}", 1.0, n) for user in "ab" for n in range(3)]))
    done = forget_run.clean(store, Mentions(["a"]))
    assert done.discarded == {"split": "fewer than two users are left"}
    with pytest.raises(ValueError, match="all rows are of one user"):
        pipeline.run_task("split", store.uri)


def test_integers_that_were_not_taken_as_text_are_found(front: Any) -> None:
    rows = pa.table(
        {"USER_ID": [1, 1, 2], "ITEM_ID": ["a", "b", "a"], "OUTCOME": [1.0] * 3, "TIMESTAMP": [1, 2, 3]}
    )
    store = front.run(front.write(rows), upto="ingest")
    forget_run.clean(store, Mentions(["1"]))
    assert pq.read_table(RunStore(store.uri).folder("ingest") / contents.SNAPSHOT)["USER_ID"].to_pylist() == [
        2
    ]


def test_a_sample_that_was_measured_stays_that_sample(place: Any) -> None:
    """Nobody else is drawn in the place of somebody who was forgotten, or the champion would meet other users."""
    place.run("champion")
    store = place.run("night", {"evaluate.test_users": 30}, upto="evaluate")
    measured = pq.read_table(store.folder("evaluate") / contents.RANKS)["USER_ID"].to_pylist()
    others = pq.read_table(store.folder("split") / contents.USERS)["USER_ID"].to_pylist()
    outside = next(user for user in others if user not in measured)
    forget_run.clean(store, Mentions([measured[7], outside]))
    store = RunStore(store.uri)
    found = comparison.compare(store, store.settings(), "champion")
    test = comparison.measured_users(store, contents.interactions(store, store.settings()), store.settings())
    names = pq.read_table(store.folder("split") / contents.USERS)["USER_ID"].to_pylist()
    assert [names[user] for user in test.users] == [user for user in measured if user != measured[7]]
    assert found.on_known["users"] == 29
