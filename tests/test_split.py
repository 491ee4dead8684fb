"""The order and the files of `split`, held against a reference in plain Python."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sasrec_tasks import contents, progress, sorting, split
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.sasrec.sequences import HeldOut, Sequences

T = 1_700_000_000
Row = tuple[Any, Any, Any, Any]
Event = tuple[str, float, int]


def reference(rows: list[Row], min_item_events: int = 1, drop_repeats: bool = True) -> dict[str, list[Event]]:
    """User → (item, outcome, time), oldest first, ties as they came."""
    valid = [row for row in rows if None not in row and "" not in row and row[3] >= 0 and np.isfinite(row[2])]
    counts = {item: sum(row[1] == item for row in valid) for item in {row[1] for row in valid}}
    histories: dict[str, list[Event]] = {row[0]: [] for row in valid}
    for user, item, outcome, time in sorted(valid, key=lambda row: row[3]):  # stable
        is_repeat = (item, time) in {(earlier, at) for earlier, _, at in histories[user]}
        if counts[item] >= min_item_events and not (drop_repeats and is_repeat):
            histories[user].append((item, outcome, time))
    return histories


def read(store: RunStore) -> dict[str, list[Event]]:
    """The same from the files that `split` left."""
    folder = store.folder("split")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in
              ("offsets", "items", "outcomes", "timestamps")}  # fmt: skip
    assert {name: array.dtype for name, array in arrays.items()} == {
        "offsets": np.int64, "items": np.int32, "outcomes": np.float32, "timestamps": np.int64,
    }  # fmt: skip
    users, items = pq.read_table(folder / "users.parquet"), pq.read_table(folder / "items.parquet")
    assert users["index"].to_pylist() == list(range(len(users)))
    assert items["index"].to_pylist() == list(range(1, len(items) + 1))
    assert len(arrays["offsets"]) == len(users) + 1
    assert arrays["offsets"][0] == 0
    assert len({len(arrays[name]) for name in ("items", "outcomes", "timestamps")}) == 1
    assert arrays["offsets"][-1] == len(arrays["items"])
    ids = dict(zip(items["index"].to_pylist(), items["ITEM_ID"].to_pylist(), strict=True))
    events = [
        (ids[item], float(outcome), int(time))
        for item, outcome, time in zip(arrays["items"], arrays["outcomes"], arrays["timestamps"], strict=True)
    ]
    bounds = arrays["offsets"].tolist()
    return {user: events[bounds[u] : bounds[u + 1]] for u, user in enumerate(users["USER_ID"].to_pylist())}


histories = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "ü", "u'3", None, ""]),
        st.sampled_from(["i9", "i1", "I5", "i,3", "🙂", None]),
        st.sampled_from([1.0, 2.5, -1.0, float("nan"), None]),
        st.sampled_from([0, T, T + 1, T + 2, -1, None]),
    ),
    max_size=40,
)
CORE: list[Row] = [
    ("core", item, 1.0, time) for item, time in (("i1", T + 1), ("i9", T + 1), ("I5", T), ("i1", T + 2))
]
"""Enough that there is always something to evaluate, when another user joins."""


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=histories,
    per_file=st.integers(4, 44),
    least=st.integers(1, 2),
    drop_repeats=st.booleans(),
    seed=st.integers(0, 99),
)
def test_order_and_files_are_those_of_plain_python(
    tmp_path_factory: pytest.TempPathFactory,
    front_at: Any,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[Row],
    per_file: int,
    least: int,
    drop_repeats: bool,
    seed: int,
) -> None:
    monkeypatch.setattr(sorting, "ROWS_AT_ONCE", 8)
    front = front_at(tmp_path_factory.mktemp("split"))
    rows = rows + CORE * 2 + [("other", "i1", 1.0, T), ("other", "i9", 1.0, T)]
    random.Random(seed).shuffle(rows)
    for first in range(0, len(rows), per_file):
        front.write(rows[first : first + per_file], f"data/{first:02d}.parquet", row_group_size=5)
    store = front.run(
        f"{front.folder}/data",
        split__min_item_events=least,
        split__drop_repeats=drop_repeats,
        validate__max_rejected_share=1,
        ingest__timestamp_unit="s",
    )
    wanted = reference(rows, least, drop_repeats)
    assert read(store) == wanted
    found = {user for user, events in wanted.items() if len(events) >= 3}
    marker = store.marker("split")
    assert marker is not None
    assert marker.summary["users_evaluated"] == len(found)
    assert marker.summary["users"] == len(wanted)
    assert marker.summary["events"] == sum(map(len, wanted.values()))
    assert marker.summary["items"] == len({item for events in wanted.values() for item, _, _ in events})


def test_ties_keep_the_order_in_which_they_came_and_never_that_of_the_ids(front: Any) -> None:
    """Files by name, then rows; ids and file sizes that would lead elsewhere."""
    shuffled = random.Random(0).sample(range(100), 100)
    front.write([("u", f"{item:03d}", 1.0, T) for item in shuffled[60:]], "data/c.parquet", row_group_size=7)
    front.write([("u", f"{item:03d}", 1.0, T) for item in shuffled[:5]], "data/a.parquet")
    front.write([("u", f"{item:03d}", 1.0, T) for item in shuffled[5:60]], "data/b.parquet")
    front.write([("v", "000", 1.0, T)], "data/d.parquet")
    store = front.run(f"{front.folder}/data")
    assert [item for item, _, _ in read(store)["u"]] == [f"{item:03d}" for item in shuffled]


def test_times_are_whole_nanoseconds(front: Any) -> None:
    times = [T * 10**9 + tick for tick in (3, 1, 2, 0)]
    rows = [("u", f"i{i}", 1.0, time) for i, time in enumerate(times)]
    store = front.run(front.write([*rows, ("v", "i0", 1.0, T * 10**9)]))
    assert [time - T * 10**9 for _, _, time in read(store)["u"]] == [0, 1, 2, 3]


def test_rejected_rows_are_left_out(front: Any) -> None:
    rows = [("u", f"i{i}", 1.0, T + i) for i in range(5)] + [("v", "i0", 1.0, T)]
    rows[2] = ("u", "i2", float("nan"), T + 2)
    rows.append(("bad only", "other item", float("inf"), T))
    store = front.run(front.write(rows), validate__max_rejected_share=0.5)
    assert [item for item, _, _ in read(store)["u"]] == ["i0", "i1", "i3", "i4"]
    assert set(read(store)) == {"u", "v"}
    assert contents.item_ids(store) == ["i0", "i1", "i3", "i4"]


def test_users_of_rare_items_alone_are_still_served(front: Any) -> None:
    rows = [("u", item, 1.0, T) for item in "abcabc"] + [("v", "rare", 1.0, T)]
    store = front.run(front.write(rows), split__min_item_events=2)
    assert read(store)["v"] == []
    assert contents.item_ids(store) == ["a", "b", "c"]
    assert pq.read_table(store.folder("split") / "items.parquet")["events"].to_pylist() == [2, 2, 2]


# As later tasks see it


def split_of(store: RunStore) -> contents.Interactions:
    return contents.interactions(store, store.settings())


def lists(store: RunStore, sequences: Sequences) -> list[str]:
    ids = contents.item_ids(store)
    return ["".join(ids[i - 1] for i in sequences.items[a:b]) for a, b in
            zip(sequences.starts, sequences.ends, strict=True)]  # fmt: skip


def targets(store: RunStore, held_out: HeldOut) -> dict[str, tuple[str, str, str]]:
    """User → (target, what the model reads, what counts as seen)."""
    ids = contents.item_ids(store)
    users = pq.read_table(store.folder("split") / "users.parquet")["USER_ID"].to_pylist()
    return {
        users[user]: (ids[target - 1], history, seen)
        for user, target, history, seen in zip(
            held_out.users, held_out.targets, lists(store, held_out.history), lists(store, held_out.seen),
            strict=True,
        )
    }  # fmt: skip


def rated(**users: str) -> list[Row]:
    """`u="a5b1"`: u rated a with 5, then b with 1."""
    return [
        (user, history[i], float(history[i + 1]), T + i)
        for user, history in users.items()
        for i in range(0, len(history), 2)
    ]


def test_the_last_two_are_held_out(front: Any) -> None:
    store = front.run(front.write(rated(u="a1b1c1d1", v="a1b1", w="c1d1a1")))
    found = split_of(store)
    assert lists(store, found.split.train) == ["ab", "ab", "c"]
    assert targets(store, found.split.validation) == {"u": ("c", "ab", "ab"), "w": ("d", "c", "c")}
    assert targets(store, found.split.test) == {"u": ("d", "abc", "abc"), "w": ("a", "cd", "cd")}
    assert lists(store, found.split.whole) == ["abcd", "ab", "cda"]
    assert found.num_items == 4


def test_low_outcomes_are_seen_but_neither_read_nor_targets(front: Any) -> None:
    rows = rated(u="a5b1c5d4e2f5", v="a1b2", w="a5b5c1")
    store = front.run(front.write(rows), split__min_outcome=4)
    found = split_of(store)
    assert targets(store, found.split.test) == {"u": ("f", "acd", "abcde")}
    assert targets(store, found.split.validation) == {"u": ("d", "ac", "abc")}
    assert lists(store, found.split.whole) == ["acdf", "", "ab"]
    assert lists(store, found.events) == ["abcdef", "ab", "abc"]
    assert lists(store, found.split.train) == ["ac", "ab"]  # v has nothing to learn from


def test_users_with_few_events_are_served_only(front: Any) -> None:
    store = front.run(front.write(rated(u="a1b1c1d1", v="a1b1c1", w="a1")), split__min_user_events=4)
    found = split_of(store)
    assert set(targets(store, found.split.test)) == {"u"}
    assert lists(store, found.split.train) == ["ab"]
    assert lists(store, found.split.whole) == ["abcd", "abc", "a"]


def test_settings_of_the_split_are_other_work(front: Any) -> None:
    source = front.write(rated(u="a1b1c1d1", v="a1b1c1", w="a1"))
    first = front.run(source).marker("split")
    assert front.run(source, split__memory_limit="500MB").marker("split") == first
    assert front.run(source, split__min_item_events=2).marker("split") != first


# What can't be learned from


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (rated(u="a1b1c1d1"), {}, "USER_ID: all rows are of one user"),
        (rated(u="a1a1a1", v="a1a1a1"), {}, "ITEM_ID: 1 item"),
        (rated(u="a1b1c1", v="a1b1c1"), {"split__min_item_events": 9}, r"split\.min_item_events=9"),
        (rated(u="a1", v="b1", w="c1"), {}, r"no user has 3 events .*longest history has 1"),
        (rated(u="a1b1", v="b1a1"), {}, "no user has 3 events"),
        (rated(u="a1b1c5", v="b1a1"), {"split__min_outcome": 4}, r"OUTCOME ≥ 4.*split\.min_outcome"),
        (rated(u="a1b1c5", v="b1a1"), {"split__min_user_events": 4}, r"4 events.*split\.min_user_events"),
    ],
)
def test_too_little_is_refused_with_the_reason(front: Any, rows: list[Row], settings: Any, said: str) -> None:
    source = front.write(rows)
    with pytest.raises(BadData, match=said) as raised:
        front.run(source, **settings)
    assert source in str(raised.value)
    assert RunStore.of(front.store, "run").marker("split") is None


@pytest.mark.parametrize(("short", "warned"), [(5, True), (4, True), (3, False), (0, False)])
def test_mostly_short_histories_are_warned_of(
    front: Any, caplog: pytest.LogCaptureFixture, short: int, warned: bool
) -> None:
    rows = [row for n in range(3) for row in rated(**{f"long{n}": "a1b1c1"})]
    rows += [row for n in range(short) for row in rated(**{f"short{n}": "a1b1"[: 2 + 2 * (n % 2)]})]
    warnings = front.run(front.write(rows)).marker("split").summary["warnings"]
    assert bool(warnings) == warned
    assert ("two events or fewer" in caplog.text) == warned


# Out of core


def test_a_million_rows_are_sorted_within_little_memory_and_spilled(
    front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 1_000_000
    draw = np.random.default_rng(0)
    users, items = draw.integers(0, 30_000, rows), draw.integers(0, 5_000, rows)
    times = draw.integers(T - 1000, T, rows)  # many ties
    table = pa.table(
        {
            "USER_ID": pa.array(users).cast(pa.string()),
            "ITEM_ID": pa.array(items).cast(pa.string()),
            "OUTCOME": draw.random(rows).astype(np.float32).astype(np.float64),
            "TIMESTAMP": times,
        }
    )
    spill = front.folder / "spill"
    spill.mkdir()
    spilled: list[str] = []

    def look(*args: Any) -> Any:
        spilled.extend(path.name for path in spill.rglob("*") if path.is_file())
        return progress.bar(*args)

    monkeypatch.setattr(split, "bar", look)
    store = front.run(
        front.write(table),
        split__memory_limit="60MB",
        split__spill_folder=str(spill),
        split__drop_repeats=False,
    )
    assert spilled
    assert list(spill.iterdir()) == []

    ids = pq.read_table(store.folder("split") / "users.parquet")["USER_ID"].to_numpy().astype(np.int64)
    codes = np.array(contents.item_ids(store)).astype(np.int64)
    place = np.empty(30_000, np.int64)
    place[ids] = np.arange(len(ids))
    order = np.lexsort((np.arange(rows), times, place[users]))
    found = split_of(store)
    np.testing.assert_array_equal(codes[found.events.items - 1], items[order])
    np.testing.assert_array_equal(found.timestamps, times[order])
    np.testing.assert_array_equal(
        found.events.outcomes, table["OUTCOME"].to_numpy()[order].astype(np.float32)
    )
    np.testing.assert_array_equal(found.events.ends, np.cumsum(np.bincount(place[users])))


def test_too_little_memory_is_a_bad_setting(front: Any) -> None:
    with pytest.raises(BadSettings, match=r"split\.memory_limit='1KB'"):
        front.run(front.write(rated(u="a1b1c1d1", v="a1b1c1")), split__memory_limit="1KB")


def test_a_spill_folder_that_is_not_there_is_a_bad_setting(front: Any) -> None:
    with pytest.raises(BadSettings, match=r"split\.spill_folder='/nowhere/at/all'"):
        front.run(front.write(rated(u="a1b1c1d1", v="a1b1c1")), split__spill_folder="/nowhere/at/all")


def test_a_folder_with_quotes_in_its_name_is_no_obstacle(tmp_path: Path, front_at: Any) -> None:
    folder = tmp_path / 'it\'s "here"; drop $1 é'
    folder.mkdir()
    front = front_at(folder)
    store = front.run(front.write(rated(u="a1b1c1d1", v="a1b1c1")))
    assert [item for item, _, _ in read(store)["u"]] == list("abcd")
