"""Items of all ages: how old they are, and that the last places of the lists go to the new ones."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sasrec_tasks import contents, item_age, pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.tables import Recommendations

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400
DAYS = 3  # younger items are new
K = 10


def aged(events: pa.Table, unit: int = 1) -> pd.DataFrame:
    """The events of the chains, the last of them an hour before `as_of` and the others days apart.

    Their items are there from the beginning but for the last ten, of which some come in each of the last days.
    """
    frame = events.to_pandas()
    frame = frame.sort_values("TIMESTAMP", kind="stable").reset_index(drop=True)
    ago = np.linspace(40 * DAY, 3600, len(frame)).astype(np.int64)
    number = frame["ITEM_ID"].str.removeprefix("item ").astype(int)
    born = np.where(number < 50, 100, (60 - number) / 2)  # days before as_of
    frame["TIMESTAMP"] = (int(AS_OF.timestamp()) - ago) * unit
    there: pd.DataFrame = frame[ago / DAY <= born].reset_index(drop=True)
    return there


class Lists:
    """Exports of one model."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.source = pd.read_parquet(place.source)
        first = self.source.groupby("ITEM_ID")["TIMESTAMP"].min()
        self.age = (AS_OF.timestamp() - first) / DAY
        self.new = set(self.age[self.age < DAYS].index)
        self.seen = {str(user): set(of["ITEM_ID"]) for user, of in self.source.groupby("USER_ID")}
        self.number = 0

    def start(self, **settings: Any) -> RunStore:
        self.number += 1
        run_id, folder = f"run{self.number}", Path(self.place.store)
        shutil.copytree(
            folder / "first", folder / run_id, ignore=shutil.ignore_patterns("export", "eligible", ".*")
        )
        named = {f"export.{name}": value for name, value in settings.items()}
        own: RunStore = self.place.start(run_id, {"table": f"{self.place.folder}/tables/{run_id}", **named})
        return own

    def rows(self, **settings: Any) -> pd.DataFrame:
        store = self.start(**settings)
        run_task("export", store.uri)
        return self.published(store)

    def published(self, store: RunStore) -> pd.DataFrame:
        return Recommendations(store.settings().table).to_pandas()

    def write(self, name: str, **columns: list[str]) -> str:
        path = f"{self.place.folder}/{name}.parquet"
        pq.write_table(pa.table(columns), path)
        return path


@pytest.fixture(scope="module")
def lists(finished: Any, chains: Any, tmp_path_factory: pytest.TempPathFactory) -> Lists:
    place = type(finished)(tmp_path_factory.mktemp("aged"))
    place.write(pa.Table.from_pandas(aged(chains(users=150)), preserve_index=False))
    place.run("first", upto="gate")
    return Lists(place)


@pytest.fixture(scope="module")
def ranking(lists: Lists) -> dict[str, pd.DataFrame]:
    """Each user's ranking of everything that they have not seen."""
    rows = lists.rows(top_k=1000)
    return {str(user): own for user, own in rows.groupby("USER_ID")}


def expected(ranked: pd.DataFrame, new: set[str], k: int, slots: int) -> tuple[list[str], list[str]]:
    """Items and origins of a list, place by place."""
    head, rest = ranked.iloc[: k - slots], ranked.iloc[k - slots :]
    reserved = rest[rest["ITEM_ID"].isin(new)].iloc[:slots]
    others = rest.drop(reserved.index).iloc[: slots - len(reserved)]
    tail = pd.concat([reserved, others]).sort_index()
    origins = ["model"] * len(head) + ["new" if item in new else "model" for item in tail["ITEM_ID"]]
    return [*head["ITEM_ID"], *tail["ITEM_ID"]], origins


@pytest.mark.parametrize(("k", "slots"), [(K, 1), (K, 3), (2, 1), (40, 39), (1000, 5)])
@pytest.mark.parametrize("narrow", [False, True])
def test_the_last_places_are_the_best_new_items_of_the_user(
    lists: Lists, ranking: dict[str, pd.DataFrame], k: int, slots: int, narrow: bool
) -> None:
    may, out = set(lists.age.index), set[tuple[str, str]]()
    tables = {}
    if narrow:
        may = {item for item in may if int(item.removeprefix("item ")) % 2}
        out = {(user, own["ITEM_ID"].iloc[place]) for user, own in ranking.items() for place in (0, -1, 5)}
        users, items = ([pair[side] for pair in sorted(out)] for side in (0, 1))
        tables["eligible_items"] = lists.write("may", ITEM_ID=sorted(may))
        tables["excluded_pairs"] = lists.write("out", USER_ID=users, ITEM_ID=items)
    rows = lists.rows(top_k=k, new_item_days=DAYS, new_item_slots=slots, **tables)
    got = {str(user): own for user, own in rows.groupby("USER_ID")}
    for user, ranked in ranking.items():
        left = [item in may and (user, item) not in out for item in ranked["ITEM_ID"]]
        items, origins = expected(ranked[left].reset_index(drop=True), lists.new, k, slots)
        own = got[user]
        assert own["ITEM_ID"].tolist() == items
        assert own["ORIGIN"].tolist() == origins
        assert own["RANK"].tolist() == list(range(1, len(items) + 1))
        assert own["SCORE"].is_monotonic_decreasing
        assert not set(items) & lists.seen[user]
    assert (rows["ORIGIN"] == "new").any() == (k < 1000)  # with 1,000 places the whole ranking is before them


