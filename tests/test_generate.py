from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sasrec_tasks.generate import GENRES, Generated, Process, generate

END = int(pd.Timestamp("2026-01-01", tz="UTC").timestamp())
SMALL: dict[str, Any] = {"users": 300, "events": 4000}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def table(made: Generated) -> pd.DataFrame:
    return read(made)


def read(made: Generated) -> pd.DataFrame:
    events: pd.DataFrame = pq.read_table(made.path).to_pandas()
    return events


def process(made: Generated) -> Process:
    """The law that a table was drawn from."""
    return Process.of(made.items, np.random.default_rng(made.seed))


def numbers(made: Generated, events: pd.DataFrame) -> npt.NDArray[np.int64]:
    """The items of a table as the process numbers them."""
    labels = process(made).labels
    return np.argsort(labels)[events["ITEM_ID"].str.removeprefix("item-").astype(int)]


def last(events: pd.DataFrame, back: int) -> pd.DataFrame:
    """Each user's ``back``-th event from the end, by user."""
    return events[events.groupby("USER_ID").cumcount(ascending=False) == back - 1].sort_values("USER_ID")


def top(law: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The ten likeliest of the last axis."""
    return np.argpartition(law, -10, axis=-1)[..., -10:]


def test_it_writes_an_event_log(made: Generated, table: pd.DataFrame) -> None:
    schema = pa.schema(
        {"USER_ID": pa.string(), "ITEM_ID": pa.string(), "OUTCOME": pa.float64(), "TIMESTAMP": pa.int64()}
    )
    assert pq.read_schema(made.path).equals(schema)
    assert len(table) == made.events
    assert table["USER_ID"].nunique() == made.users
    assert table["ITEM_ID"].nunique() <= made.items
    assert table["USER_ID"].str.fullmatch(r"user-\d{6}").all()
    assert table["ITEM_ID"].str.fullmatch(r"item-\d{5}").all()
    assert table["TIMESTAMP"].is_monotonic_increasing
    assert table["TIMESTAMP"].between(END - 365 * 86400, END - 1).all()
    assert (table["USER_ID"] != table["USER_ID"].shift()).mean() > 0.99  # users are interleaved


def test_users_differ_in_length_and_none_is_too_short(made: Generated, table: pd.DataFrame) -> None:
    lengths = table["USER_ID"].value_counts()
    assert lengths.min() >= 5
    assert lengths.quantile(0.9) > 2 * lengths.quantile(0.1)


@pytest.mark.parametrize(("users", "events"), [(300, 1500), (6, 60_000)])
def test_no_user_has_two_events_in_a_second(tmp_path: Path, users: int, events: int) -> None:
    assert not read(generate(tmp_path, users=users, events=events)).duplicated(["USER_ID", "TIMESTAMP"]).any()


def test_ids_tell_nothing_of_popularity_or_activity(table: pd.DataFrame) -> None:
    for column in ("USER_ID", "ITEM_ID"):
        counts = table[column].value_counts()
        number = counts.index.str[5:].astype(int).to_series()
        assert abs(np.corrcoef(counts.rank(), number)[0, 1]) < 0.1


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    one, two = generate(tmp_path / "one", **SMALL), generate(tmp_path / "two", **SMALL)
    other = generate(tmp_path / "other", **SMALL, seed=1)
    for suffix in (".parquet", ".json"):
        assert one.path.with_suffix(suffix).read_bytes() == two.path.with_suffix(suffix).read_bytes()
    assert one.path.read_bytes() != other.path.read_bytes()


def test_it_fills_a_folder_or_names_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    assert generate(tmp_path / "new" / "folder", **SMALL).path.name == "interactions.parquet"
    assert generate(tmp_path / "new" / "shop.parquet", **SMALL).path == tmp_path / "new" / "shop.parquet"
    files = {str(path.relative_to(tmp_path / "new")) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "shop.parquet", "shop.json", "folder/interactions.parquet", "folder/interactions.json"
    }  # fmt: skip


def test_the_figures_are_written_beside_the_table(made: Generated) -> None:
    figures = json.loads(made.path.with_suffix(".json").read_text())
    assert {**figures, "path": str(made.path)} == made.as_dict()


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = generate(tmp_path, **SMALL).path.read_bytes()

    def full(table: object, file: Path) -> None:
        file.write_bytes(b"half a ta")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path, **SMALL, seed=1)
    assert (tmp_path / "interactions.parquet").read_bytes() == old
    assert {path.name for path in tmp_path.iterdir()} == {"interactions.json", "interactions.parquet"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": 1999}, "items is 1999: give at least 2000"),
        ({"users": 0}, "users is 0: give at least 1"),
        ({"users": 10, "events": 49}, "events is 49: for 10 users give at least 50"),
        ({"users": 2, "events": 20_001}, "events is 20001: for 2 users give at most 20000"),
        ({"seed": -1}, "seed is -1: give 0 or more"),
    ],
)
def test_it_says_what_is_out_of_range(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("users", [1, 7])
def test_five_events_a_user_are_enough(tmp_path: Path, users: int) -> None:
    table = read(generate(tmp_path, users=users, events=5 * users))
    assert (table["USER_ID"].value_counts() == 5).all()


@pytest.mark.parametrize("items", [2000, 2011, 5000, 20_000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_promises_hold_for_every_size_and_seed(items: int, seed: int) -> None:
    law = Process.of(items, np.random.default_rng(seed))
    popular = np.sort(law.popularity)[-10:].sum()
    assert 0.4 <= law.best() <= 0.7
    assert popular < law.first_order() <= 0.75 * law.best()
    assert 0.05 < popular < 0.2


def test_the_probabilities_are_those_of_the_next_event(made: Generated, table: pd.DataFrame) -> None:
    """Against the counts of what came after any two items, three genres of each."""
    law = process(made)
    item = numbers(made, table)
    events = table.assign(item=item, genre=law.genre[item])
    by_user = events.groupby("USER_ID")["genre"]
    before, previous = by_user.shift(2), by_user.shift(1)
    for x, y in [(0, 0), (0, 1), (1, 0), (7, 3)]:
        drawn = events["item"][(before == x) & (previous == y)]
        expected = law.probabilities(x, y)
        assert expected.sum() == pytest.approx(1)
        for genre in range(GENRES):
            chance = expected[law.genre == genre].sum()
            observed = (law.genre[drawn] == genre).mean()
            assert observed == pytest.approx(chance, abs=5 * (chance / len(drawn)) ** 0.5)
        ten = top(expected)
        assert np.isin(drawn, ten).mean() == pytest.approx(expected[ten].sum(), abs=2.5 / len(drawn) ** 0.5)


@pytest.mark.parametrize("arguments", [{}, {"users": 20_000, "items": 5000, "events": 300_000, "seed": 3}])
def test_the_figures_are_reached_on_the_last_events(tmp_path: Path, arguments: dict[str, int]) -> None:
    """By predictors that know the truth about two items, one and none, within sampling error."""
    made = generate(tmp_path, **arguments)
    law = process(made)
    table = read(made)
    target, one, two = (numbers(made, last(table, back)) for back in (1, 2, 3))
    pairs = np.array([[law.probabilities(x, y) for y in range(GENRES)] for x in range(GENRES)])
    # What comes before an item of each genre is counted, not taken from the closed form.
    genre = pd.Series(law.genre[numbers(made, table)])
    before = pd.crosstab(genre.groupby(table["USER_ID"]).shift(1), genre, normalize="columns").to_numpy()
    single = np.einsum("xy,xyi->yi", before, pairs)

    def reached(tens: npt.NDArray[np.int64]) -> float:
        return float((tens == target[:, None]).any(1).mean())

    tolerance = 4 * 0.5 / made.users**0.5
    assert reached(top(pairs)[law.genre[two], law.genre[one]]) == pytest.approx(made.best_hr10, abs=tolerance)
    assert reached(top(single)[law.genre[one]]) == pytest.approx(made.first_order_hr10, abs=tolerance)
    assert reached(top(law.popularity)[None]) == pytest.approx(made.popularity_hr10, abs=tolerance)


def test_no_count_of_what_follows_an_item_beats_the_first_order_figure(
    made: Generated, table: pd.DataFrame
) -> None:
    """A bigram table that was fitted on all but the last events, as a baseline would be."""
    item = pd.Series(numbers(made, table), index=table.index)
    previous = item.groupby(table["USER_ID"]).shift(1)
    held_out = last(table, 1).index
    fitted = previous.notna() & ~previous.index.isin(held_out)
    counts = np.zeros((made.items, made.items))
    np.add.at(counts, (previous[fitted].astype(int), item[fitted]), 1)
    hits = (top(counts)[previous[held_out].astype(int)] == item[held_out].to_numpy()[:, None]).any(1).mean()
    assert made.popularity_hr10 < hits < made.first_order_hr10 + 2 / made.users**0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_the_law_is_stationary(seed: int) -> None:
    """The first two events follow the same law as any others, on which the closed forms rest."""
    random = np.random.default_rng(seed)
    law = Process.of(2000, random)
    rows, items = law.sample(np.full(40_000, 12), random)
    assert (np.bincount(rows) == 12).all()
    genre = law.genre[items].reshape(-1, 12)
    for step in range(11):
        same = (genre[:, step] == genre[:, step + 1]).mean()
        assert same == pytest.approx((genre[:, 5:7] == genre[:, 6:8]).mean(), abs=0.012)
        share = np.bincount(genre[:, step], minlength=GENRES) / len(genre)
        np.testing.assert_allclose(share, law.genres, atol=0.006)
