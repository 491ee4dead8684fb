"""What a trigger may name: every way out of the operator's roots, and into the folders of others, is refused."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks import narrowing, roots
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.pipeline import run_task, start, triggered_settings
from sasrec_tasks.sources.parquet import ParquetSource

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """What the operator has set: places of the deployment's own, and a folder and a bucket for trials of others."""
    for name in ("events", "runs", "table", "trials"):
        (tmp_path / name).mkdir()
    return {
        "source": str(tmp_path / "events"),
        "store": str(tmp_path / "runs"),
        "table": f"{tmp_path}/table, connection:warehouse?table=top",
        "allowed_roots": f"{tmp_path}/trials, s3://trials/open, connection:lab",
    }


def triggered(own: dict[str, str], **conf: Any) -> Settings:
    return triggered_settings(conf, conf, own.get, MOMENT)


OUTSIDE = (
    "/etc/passwd", "{home}", "{home}/other", "{home}/trials/../other", "{home}/trials/../../etc", "file:///etc/passwd",
    "{home}/trials/link", "{home}/trials/link/x.parquet", "s3://other/x", "s3://trials/opener", "s3://trials/open/../x",
    "memory://x", "simplecache::s3://trials/open/x", "{home}/trials/x::file:///etc/passwd",
    # addresses of this network
    "http://169.254.169.254/latest/meta-data/iam", "http://[fd00:ec2::254]/latest", "http://metadata.google.internal/x",
    "http://127.0.0.1:8080/api/v2/connections", "http://localhost/x.parquet", "http://10.0.0.1/x", "http://192.168.0.1/x",
    "http://2130706433/x", "http://0x7f.1/x", "ftp://10.0.0.1/x", "sftp://10.0.0.1/x", "webhdfs://10.0.0.1/x",
    "s3://trials@169.254.169.254/open/x", "https://trials.s3.amazonaws.com/open/x",
    # databases
    "postgresql://10.0.0.1/db?table=x", "postgresql:///db?host=169.254.169.254&table=x", "postgres://localhost/x?table=x",
    "connection:warehouse", "connection:warehouse?table=other", "connection:warehouse?table=top&host=10.0.0.1",
    "connection:payments?table=x", "connection:lab?host=10.0.0.1", "connection:lab?table=x&host=10.0.0.1",
    "connection:lab?table=x&service=prod", "connection:lab/../warehouse?table=top", "connection:lab2?table=x",
)  # fmt: skip


@pytest.mark.parametrize("place", OUTSIDE)
@pytest.mark.parametrize("name", ["source", "store", "table"])
def test_outside_the_roots_nothing_is_named(
    own: dict[str, str], tmp_path: Path, name: str, place: str
) -> None:
    (tmp_path / "trials" / "link").symlink_to(tmp_path / "other")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadSettings, match=f"{name}=.*outside the allowed roots"):
        triggered(own, **{name: place.format(home=tmp_path)})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_connection_is_no_path_of_the_working_folder(
    own: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write below the folder that Airflow works in may not use its connections."""
    monkeypatch.chdir(tmp_path / "trials")
    for place in ("connection:payments?table=x", "connection:payments"):
        with pytest.raises(BadSettings, match="outside the allowed roots"):
            triggered(own, table=place)
    with pytest.raises(BadSettings, match="outside the allowed roots"):
        roots.check("table", "connection:payments?table=x", ["/"])


@pytest.mark.parametrize(
    "operator_s",
    [{"eligible_items": "connection:stock?table=items"}, {"excluded_pairs": "postgresql://db/x?table=pairs"},
     {"source": "connection:stock?application_name=x"}, {"source": "*.parquet"}, {"source": "{date}/x.parquet"}],
)  # fmt: skip
def test_what_the_operator_names_opens_no_more_than_itself(
    own: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator_s: dict[str, str]
) -> None:
    """The `?` of a database's address is no pattern, and a relative pattern is one of the working folder."""
    monkeypatch.chdir(tmp_path / "events")
    for place in ("/etc/passwd", str(tmp_path / "other"), "connection:stock?table=others"):
        with pytest.raises(BadSettings, match="outside the allowed roots"):
            triggered({**own, **operator_s}, source=place)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("source", "{home}/events"), ("source", "{home}/events/2026/*.parquet"), ("source", "{home}/trials/x.parquet"),
        ("source", "s3://trials/open/x"), ("source", "connection:lab"), ("store", "{home}/trials/runs"),
        ("store", "{home}/runs"), ("store", "s3://trials/open/runs"), ("table", "{home}/table"),
        ("table", "{home}/trials/table"), ("table", "parquet+{home}/trials/table"),
        ("table", "connection:lab?table=x.y"), ("table", "connection:warehouse?table=top"), ("table", "{home}/trials/a, s3://trials/open/b"),
    ],
)  # fmt: skip
def test_under_the_roots_one_may_choose(own: dict[str, str], tmp_path: Path, name: str, place: str) -> None:
    place = place.format(home=tmp_path)
    settings = triggered(own, **{name: place})
    assert getattr(settings, name) == place
    assert settings.ingest.allowed_roots is not None


