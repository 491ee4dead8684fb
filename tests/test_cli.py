"""`sasrec-tasks` as people and schedulers meet it: exit status, stdout, stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from deltalake import DeltaTable

from sasrec_tasks.pipeline import TASKS

QUICK = ["train.epochs=6", "train.hidden_units=16", "train.max_len=20", "train.learning_rate=0.01"]
USEFUL = [f"--set={each}" for each in (*QUICK, "evaluate.bootstrap_samples=200")]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Command = Callable[..., Ended]


def places(place: Any) -> list[str]:
    return ["--source", place.source, "--store", place.store, "--table", place.table]


def state(folder: str) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


def in_a_process(*arguments: str) -> Ended:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(sys.executable).with_name("sasrec-tasks")
    done = subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_a_process_publishes_and_says_so_as_one_json_object(place: Any) -> None:
    ended = in_a_process("run", *places(place), *USEFUL, "--run-id=r", "--json")
    assert ended.status == 0, ended.err
    result = json.loads(ended.out)
    assert len(ended.out.splitlines()) == 1
    assert {"metrics", "verdict", "table", "version", "resumed_from_epoch", "seconds"} <= result.keys()
    assert (result["table"], result["version"], result["published"]) == (place.table, 0, True)
    assert result["resumed_from_epoch"] is None
    assert set(result["seconds"]) == set(TASKS)
    assert result["metrics"]["users_evaluated"] == 100
    assert DeltaTable(place.table).version() == 0


def test_a_process_ends_with_2_and_one_sentence_on_bad_settings(place: Any) -> None:
    ended = in_a_process("run", *places(place), "--set=train.epochz=5")
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err == "Error: settings: train.epochz: no such setting, did you mean train.epochs?\n"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_refused_model_ends_with_3(command: Command, place: Any, as_json: bool) -> None:
    bad = ["--set=train.epochs=1", "--set=train.learning_rate=1e-9"]
    ended = command("run", *places(place), *USEFUL, *bad, "--run-id=r", *["--json"] * as_json)
    assert ended.status == 3
    assert "Gate refused" in ended.err
    assert "popularity" in ended.err
    assert "Traceback" not in ended.err
    assert not Path(place.table).exists()
    if as_json:
        result = json.loads(ended.out)
        assert (result["published"], result["version"]) == (False, None)
        assert result["verdict"]["publish"] is False
    else:
        assert ended.out == ""
    assert command("gate", "--store", place.store, "--run-id=r").status == 3
    assert command("show", "--store", place.store).status == 0


def test_the_report_is_shown(command: Command, place: Any) -> None:
    ended = command("run", *places(place), *USEFUL, "--run-id=r")
    assert ended.status == 0
    for word in ("Run r", "SASRec", "popularity", "Gate: passed", "Sample recommendations", "version 0"):
        assert word in " ".join(ended.out.split())  # lines are broken at 80 columns
    assert "run r is in" in ended.err
    assert command("show", "--store", place.store, "--run-id=r").out == ended.out
    assert command("show", "--store", place.store).out == ended.out


def change(name: str, values: Callable[[pa.Table], Any]) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.set_column(t.column_names.index(name), name, values(t))


def one_event_each(events: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(events.to_pandas().groupby("USER_ID").head(1), preserve_index=False)


BAD_SOURCES: dict[str, tuple[Callable[[pa.Table], pa.Table], list[str]]] = {
    "missing column": (lambda t: t.drop_columns("ITEM_ID"), ["ITEM_ID", "source.parquet"]),
    "no outcome": (lambda t: t.drop_columns("OUTCOME"), ["OUTCOME", "ingest.default_outcome"]),
    "wrong type": (change("OUTCOME", lambda t: pa.array(["x"] * len(t))), ["OUTCOME", "string", "float"]),
    "integer ids": (change("USER_ID", lambda t: pa.array(range(len(t)))), ["USER_ID", "ingest.cast_ids"]),
    "no rows": (lambda t: t.slice(0, 0), ["source.parquet", "no rows"]),
    "all rejected": (change("OUTCOME", lambda t: pa.array([np.nan] * len(t))), ["OUTCOME", "all"]),
    "one user": (change("USER_ID", lambda t: pa.array(["u"] * len(t))), ["USER_ID", "one user"]),
    "single events": (one_event_each, ["USER_ID", "events"]),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_bad_data_ends_with_1_and_leaves_the_table(
    command: Command, finished: Any, place: Any, chains: Any, name: str
) -> None:
    spoil, words = BAD_SOURCES[name]
    place.write(spoil(chains()))
    place.table = finished.table
    before = state(place.table)
    ended = command("run", *places(place), *USEFUL, "--set=validate.drift_fail=null", "--json")
    assert ended.status == 1
    assert ended.out == ""
    assert "Traceback" not in ended.err
    error = ended.err[ended.err.index("Error: ") :]
    for word in words:
        assert word in error
    assert state(place.table) == before


@pytest.mark.parametrize("damage", ["empty", "truncated", "missing", "text"])
def test_a_damaged_file_is_named(command: Command, finished: Any, place: Any, damage: str) -> None:
    file = Path(place.source)
    whole = file.read_bytes()
    content = {"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"not parquet at all"}
    file.unlink() if damage == "missing" else file.write_bytes(content[damage])
    place.table = finished.table
    before = state(place.table)
    ended = command("run", *places(place), *USEFUL)
    assert ended.status == 1
    assert place.source in ended.err
    assert "Traceback" not in ended.err
    assert state(place.table) == before


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["train.epochs=0"], ["train.epochs=0"]),
        (["train.hidden_units=50", "train.num_heads=3"], ["train.hidden_units=50", "num_heads=3"]),
        (["train.epoch=3"], ["train.epoch", "did you mean train.epochs?"]),
        (["top_k=3"], ["top_k", "did you mean export.top_k?"]),
        (["train.outcome=rating", "train.loss=bce"], ['outcome="rating"', 'loss="mse"']),
        (["train.learning_rate=1000"], ["train.learning_rate=1000"]),
        (["train.epochs"], ["train.epochs", "name=value"]),
        (["train.epochs=many"], ["train.epochs='many'"]),
        (["train.epochs=0", "gate.toleranze=1"], ["train.epochs=0", "gate.tolerance"]),
    ],
)
def test_bad_settings_end_with_2_and_are_named(
    command: Command, finished: Any, place: Any, assignments: list[str], words: list[str]
) -> None:
    place.table = finished.table
    before = state(place.table)
    ended = command("run", *places(place), *[f"--set={each}" for each in assignments])
    assert ended.status == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err
    assert state(place.table) == before
    assert not Path(place.store).exists()


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["no-such-command"], ["run", "--as-of=someday"]])
def test_bad_usage_ends_with_2(command: Command, place: Any, arguments: list[str]) -> None:
    more = places(place) if arguments[0] == "run" else []
    ended = command(*arguments, *more)
    assert ended.status == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err


def test_a_source_outside_the_allowed_roots_is_refused(command: Command, place: Any) -> None:
    roots = f"--set=ingest.allowed_roots=[{place.folder}]"
    place.source = "/etc"
    ended = command("run", *places(place), roots)
    assert ended.status == 2
    assert "source='/etc'" in ended.err


def test_settings_come_from_file_then_set_then_options(command: Command, place: Any, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    nested = {"train": {"epochs": 99, "hidden_units": 8}, "export.top_k": 3, "source": "nowhere"}
    file.write_text(yaml.safe_dump(nested))
    ended = command("run", *places(place), "--config", str(file), *USEFUL, "--run-id=r", "--json")
    assert ended.status == 0, ended.err
    settings = json.loads((Path(place.store) / "r" / "settings.json").read_text())
    assert settings["train.epochs"] == 6
    assert settings["export.top_k"] == 3
    assert settings["source"] == place.source
    assert DeltaTable(place.table).to_pyarrow_table()["RANK"].to_numpy().max() == 3


@pytest.mark.parametrize("content", [None, "train: [", "- a\n- b", "train: {epochz: 3}"])
def test_a_bad_settings_file_is_named(command: Command, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "settings.yaml"
    if content is not None:
        file.write_text(content)
    ended = command("run", "--config", str(file))
    assert ended.status == 2
    assert ("epochz" if content and "epochz" in content else str(file)) in ended.err
    assert "Traceback" not in ended.err


def test_tasks_run_one_by_one_with_the_settings_of_the_run(command: Command, place: Any) -> None:
    run = ["--store", place.store, "--run-id", "r"]
    begun = command("ingest", *places(place), *USEFUL, "--run-id=r", "--json")
    assert begun.status == 0
    assert json.loads(begun.out)["run_id"] == "r"
    for task in TASKS[1:]:
        ended = command(task, *run, "--json")
        assert ended.status == 0, ended.err
        assert isinstance(json.loads(ended.out), dict)
        assert len(ended.out.splitlines()) == 1
    assert json.loads(ended.out)["version"] == 0
    assert command("ingest", *run).status == 0
    assert command("export", *run).status == 0
    assert DeltaTable(place.table).version() == 0


def test_ingest_keeps_the_settings_of_a_run_unless_told_otherwise(
    command: Command, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["--store", place.store, "--run-id", "r"]
    assert command("ingest", *places(place), "--set=train.epochs=3", "--run-id=r").status == 0
    monkeypatch.setenv("SASREC_SOURCE", "elsewhere")
    settings = Path(place.store) / "r" / "settings.json"
    assert command("ingest", *run).status == 0
    assert json.loads(settings.read_text())["source"] == place.source
    other = Path(place.source).with_name("other.parquet")
    other.write_bytes(Path(place.source).read_bytes())
    assert command("ingest", *run, "--table", place.table, "--source", str(other)).status == 0
    assert json.loads(settings.read_text())["source"] == str(other)


@pytest.mark.parametrize("task", [*TASKS[1:], "show"])
def test_a_task_of_a_run_that_is_not_there_ends_with_2(command: Command, tmp_path: Path, task: str) -> None:
    for arguments, word in (
        (["--run-id", "r"], "store"),
        (["--store", str(tmp_path), "--run-id", "r"], "no run of this id"),
    ):
        ended = command(task, *arguments)
        assert ended.status == 2
        assert word in ended.err
        assert "Traceback" not in ended.err


def test_generate_writes_interactions_and_says_what_can_be_reached(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo.parquet"
    sizes = ["--users=100", "--items=2000", "--events=2000", "--seed=1"]
    ended = command("generate", *sizes, "--out", str(out))
    assert ended.status == 0
    assert 0.4 < json.loads(ended.out)["best_hr10"] < 0.7
    assert pq.read_metadata(out).num_rows == 2000
    refused = command("generate", "--users=100", "--items=5", "--events=2000", "--out", str(out))
    assert refused.status == 2
    assert "items is 5" in refused.err


def test_help_names_every_command(command: Command) -> None:
    ended = command("--help")
    assert ended.status == 0
    for name in ("run", *TASKS, "recommend", "check", "rollback", "prune", "generate", "show"):
        assert name in ended.out
