"""How a run begins and what it says at its end."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks import pipeline, runs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import PLACES
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.naming import from_names
from sasrec_tasks.pipeline import LAST, TASKS, run_task
from sasrec_tasks.tables import Recommendations

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def nobody(name: str) -> None:
    """A deployment in which nothing is set."""


@pytest.mark.parametrize("missing", ["source", "store", "table"])
def test_a_place_that_is_not_set_is_named(place: Any, missing: str) -> None:
    places = {"source": place.source, "store": place.store, "table": place.table, missing: ""}
    with pytest.raises(BadSettings, match=f"{missing}: not set.*SASREC_{missing.upper()}"):
        pipeline.start(from_names(places), "run")


def test_a_table_that_can_not_be_is_refused_before_training(place: Any) -> None:
    place.table = "nowhere://table"
    with pytest.raises(BadSettings, match="nowhere"):
        place.start("run")
    assert not Path(place.store, "run").exists()


def test_a_store_that_is_a_file_is_named(place: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings, match=r"store=.*is a file"):
        place.run("run", {"store": str(tmp_path / "file")})


@pytest.mark.parametrize("setting", ["store", "table"])
@pytest.mark.parametrize("folder", ["a%20b", "a?b", "a#b", "a[b]", "a\\b"])
def test_a_folder_that_delta_lake_reads_as_another_is_refused(place: Any, setting: str, folder: str) -> None:
    for url in (f"{place.folder}/{folder}/x", f"parquet+{place.folder}/x, {place.folder}/{folder}"):
        if setting == "table" or "," not in url:
            with pytest.raises(BadSettings, match=f"{setting}=.*name a folder without"):
                place.start("run", {setting: url})
    assert [path.name for path in place.folder.iterdir()] == ["source.parquet"]


@pytest.mark.parametrize("folder", ["a b", "100%", "ü+~@", "{c}*"])
def test_other_folders_hold_tables_and_their_runs(place: Any, folder: str) -> None:
    place.table, place.store = (f"{place.folder}/{folder}/{name}" for name in ("table", "runs"))
    place.run("run", {"gate.force_publish": True, "train.epochs": 1})
    assert Recommendations(place.table).users() == 100
    assert runs.read(runs.url_of(place.table, place.store))["RUN_ID"].to_pylist() == ["run"]


@pytest.mark.parametrize("run_id", ["../out", "a/b", "", ".hidden"])
def test_a_run_id_does_not_lead_out_of_the_store(place: Any, run_id: str) -> None:
    with pytest.raises(BadSettings, match="run id"):
        place.start(run_id)


@pytest.mark.parametrize("outside", ["source", "store", "table"])
def test_allowed_roots_hold_for_every_place(place: Any, tmp_path: Path, outside: str) -> None:
    setattr(place, outside, "/elsewhere")
    with pytest.raises(BadSettings, match=outside):
        place.start("run", {"ingest.allowed_roots": [str(tmp_path)]})


def test_the_moment_of_a_run_is_frozen(place: Any) -> None:
    first = place.start("run", {"as_of": None}).settings().as_of
    assert abs((datetime.now(UTC) - first).total_seconds()) < 600
    time.sleep(0.002)
    assert place.start("run", {"as_of": None}).settings().as_of == first
    assert place.start("run", {"as_of": "2025-01-01"}).settings().as_of == datetime(2025, 1, 1, tzinfo=UTC)


def test_a_run_says_all_of_itself_as_json(place: Any) -> None:
    begun: list[str] = []

    class Around:
        def __init__(self, task: str) -> None:
            begun.append(task)

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    store = place.start("run")
    result = pipeline.run_all(store, around=Around)
    assert begun == list(pipeline.TASKS)
    assert json.loads(json.dumps(result)) == result
    assert result["run_id"] == "run"
    assert result["as_of"] == MOMENT.isoformat()
    assert result["metrics"] == store.read_json("evaluate", "metrics.json")
    assert result["verdict"] == store.read_json("gate", "verdict.json")
    assert (result["table"], result["version"], result["published"]) == (place.table, 0, True)
    assert result["resumed_from_epoch"] is None
    assert list(result["seconds"]) == list(pipeline.TASKS)
    assert pipeline.run_all(store)["version"] == 0


def test_a_refused_run_does_not_say_that_it_is_published(place: Any, bad: dict[str, Any]) -> None:
    place.run("run")
    store = place.start("run", bad)  # the same id again, with other settings
    with pytest.raises(GateRefused):
        pipeline.run_all(store)
    result = pipeline.refused(store)
    assert (result["published"], result["version"]) == (False, None)
    assert result["verdict"]["publish"] is False
    assert "export" not in result["tasks"]


def test_the_newest_run_is_the_last_to_come_to_a_verdict(place: Any) -> None:
    with pytest.raises(BadSettings, match="no run"):
        pipeline.newest_run(place.store)
    place.run("b")
    place.start("begun-only")
    assert pipeline.newest_run(place.store).run_id == "b"
    with pytest.raises(BadSettings, match="store: not set"):
        pipeline.newest_run("")


def test_a_trigger_may_leave_places_to_the_deployment(tmp_path: Path) -> None:
    own = {name: str(tmp_path / name) for name in PLACES}
    settings = pipeline.triggered_settings({"source": "", "train.epochs": 3}, {}, own.get, MOMENT)
    assert {name: getattr(settings, name) for name in PLACES} == own
    assert settings.as_of == MOMENT
    assert settings.train.epochs == 3


def test_the_data_interval_ends_at_as_of_and_starts_as_long_before_as_the_schedule_says() -> None:
    own = dict.fromkeys(PLACES, "/data")
    day = timedelta(days=1)
    found = pipeline.triggered_settings({}, {}, own.get, MOMENT, day)
    assert (found.data_interval_start, found.as_of) == (MOMENT - day, MOMENT)
    found = pipeline.triggered_settings({}, {"as_of": "2026-02-03T02:00"}, own.get, MOMENT, day)
    assert found.data_interval_start == datetime(2026, 2, 2, 2, tzinfo=UTC)
    found = pipeline.triggered_settings({"data_interval_start": "2026-01-01"}, {}, own.get, MOMENT, day)
    assert found.data_interval_start == datetime(2026, 1, 1, tzinfo=UTC)
    for as_of, interval in (("2026-02-03", None), ("0001-01-01", day)):
        found = pipeline.triggered_settings({}, {"as_of": as_of}, own.get, MOMENT, interval)
        assert found.data_interval_start is None


def test_what_comes_by_conf_stays_under_the_operators_roots(tmp_path: Path) -> None:
    own = {"source": str(tmp_path / "data"), "store": "/s", "table": "/t", "allowed_roots": str(tmp_path)}
    inside = pipeline.triggered_settings({}, {"source": str(tmp_path / "x.parquet")}, own.get, MOMENT)
    assert inside.source == str(tmp_path / "x.parquet")
    for outside in ("/etc/passwd", str(tmp_path / ".." / "x"), "file:///etc", "s3://bucket/x"):
        with pytest.raises(BadSettings, match="source="):
            pipeline.triggered_settings({}, {"source": outside}, own.get, MOMENT)
    with pytest.raises(BadSettings, match="source="):
        pipeline.triggered_settings({}, {"source": str(tmp_path)}, nobody, MOMENT)


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ({"train.epoch": 3}, r"did you mean train\.epochs"),
        ({"train.epochs": 0}, r"train\.epochs=0"),
        ({"ingest.allowed_roots": ["/"]}, r"ingest\.allowed_roots"),
        ({"ingest": {"allowed_roots": ["/"]}}, r"ingest\.allowed_roots"),
        ({"metrics": {"textfile": "/etc/x.prom"}}, r"metrics\.textfile"),
        ({"train": {"epochs": 1}, "train.epochs": 2}, r"train\.epochs: is set twice"),
    ],
)
def test_a_bad_conf_is_refused_by_name(conf: dict[str, Any], says: str) -> None:
    for params in ({}, conf):  # Airflow puts it among the Params, too
        with pytest.raises(BadSettings, match=says):
            pipeline.triggered_settings(params, conf, nobody, MOMENT)


def test_a_group_of_a_conf_goes_before_the_form() -> None:
    conf = {"train": {"epochs": 3}}
    assert pipeline.triggered_settings({"train.epochs": 9, **conf}, conf, nobody, MOMENT).train.epochs == 3


def test_the_operator_sets_what_is_not_in_the_form(tmp_path: Path) -> None:
    own = {"store": str(tmp_path), "prune_keep_days": "7", "prune_keep_runs_days": "null"}
    settings = pipeline.triggered_settings({}, {}, own.get, MOMENT)
    assert (settings.prune.keep_days, settings.prune.keep_runs_days) == (7, None)
    assert settings.prune.keep_versions == 14
    with pytest.raises(BadSettings, match=r"prune\.keep_versions=1"):
        pipeline.triggered_settings({}, {}, {"prune_keep_versions": "1"}.get, MOMENT)
    with pytest.raises(BadSettings, match=r"prune\.keep_days: only the operator"):
        pipeline.triggered_settings({}, {"prune.keep_days": 0}, own.get, MOMENT)


def test_a_task_needs_the_ones_before_it(place: Any) -> None:
    with pytest.raises(BadSettings, match="no run"):
        pipeline.run_task("train", f"{place.store}/nothing")
    store = place.start("run")
    for task in pipeline.TASKS[1:]:
        with pytest.raises(BadSettings, match="not finished"):
            pipeline.run_task(task, store.uri)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, place_at: Any, chains: Any) -> RunStore:
    """A run that has been refitted and published."""
    place = place_at(tmp_path_factory.mktemp("ended"))
    place.write(chains())
    store: RunStore = place.run("run", {"refit.enabled": True})
    return store


@pytest.mark.parametrize("task", [*TASKS, "refit", LAST])
def test_to_run_what_has_ended_again_from_any_task_on_changes_nothing(ended: RunStore, task: str) -> None:
    settings = ended.settings()

    def there() -> dict[str, bytes]:
        files = (file for file in Path(settings.store).parent.rglob("*") if file.is_file())
        return {str(file): file.read_bytes() for file in files if file.suffix != ".lock"}

    before, order = there(), [*pipeline.tasks_of(settings), LAST]
    for each in order[order.index(task) :]:
        run_task(each, ended.uri)
    assert there() == before


def test_new_run_ids_are_valid_and_differ() -> None:
    first = pipeline.new_run_id()
    time.sleep(0.001)
    assert pipeline.new_run_id() != first
    assert RunStore.of("store", first).run_id == first


@pytest.mark.parametrize(
    "table", ["postgresql://user:s3cr3t@host/shop", "x, postgresql://host/shop?password=s3cr3t"]
)
def test_a_password_is_not_kept_in_a_runs_settings(place: Any, table: str) -> None:
    with pytest.raises(BadSettings, match="connection:ID") as raised:
        place.start("run", {"table": table})
    assert "s3cr3t" not in str(raised.value)
    assert not Path(place.store).exists()