@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        ("store", "{home}/runs/scheduled__2026-01-01", "lies in a store"),
        ("store", "{home}/runs/a/b", "lies in a store"),
        ("store", "file://{home}/runs/a", "lies in a store"),
        ("table", "{home}/runs/a/export", "lies in a store"),
        ("table", "parquet+{home}/runs/a/export", "lies in a store"),
        ("table", "{home}/runs", "lies in a store"),
        ("source", "{home}/runs/a/ingest/interactions.parquet", "lies in a store"),
        ("source", "{home}/runs/*/ingest", "lies in a store"),
        ("source", "{home}/events/link/a/ingest", "lies in a store"),
        ("table", "{home}/table/part", "lies in the folder of a table"),
        ("table", "{home}/table/_delta_log", "lies in the folder of a table"),
        ("store", "{home}/table/runs", "lies in the folder of a table"),
        ("store", "{home}/table", "lies in the folder of a table"),
    ],
)  # fmt: skip
def test_the_folders_of_runs_and_tables_are_nobody_else_s(
    own: dict[str, str], tmp_path: Path, name: str, place: str, said: str
) -> None:
    (tmp_path / "events" / "link").symlink_to(tmp_path / "runs")
    with pytest.raises(BadSettings, match=rf"{name}=.*{said}"):
        triggered(own, **{name: place.format(home=tmp_path)})


@pytest.mark.parametrize("within", ["", "/export", "/a/b"])
@pytest.mark.parametrize("name", ["store", "table"])
def test_another_run_s_folder_is_refused_in_a_store_of_others_too(place: Any, name: str, within: str) -> None:
    """Neither the operator nor the trigger has named that store."""
    place.run("victim", upto="ingest")
    store = RunStore.of(place.store, "victim")
    before = {file: file.read_bytes() for file in Path(store.root).rglob("*") if file.is_file()}
    with pytest.raises(BadSettings, match=f"{name}=.*lies in the folder of the run victim"):
        place.start("thief", {name: f"{place.store}/victim{within}"})
    assert before == {file: file.read_bytes() for file in Path(store.root).rglob("*") if file.is_file()}


def test_another_run_s_folder_is_refused_on_s3(place: Any, bucket: str) -> None:
    place.start("victim", {"store": f"{bucket}/runs"})
    with pytest.raises(BadSettings, match=r"lies in the folder of the run victim"):
        place.start("thief", {"table": f"{bucket}/runs/victim/export"})


def test_a_kind_of_url_alone_allows_public_hosts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "data.example.com": "93.184.215.14",
        "inside.example.com": "10.1.2.3",
        "both.example.com": "127.0.0.1",
    }

    def looked_up(host: str, *_: Any, **__: Any) -> list[Any]:
        address = known.get(host, host)
        try:
            address = socket.inet_ntoa(socket.inet_aton(address))
        except OSError:
            if ":" not in address:
                raise
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    roots.check("source", "https://data.example.com/x.parquet", ["https://"])
    for host in (
        "169.254.169.254", "10.0.0.1", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[fe80::1]",
        "[::ffff:169.254.169.254]", "inside.example.com", "both.example.com", "unknown.example.com", "0.0.0.0", "",
    ):  # fmt: skip
        with pytest.raises(BadSettings, match="outside the allowed roots"):
            roots.check("source", f"https://{host}/x.parquet", ["https://"])
        if host:
            roots.check("source", f"https://{host}/x.parquet", ["https://", f"https://{host}"])


