"""Sources that grow: what had arrived by a moment is read, whatever has arrived since."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.sources.template import expanded

DAY = 86_400
JANUARY = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())


def at(day: float) -> int:
    """Seconds of a moment of January, days from 1."""
    return JANUARY + int((day - 1) * DAY)


def events(*rows: tuple[str, float]) -> list[tuple[str, str, float, int]]:
    """Item and day of each → rows of one user."""
    return [("u", item, 1.0, at(day)) for item, day in rows]


def read(store: Any) -> list[str]:
    return list(pq.read_table(store.folder("ingest") / "interactions.parquet")["ITEM_ID"].to_pylist())


def manifest(store: Any) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json("ingest", "manifest.json")
    return found


# Partitions by date of arrival


@pytest.fixture
def daily(front: Any) -> Any:
    """A folder per day of arrival; the second holds an event of the first."""
    for day, rows in {
        1: events(("a", 1.1), ("b", 1.9)),
        2: events(("late", 1.5), ("c", 2.5)),
        3: events(("d", 3.1), ("later", 2.9)),
    }.items():
        front.write(rows, f"events/date=2026-01-0{day}/part.parquet")
    return front


@pytest.mark.parametrize(
    ("as_of", "items"),
    [
        ("2026-01-02T02:00", "a b"),  # the day of `late` has not ended
        ("2026-01-03T00:00", "a b late c"),
        ("2026-01-03T23:59", "a b late c"),
        ("2026-01-04T02:00", "a b late c d later"),
        ("2026-02-01", "a b late c d later"),
    ],
)
def test_days_that_had_ended_are_read_however_old_their_events(daily: Any, as_of: str, items: str) -> None:
    store = daily.run(f"{daily.folder}/events", upto="ingest", as_of=as_of)
    assert read(store) == items.split()
    assert manifest(store)["cut_by"] == "partition date"


def test_a_backfill_reads_what_that_night_had_read(daily: Any) -> None:
    def night(day: int, run_id: str) -> list[str]:
        source, as_of = f"{daily.folder}/events", f"2026-01-0{day}T02:00"
        return read(daily.run(source, upto="ingest", as_of=as_of, run_id=f"{run_id}-{day}"))

    before = {day: night(day, "first") for day in (2, 3, 4)}
    daily.write(events(("z", 1.2)), "events/date=2026-01-05/part.parquet")
    assert {day: night(day, "again") for day in (2, 3, 4)} == before


def test_a_look_back_leaves_out_older_events_and_keeps_late_ones(daily: Any) -> None:
    store = daily.run(f"{daily.folder}/events", upto="ingest", as_of="2026-01-04", ingest__lookback_days=2)
    assert read(store) == ["c", "d", "later"]
    found = manifest(store)
    assert found["since"] == "2026-01-02T00:00:00+00:00"
    assert found["rows_before_lookback"] == 1  # `late`, which arrived within; the first day is not opened
    assert found["files_left_out"] == 1
    with pytest.raises(BadData, match="before the look-back"):
        daily.run(
            f"{daily.folder}/events",
            upto="ingest",
            as_of="2026-01-04",
            ingest__lookback_days=0.01,
            run_id="x",
        )


def test_events_at_as_of_are_never_read(front: Any) -> None:
    front.write(events(("early", 1.5), ("of the future", 9.0)), "events/date=2026-01-01/part.parquet")
    assert read(front.run(f"{front.folder}/events", upto="ingest", as_of="2026-01-03")) == ["early"]


def test_another_name_of_the_partition_or_none(daily: Any) -> None:
    for day in (1, 2):
        daily.write(events((f"x{day}", 1.1)), f"other/day=2026-01-0{day}/part.parquet")
    store = daily.run(
        f"{daily.folder}/other", upto="ingest", as_of="2026-01-02T12:00", ingest__arrival_partition="day"
    )
    assert read(store) == ["x1"]
    store = daily.run(
        f"{daily.folder}/events",
        upto="ingest",
        as_of="2026-01-02T02:00",
        ingest__arrival_partition="",
        run_id="by-time",
    )
    assert read(store) == ["a", "b", "late"]
    assert manifest(store)["cut_by"] == "event time"


def test_a_file_without_a_day_among_others_is_named(daily: Any) -> None:
    daily.write(events(("x", 1.1)), "events/stray.parquet")
    with pytest.raises(BadData, match=r"stray.parquet: has no date=YYYY-MM-DD"):
        daily.run(f"{daily.folder}/events", upto="ingest")


def test_no_day_that_had_ended_names_the_days_there_are(daily: Any) -> None:
    with pytest.raises(BadData, match=r"2026-01-01 to 2026-01-03"):
        daily.run(f"{daily.folder}/events", upto="ingest", as_of="2026-01-01T12:00")


# Templates


def test_a_place_for_each_day_of_the_look_back(front: Any) -> None:
    for day in (1, 2, 4):
        front.write(events((f"i{day}", day + 0.5)), f"logs/2026/01/{day:02}/part.parquet")
    store = front.run(
        f"{front.folder}/logs/{{date:%Y/%m/%d}}/*.parquet",
        upto="ingest",
        as_of="2026-01-05T02:00",
        ingest__lookback_days=4,
    )
    assert read(store) == ["i1", "i2", "i4"]
    found = manifest(store)
    assert found["cut_by"] == "partition date"
    assert [place[-20:] for place in found["places_missing"]] == ["2026/01/03/*.parquet"]


@pytest.mark.parametrize(
    ("field", "item"), [("data_interval_end", "i5"), ("as_of", "i5"), ("data_interval_start", "i4")]
)
def test_the_data_interval_of_the_run_in_a_path(front: Any, field: str, item: str) -> None:
    for day in (4, 5):
        front.write(events((f"i{day}", 1.5)), f"dumps/2026-01-0{day}.parquet")
    store = front.run(
        f"{front.folder}/dumps/{{{field}:%Y-%m-%d}}.parquet",
        upto="ingest",
        as_of="2026-01-05T02:00",
        data_interval_start="2026-01-04T02:00",
    )
    assert read(store) == [item]


def test_both_ends_of_the_data_interval_in_a_path(front: Any) -> None:
    front.write(events(("i", 1.5)), "dumps/2026-01-04T02_2026-01-05T02/part.parquet")
    store = front.run(
        f"{front.folder}/dumps/{{data_interval_start:%Y-%m-%dT%H}}_{{data_interval_end:%Y-%m-%dT%H}}",
        upto="ingest",
        as_of="2026-01-05T02:00",
        data_interval_start="2026-01-04T02:00",
    )
    assert read(store) == ["i"]


def test_a_delta_table_of_the_runs_own_day(front: Any) -> None:
    names = ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]
    for day in (4, 5):
        rows = pa.table([list(column) for column in zip(*events((f"i{day}", 1.5)), strict=True)], names=names)
        write_deltalake(str(front.folder / f"dumps/2026-01-0{day}"), rows)
    place = f"{front.folder}/dumps/{{data_interval_end:%Y-%m-%d}}"
    store = front.run(place, upto="ingest", as_of="2026-01-05T02:00")
    assert read(store) == ["i5"]
    assert manifest(store)["delta_version"] == 0


def test_a_run_that_airflow_did_not_start_has_to_be_told_where_its_data_interval_starts(front: Any) -> None:
    source = front.write(events(("i4", 1.5)), "2026-01-04.parquet").replace(
        "2026-01-04", "{data_interval_start:%Y-%m-%d}"
    )
    with pytest.raises(BadSettings, match=r"no data interval.*set the setting data_interval_start"):
        front.run(source, upto="ingest", as_of="2026-01-05")
    with pytest.raises(BadSettings, match=r"2026-01-06T00:00:00\+00:00\) is later than as_of"):
        front.run(source, upto="ingest", as_of="2026-01-05", data_interval_start="2026-01-06", run_id="x")
    store = front.run(source, upto="ingest", as_of="2026-01-05", data_interval_start="2026-01-04")
    assert read(store) == ["i4"]
    assert store.freeze(store.settings().model_copy(update={"as_of": None, "data_interval_start": None})) == (
        store.settings()
    )


def test_a_format_leads_to_no_place_outside_the_allowed_roots(front: Any) -> None:
    front.write(events(("i", 1.5)), "secret/part.parquet")
    inside = f"{front.folder}/inside"
    source = f"{inside}/{{date:..%Z}}/secret"  # a date has no time zone: the format leaves the two dots
    settings = {"ingest__allowed_roots": [inside, f"{front.folder}/runs", f"{front.folder}/table"]}
    with pytest.raises(BadSettings, match=r"source=.*outside the allowed roots"):
        front.run(source, upto="ingest", ingest__lookback_days=3, **settings)


def test_templates_that_mean_nothing_are_refused(front: Any) -> None:
    with pytest.raises(BadSettings, match="lookback_days"):
        front.run(f"{front.folder}/{{date}}.parquet", upto="ingest")
    for name in ("night", "data_interval", " ds ", "data-interval-end", ""):
        with pytest.raises(BadSettings, match=rf"\{{{name}\}} is unknown.*\{{data_interval_end\}}"):
            front.run(f"{front.folder}/{{{name}}}.parquet", upto="ingest")
    with pytest.raises(BadData, match="none of the 3 places"):
        front.run(f"{front.folder}/{{date}}.parquet", upto="ingest", ingest__lookback_days=3)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), st.integers(1, 40))
@settings(deadline=None)
def test_the_days_of_a_look_back_had_all_ended(moment: datetime, lookback: int) -> None:
    as_of = moment.replace(tzinfo=UTC)
    found = expanded("{date}", as_of=as_of, since=as_of - timedelta(days=lookback))
    days = [day for day, _ in found if day]
    assert len(days) == lookback
    assert days == sorted(set(days))
    assert days[-1] == as_of.date() - timedelta(days=1)


# Delta tables


def test_a_delta_table_is_read_at_the_version_of_as_of(front: Any) -> None:
    url = str(front.folder / "delta")
    names = ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]
    moments = []
    for version, item in enumerate("abc"):
        rows = pa.table([list(column) for column in zip(*events((item, 1.5)), strict=True)], names=names)
        write_deltalake(url, rows, mode="append")
        time.sleep(0.05)
        moments.append(datetime.now(UTC))
        time.sleep(0.05)
        assert DeltaTable(url).version() == version
    for version, moment in enumerate(moments):
        store = front.run(url, upto="ingest", as_of=moment.isoformat(), run_id=f"v{version}")
        assert read(store) == list("abc"[: version + 1])
        assert (manifest(store)["cut_by"], manifest(store)["delta_version"]) == ("delta version", version)
    DeltaTable(url).delete("ITEM_ID = 'b'")
    assert read(front.run(url, upto="ingest", as_of=moments[2].isoformat(), run_id="again")) == list("abc")
    now = datetime.now(UTC) + timedelta(seconds=1)
    assert read(front.run(url, upto="ingest", as_of=now.isoformat(), run_id="now")) == ["a", "c"]


def test_what_is_written_to_a_delta_table_meanwhile_does_not_move_its_versions(
    front: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(front.folder / "delta")
    names = ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]

    def write(item: str) -> None:
        rows = pa.table([list(column) for column in zip(*events((item, 1.5)), strict=True)], names=names)
        write_deltalake(url, rows, mode="append")

    for item in "ab":
        write(item)
        time.sleep(0.05)
    as_of, history, later = datetime.now(UTC), DeltaTable.history, ["c"]

    def slow(table: DeltaTable, limit: int | None = None) -> Any:
        if later:
            write(later.pop())
        return history(table, limit)

    monkeypatch.setattr(DeltaTable, "history", slow)
    store = front.run(url, upto="ingest", as_of=as_of.isoformat())
    assert not later
    assert read(store) == ["a", "b"]
    assert manifest(store)["delta_version"] == 1


def test_a_delta_table_that_is_younger_than_as_of_is_read_by_time(front: Any) -> None:
    url = str(front.folder / "delta")
    rows = pa.table([list(column) for column in zip(*events(("a", 1.5), ("b", 3.5)), strict=True)],
                    names=["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"])  # fmt: skip
    write_deltalake(url, rows)
    store = front.run(url, upto="ingest", as_of="2026-01-03")
    assert read(store) == ["a"]
    assert (manifest(store)["cut_by"], manifest(store)["delta_version"]) == ("event time", 0)


def test_columns_that_delta_partitions_by_are_read_whatever_they_hold(front: Any) -> None:
    url = str(front.folder / "delta")
    items = ["a", "a b", "p:q", "é", "100%", "a/b", "2026-01-01 02:00:00"]
    rows = pa.table([list(column) for column in zip(*events(*((item, 1.5) for item in items)), strict=True)],
                    names=["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"])  # fmt: skip
    write_deltalake(url, rows, partition_by="ITEM_ID")
    assert sorted(read(front.run(url, upto="ingest", as_of="2026-01-03"))) == sorted(items)


def test_a_delta_table_that_was_copied_in_part_is_told(front: Any) -> None:
    url = str(front.folder / "delta")
    rows = pa.table([list(column) for column in zip(*events(("a", 1.5), ("b", 1.6)), strict=True)],
                    names=["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"])  # fmt: skip
    write_deltalake(url, rows, partition_by="ITEM_ID")
    for file in (front.folder / "delta" / "ITEM_ID=b").iterdir():
        file.unlink()
    with pytest.raises(BadData, match="restore the file"):
        front.run(url, upto="ingest", as_of="2026-01-03")


# Databases


@pytest.fixture
def database(postgres: str) -> str:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS events")
        cursor.execute("CREATE TABLE events (who text, what text, worth float8, at timestamptz)")
        for item, day in (("old", 1), ("a", 5), ("b", 6.5), ("future", 9)):
            cursor.execute(f"INSERT INTO events VALUES ('u', '{item}', 1.5, to_timestamp({at(day)}))")
        connection.commit()
    return postgres


QUERY = """SELECT who AS "USER_ID", what AS "ITEM_ID", worth AS "OUTCOME", at AS "TIMESTAMP" FROM events
           WHERE at < :as_of AND at::timestamptz >= :since ORDER BY at"""


def test_a_query_is_streamed_and_its_connection_kept_secret(
    front: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SASREC_CONNECTION_SHOP", database.replace("postgres:@", "postgres:s3cr3t@"))
    asked: dict[str, Any] = {"ingest__query": QUERY, "as_of": "2026-01-08", "upto": "ingest"}
    store = front.run("connection:shop", **asked, ingest__lookback_days=4)
    assert read(store) == ["a", "b"]
    assert manifest(store)["cut_by"] == "event time"
    assert manifest(store)["timestamp_unit"] == "us"
    assert read(front.run("connection:shop", **asked, run_id="all")) == ["old", "a", "b"]
    files = [file for file in Path(front.store).rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if b"s3cr3t" in file.read_bytes()]


def test_a_query_can_not_write(front: Any, database: str) -> None:
    for query in ("DELETE FROM events RETURNING *", "SELECT * FROM events; DROP TABLE events"):
        with pytest.raises((BadSettings, BadData, OSError)):
            front.run(database, upto="ingest", ingest__query=query, run_id="x")
    assert read(front.run(database, upto="ingest", ingest__query=QUERY, as_of="2026-01-08", run_id="y")) == [
        "old", "a", "b",
    ]  # fmt: skip


def test_a_query_that_is_wrong_or_missing_is_a_bad_setting(front: Any, database: str) -> None:
    with pytest.raises(BadSettings, match=r"ingest.query: .*nowhere"):
        front.run(database, upto="ingest", ingest__query="SELECT * FROM nowhere")
    with pytest.raises(BadSettings, match=r"ingest.query: not set"):
        front.run(database, upto="ingest")
    with pytest.raises(BadData, match="missing column USER_ID"):
        front.run(database, upto="ingest", ingest__query="SELECT 1 AS x")


# A run that is cleared


def test_a_finished_run_that_is_cleared_changes_nothing(place: Any) -> None:
    first = place.run("night")
    kept = first.marker("ingest")
    table = pq.read_table(place.source)
    place.write(pa.concat_tables([table, table.slice(0, 5)]))
    again = place.run("night")
    assert again.marker("ingest") == kept
    assert again.marker("export").summary["version"] == 0
    assert DeltaTable(place.table).version() == 0