def test_every_user_gets_a_new_item(lists: Lists) -> None:
    rows = lists.rows(new_item_days=DAYS)
    left = [user for user, seen in lists.seen.items() if lists.new - seen]
    served = rows[rows["ITEM_ID"].isin(lists.new)]["USER_ID"]
    assert set(served) == set(left)
    before = lists.rows()
    assert before[before["ITEM_ID"].isin(lists.new)]["ITEM_ID"].nunique() <= served.nunique()


def test_nothing_changes_where_no_item_is_new(lists: Lists) -> None:
    plain = lists.rows()
    pd.testing.assert_frame_equal(
        lists.rows(new_item_days=0.001).drop(columns="RUN_ID"), plain.drop(columns="RUN_ID")
    )
    old = lists.write("old", ITEM_ID=sorted(set(lists.age.index) - lists.new))
    narrowed = {"eligible_items": old, "new_item_days": DAYS}
    pd.testing.assert_frame_equal(
        lists.rows(**narrowed).drop(columns="RUN_ID"),
        lists.rows(eligible_items=old).drop(columns="RUN_ID"),
    )


def test_the_export_counts_what_is_new(lists: Lists) -> None:
    store = lists.start(new_item_days=DAYS, new_item_slots=2)
    summary = run_task("export", store.uri)
    rows = lists.published(store)
    new = rows[rows["ORIGIN"] == "new"]
    assert summary["new_items"] == {
        "items": len(lists.new),
        "recommended": new["ITEM_ID"].nunique(),
        "rows": len(new),
    }
    assert summary["users_by_origin"] == {"model": len(lists.seen), "popular": 0, "none": 0}
    assert run_task("export", lists.start().uri)["new_items"] is None


def test_popular_lists_have_no_places_for_new_items(place: Any, chains: Any) -> None:
    frame = aged(chains())
    unhappy = [f"user {user}" for user in range(10)]
    frame.loc[frame["USER_ID"].isin(unhappy), "OUTCOME"] = 1.0
    place.write(pa.Table.from_pandas(frame, preserve_index=False))
    place.run("run", {"split.min_outcome": 3, "export.new_item_days": DAYS})
    rows = Recommendations(place.table).to_pandas()
    assert set(rows[rows["USER_ID"].isin(unhappy)]["ORIGIN"]) == {"popular"}
    assert set(rows["ORIGIN"]) == {"model", "popular", "new"}


def test_what_is_not_set_is_no_other_run(lists: Lists) -> None:
    """A setting that is not in use hangs on nothing: a run that was published before it was there is the same run."""
    store = lists.start()
    first = run_task("export", store.uri)
    own = store.settings()
    again = own.model_copy(update={"export": own.export.model_copy(update={"new_item_slots": 4})})
    store.freeze(again)
    assert run_task("gate", store.uri)["publish"]
    assert run_task("export", store.uri) == first
    store.freeze(own.model_copy(update={"export": own.export.model_copy(update={"new_item_days": 2.0})}))
    with pytest.raises(BadSettings, match="published already"):
        run_task("export", store.uri)


def test_only_what_looks_at_the_lists_runs_again(lists: Lists) -> None:
    store = lists.start(new_item_days=DAYS)
    before = {task: store.marker(task) for task in pipeline.TASKS}
    for task in pipeline.TASKS:
        run_task(task, store.uri)
    after = {task: store.marker(task) for task in pipeline.TASKS}
    assert {task for task in pipeline.TASKS if before[task] != after[task]} == {"gate", "export"}


def test_a_list_of_new_items_alone_is_refused(lists: Lists) -> None:
    with pytest.raises(BadSettings, match=r"new_item_slots=10 must be less than top_k=10"):
        lists.start(new_item_days=DAYS, new_item_slots=10)
    lists.place.start("first", {"export.top_k": 1})  # without new_item_days the number of places says nothing


# Ages


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_an_item_is_as_old_as_its_first_event(front: Any, chains: Any, unit: int) -> None:
    frame = aged(chains(), unit)
    store = front.run(front.write(pa.Table.from_pandas(frame, preserve_index=False)))
    data = contents.interactions(store, store.settings())
    found = item_age.ages(store, store.settings(), data)
    first = frame.groupby("ITEM_ID")["TIMESTAMP"].min() / unit
    wanted = (AS_OF.timestamp() - first[contents.item_ids(store)]) / DAY
    assert found[0] == np.inf
    np.testing.assert_allclose(found[1:], wanted, atol=1e-6)


def test_a_run_that_was_split_before_first_events_were_kept_has_the_same_ages(
    front: Any, chains: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_age, "ROWS_AT_ONCE", 100)
    store = front.run(front.write(pa.Table.from_pandas(aged(chains()), preserve_index=False)))
    data = contents.interactions(store, store.settings())
    kept = item_age.ages(store, store.settings(), data)
    file = store.folder("split") / "items.parquet"
    pq.write_table(pq.read_table(file).drop_columns("first_event"), file)
    monkeypatch.setattr(RunStore, "folder", lambda self, task: Path(self.root) / task)  # changed by hand
    assert (item_age.ages(store, store.settings(), data) == kept).all()