PLACES_OF_OPERATORS = st.fixed_dictionaries(
    {
        "source": st.sampled_from(
            ["/data/events", "/data/*.parquet", "/data/{date}/x.parquet", "*.parquet", "s3://bucket/dt=*/x.parquet",
             "connection:warehouse", "https://data.example.com/x.parquet?version=3", "postgresql://db/shop"]
        ),
        "store": st.sampled_from(["/runs", "runs/", "s3://bucket/runs"]),
        "table": st.sampled_from(["/table", "parquet+/table", "/table, connection:warehouse?table=top,s3://bucket/table"]),
    },
    optional={
        "eligible_items": st.sampled_from(["/data/may/*.parquet", "connection:stock?table=items"]),
        "excluded_pairs": st.sampled_from(["/data/pairs-{data_interval_end}.parquet", "s3://bucket/pairs"]),
        "allowed_roots": st.sampled_from(["/data", "/data, s3://trials/open", "connection:lab", " "]),
    },
)  # fmt: skip


@given(PLACES_OF_OPERATORS, st.sampled_from([{}, {"train.epochs": 3}, {"source": "/data/x"}]))
def test_the_roots_of_an_operator_hold_for_each_run_and_let_pass_what_is_the_operator_s(
    operator_s: dict[str, str], conf: dict[str, Any]
) -> None:
    listed = roots.places(operator_s.get("allowed_roots", ""))
    if "source" in conf and "/data" not in listed:
        conf = {}
    settings = triggered(operator_s, **conf)
    held = settings.ingest.allowed_roots
    if not listed and not conf.get("source"):
        assert held is None
        return
    assert held is not None
    assert set(listed) <= set(held)
    for place in (
        settings.source,
        settings.store,
        *roots.places(settings.table),
        *narrowing.named(settings).values(),
    ):
        roots.check("place", place, held)
    for place in ("/etc/passwd", "s3://other/x", "http://169.254.169.254/x", "connection:payments"):
        with pytest.raises(BadSettings, match="outside the allowed roots"):
            roots.check("place", place, held)


@pytest.mark.parametrize("conf", [{}, {"source": "/data/x"}])
def test_a_pipeline_s_own_roots_stay(conf: dict[str, Any]) -> None:
    own = {"source": "/data/events", "store": "/runs", "table": "/table", "allowed_roots": "/data"}
    params = {"ingest.allowed_roots": ["/data/events", "/runs", "/table"], **conf}  # as `make_dag` gives them
    settings = triggered_settings(params, conf, own.get, MOMENT)
    assert settings.ingest.allowed_roots == ("/data/events", "/runs", "/table")


# Links, when they are followed


def test_a_link_is_followed_when_a_file_is_opened_not_only_when_it_was_listed(
    front: Any, tmp_path: Path
) -> None:
    """Somebody who may write below a root puts a link in the place of a file after the source was listed."""
    inside, secret = tmp_path / "inside", tmp_path / "secret.parquet"
    source = front.write([("u", "i", 1.0, 1_700_000_000)], "inside/a.parquet")
    front.write([("secret", "i", 1.0, 1_700_000_000)], "secret.parquet")
    opened = ParquetSource(
        source, as_of=MOMENT, since=None, arrival="", types={}, allowed_roots=(str(inside),)
    )
    Path(source).unlink()
    Path(source).symlink_to(secret)
    with pytest.raises(BadSettings, match="outside the allowed roots"):
        opened.schema(opened.parts[0])


def delta(folder: Path, **values: list[Any]) -> Path:
    write_deltalake(str(folder), pa.table(values))
    return folder


