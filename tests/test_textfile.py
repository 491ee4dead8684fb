"""The last run's figures, as Prometheus reads them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sasrec_tasks import failures, pipeline, runs, textfile
from sasrec_tasks.errors import GateRefused
from sasrec_tasks.tables import open_tables


def samples(text: str) -> dict[tuple[str, str], float]:
    """Metric and task → value; the labels of all samples name the table."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            assert sample.labels["table"]
            found[sample.name, sample.labels.get("task", "")] = sample.value
    return found


def test_a_published_night_tells_seconds_rows_metrics_version_and_age(place: Any) -> None:
    file = place.folder / "collector" / "sasrec.prom"
    store = place.run("run", {"metrics.textfile": str(file)})
    found = samples(file.read_text())
    (row,) = runs.read(f"{place.table}_runs").to_pylist()
    assert found["sasrec_run_seconds", ""] == row["SECONDS"] > 0
    assert found["sasrec_run_rows", ""] == row["ROWS"]
    assert found["sasrec_run_ndcg_at_10", ""] == row["NDCG"]
    assert found["sasrec_run_hr_at_10", ""] == row["HR"]
    assert found["sasrec_run_published", ""] == 1
    assert found["sasrec_table_version", ""] == 0
    assert found["sasrec_table_as_of_timestamp_seconds", ""] == store.settings().as_of.timestamp()
    for task, told in json.loads(row["TASKS"]).items():
        assert found["sasrec_task_seconds", task] == told["seconds"]
        assert found["sasrec_task_peak_bytes", task] == told["peak_mb"] * 1e6
    assert [path.name for path in file.parent.iterdir()] == ["sasrec.prom"]
    assert file.stat().st_mode & 0o044 == 0o044  # the collector is another user


def test_a_refused_night_tells_of_itself_and_of_what_is_still_served(place: Any, bad: dict[str, Any]) -> None:
    file = str(place.folder / "sasrec.prom")
    place.run("good", {"metrics.textfile": file})
    with pytest.raises(GateRefused):
        place.run("bad", {**bad, "as_of": "2026-01-02", "metrics.textfile": file})
    text = Path(file).read_text()
    found = samples(text)
    assert 'run_id="bad"' in text
    assert found["sasrec_run_published", ""] == 0
    assert found["sasrec_table_version", ""] == 0
    assert found["sasrec_table_as_of_timestamp_seconds", ""] < found["sasrec_run_as_of_timestamp_seconds", ""]


def test_what_is_not_known_is_left_out(finished: Any) -> None:
    row = runs.read(f"{finished.table}_runs").to_pylist()[0]
    unknown = {
        **row,
        "NDCG": None,
        "HR": None,
        "TASKS": json.dumps({"ingest": {"seconds": 1.5, "peak_mb": None}}),
    }
    found = samples(textfile.as_text(unknown, finished.table, None))
    assert found["sasrec_task_seconds", "ingest"] == 1.5
    assert not {"sasrec_run_ndcg_at_10", "sasrec_task_peak_bytes", "sasrec_table_version"} & {
        name for name, _ in found
    }


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_run_id_and_table_come_back_as_they_were(text: str) -> None:
    labels = textfile._labels({"run_id": text})
    families = list(text_string_to_metric_families(f"# TYPE a gauge\na{labels} 1.0\n"))
    assert families[0].samples[0].labels == {"run_id": text}


@pytest.mark.parametrize("file", ["sasrec.txt", "is-a-file/sasrec.prom"])
def test_a_file_that_can_not_be_is_a_warning(place: Any, caplog: pytest.LogCaptureFixture, file: str) -> None:
    (place.folder / "is-a-file").touch()
    with caplog.at_level(logging.WARNING):
        place.run("run", {"metrics.textfile": str(place.folder / file)})
    assert "metrics.textfile" in caplog.text
    assert next(open_tables(place.table).published()).run_id == "run"


def test_a_night_whose_task_was_killed_is_in_the_table_of_runs_and_in_the_text_file(place: Any) -> None:
    file = place.folder / "sasrec.prom"
    place.run("good", {"metrics.textfile": str(file), "gate.force_publish": True, "train.epochs": 1})
    lost = place.run("lost", {"as_of": "2026-01-02", "metrics.textfile": str(file)}, upto="split")
    assert samples(file.read_text())["sasrec_run_published", ""] == 1
    pipeline.record_failed(lost.uri, {"train": ""})
    found = samples(file.read_text())
    assert 'run_id="lost"' in file.read_text()
    assert found["sasrec_run_published", ""] == 0
    assert found["sasrec_table_version", ""] == 0
    row = runs.read(f"{place.table}_runs").to_pylist()[-1]
    assert (row["RUN_ID"], row["ENDING"], row["TASK"], row["REASON"]) == (
        "lost",
        "failed",
        "train",
        failures.UNKNOWN,
    )
    assert row["USERS"] == 100  # what the tasks before have found


def test_a_command_line_s_run_that_fails_in_any_way_is_written_down(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.start("run")
    monkeypatch.setattr("sasrec_tasks.split.run", fails)
    with pytest.raises(OSError, match="disk full"):
        pipeline.run_all(store)
    (row,) = runs.read(f"{place.table}_runs").to_pylist()
    assert (row["ENDING"], row["TASK"], row["REASON"]) == ("failed", "split", "OSError: disk full")


def fails(*_: Any) -> None:
    raise OSError("disk full")


def test_a_run_that_has_said_how_it_ended_keeps_its_row(place: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(GateRefused) as refused:
        place.run("run", bad)
    url = f"{place.table}_runs"
    before = runs.read(url)
    pipeline.record_failed(
        f"{place.store}/run", {"gate": failures.said(refused.value), "prune": "OSError: x"}
    )
    assert runs.read(url).equals(before)
    pipeline.record_failed(f"{place.store}/run", {"prune": "OSError: no part of the run"})
    assert runs.read(url).equals(before)