ROW: dict[str, list[Any]] = {
    "USER_ID": ["u"],
    "ITEM_ID": ["i"],
    "OUTCOME": [1.0],
    "TIMESTAMP": [1_700_000_000],
}


def leads_out_by_a_link(table: Path, elsewhere: Path) -> None:
    (file,) = table.glob("*.parquet")
    (target,) = elsewhere.glob("*.parquet")
    file.unlink()
    file.symlink_to(target)


def leads_out_by_its_log(table: Path, elsewhere: Path) -> None:
    (target,) = elsewhere.glob("*.parquet")
    (log,) = (table / "_delta_log").glob("*.json")
    (own,) = table.glob("*.parquet")
    log.write_text(log.read_text().replace(own.name, f"../../elsewhere/{target.name}"))


def has_a_log_elsewhere(table: Path, elsewhere: Path) -> None:
    (elsewhere / "_delta_log").rename(elsewhere / "log")
    log = table / "_delta_log"
    for file in log.iterdir():
        file.unlink()
    log.rmdir()
    log.symlink_to(elsewhere / "log")


@pytest.mark.parametrize("how", [leads_out_by_a_link, leads_out_by_its_log, has_a_log_elsewhere])
def test_a_delta_table_leads_nowhere_else(
    front: Any, tmp_path: Path, how: Callable[[Path, Path], None]
) -> None:
    table = delta(tmp_path / "inside" / "table", **ROW)
    secret = delta(tmp_path / "inside" / ".." / "elsewhere", **{**ROW, "USER_ID": ["secret"]})
    allowed = [f"{tmp_path}/inside", f"{tmp_path}/runs", f"{tmp_path}/table"]
    front.run(str(table), upto="ingest", ingest__allowed_roots=allowed)
    how(table, secret)
    with pytest.raises(BadSettings, match=r"source=.*outside the allowed roots"):
        front.run(str(table), upto="ingest", run_id="second", ingest__allowed_roots=allowed)


@pytest.mark.parametrize("how", [leads_out_by_a_link, leads_out_by_its_log, has_a_log_elsewhere])
def test_a_night_that_nobody_triggered_is_led_nowhere_else_either(
    front: Any, tmp_path: Path, how: Callable[[Path, Path], None]
) -> None:
    table = delta(tmp_path / "inside" / "table", **ROW)
    secret = delta(tmp_path / "elsewhere", **{**ROW, "USER_ID": ["secret"]})
    own = {"source": str(table), "store": front.store, "table": f"{tmp_path}/table"}
    how(table, secret)
    scheduled = triggered_settings({}, {}, {**own, "allowed_roots": f"{tmp_path}/inside"}.get, MOMENT)
    with pytest.raises(BadSettings, match=r"source=.*outside the allowed roots"):
        run_task("ingest", start(scheduled, "night").uri)


@pytest.mark.parametrize("what", ["runs", "table"])
def test_a_folder_that_becomes_a_link_out_of_the_roots_is_not_written_to(place: Any, what: str) -> None:
    inside, outside = place.folder / "inside", place.folder / "outside"
    outside.mkdir()
    settings = {
        "store": f"{inside}/runs",
        "table": f"{inside}/table",
        "ingest.allowed_roots": [str(inside), place.source],
    }
    store = place.run("run", settings, upto="gate")
    target = outside / what
    if (inside / what).exists():
        (inside / what).rename(target)
    else:
        target.mkdir()
    (inside / what).symlink_to(target)
    before = {file: file.stat().st_mtime_ns for file in outside.rglob("*")}
    with pytest.raises(BadSettings, match="outside the allowed roots"):
        run_task("export", store.uri)
    assert {file: file.stat().st_mtime_ns for file in outside.rglob("*")} == before


def test_settings_that_somebody_wrote_into_a_run_s_folder_name_no_other_place(place: Any) -> None:
    """`_SUCCESS` and settings carry checksums against damage, not against people: the store is the pipeline's alone."""
    store = place.start("run", {"ingest.allowed_roots": [str(place.folder)]})
    file = Path(store.root) / "settings.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "table": "/etc/table"}))
    with pytest.raises(BadSettings, match="damaged"):
        run_task("ingest", store.uri)
