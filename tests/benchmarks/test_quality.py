"""The benchmark scripts run on any parquet and say what they measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ablation
import optuna
import peers_quality
import pytest
import quality
import search

from sasrec_tasks.api import SASRecClassifierEstimator
from sasrec_tasks.naming import from_names, read_yaml

QUICK = ["train.epochs=3", "train.hidden_units=8", "train.max_len=10", "evaluate.bootstrap_samples=100"]


@pytest.fixture
def call(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a script's `main` on the place's source; the folder of its results."""

    def run(module: Any, *arguments: str) -> Path:
        own = ["--source", place.source, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", [module.__name__, *own, *arguments])
        module.main()
        return tmp_path / "out"

    return run


@pytest.mark.parametrize(
    "file", sorted((quality.HERE / "recipes").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_recipe_is_of_known_settings(file: Path) -> None:
    from_names(read_yaml(file))


def test_a_recipe_is_measured_and_drawn(call: Any) -> None:
    changed = [part for each in QUICK for part in ("--set", each)]
    with pytest.raises(SystemExit):  # the name would be that of the recipe as it is
        call(quality, "--recipe", "paper", *changed)
    out = call(quality, "--recipe", "paper", "--name", "source.paper", *changed)
    report = json.loads((out / "source.paper.json").read_text())
    assert report["recipe"] == "paper"
    assert report["settings"]["train.epochs"] == 3
    assert report["curve"]["epoch"] == [1, 2, 3]
    assert report["data"]["users"] == 100
    assert set(report["data"]["sha256_of_split"]) == {"items.npy", "offsets.npy"}
    low, high = report["metrics"]["full"]["ci95"]["hr@10"]
    assert low <= report["metrics"]["full"]["hr@10"] <= high
    assert "torch" in report["versions"]
    assert "<svg" in (out / "source.paper.svg").read_text()


def test_a_search_goes_on_where_it_stopped_and_counts_its_trials(call: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fixed = [part for each in QUICK for part in ("--set", each)]
    space = ["--space", "train.dropout_rate=0.1:0.5", "train.loss=softmax,bce", "train.num_heads=1:2"]
    call(search, "--trials", "1", *fixed, *space)
    out = call(search, "--trials", "3", *fixed, *space)
    report = json.loads((out / "source.pipeline.search.json").read_text())
    assert len(report["trials"]) == 3
    assert len({trial["settings"]["train.dropout_rate"] for trial in report["trials"]}) == 3
    with pytest.raises(SystemExit, match=r"holds a study of .*name another --work"):
        call(search, "--trials", "4", *fixed, "--space", "train.dropout_rate=0.1:0.9")
    for trial in report["trials"]:
        assert set(trial["settings"]) == {"train.dropout_rate", "train.loss", "train.num_heads"}
        assert trial["state"] == "pruned" or 0 <= trial["value"] <= 1


def test_setups_are_measured_without_peers(call: Any) -> None:
    out = call(
        peers_quality, "--epochs", "2", "--max-len", "10", "--setups", "positives", "soft", "rating", "--protocols",
        "honest", "leaked",
    )  # fmt: skip
    rows = json.loads((out / "source.peers.json").read_text())["rows"]
    assert [(row["setup"], row["protocol"], row["model"]) for row in rows] == [
        (setup, protocol, model)
        for setup in ("positives", "soft", "rating")
        for protocol, model in (
            ("honest", "ours"),
            ("honest", "popularity"),
            ("honest", "recent popularity"),
            ("leaked", "ours"),
        )
    ]
    assert all(0 <= row["sampled"]["hr@10"] <= 1 for row in rows)
    out = call(
        peers_quality, "--epochs", "2", "--max-len", "10", "--setups", "rating", "--protocols", "leaked"
    )
    again = json.loads((out / "source.peers.json").read_text())["rows"]
    assert [row for row in again if row["setup"] != "rating"] == [
        row for row in rows if row["setup"] != "rating"
    ]
    assert len(again) == len(rows)


def test_ours_has_the_notebook_defaults_beside_peers() -> None:
    settings = from_names({f"train.{name}": value for name, value in peers_quality.OURS.items()}).train
    defaults = SASRecClassifierEstimator().settings
    shared = settings.model_dump().keys() & defaults.keys() - {"loss", "device"}
    assert {name: getattr(settings, name) for name in shared} == {name: defaults[name] for name in shared}


def test_an_ablation_goes_on_where_it_stopped(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    measured = ablation.measured

    def counted(*arguments: Any) -> dict[str, float]:
        trained.append(1)
        return measured(*arguments)

    monkeypatch.setattr(ablation, "measured", counted)
    arguments = ["--minutes", "0.01", "--seeds", "1", "2", "--variants", "recipe"]
    call(ablation, *arguments)
    out = call(ablation, *arguments, "plain blocks")
    rows = json.loads((out / "source.pipeline.ablation.json").read_text())["rows"]
    assert len(trained) == 4
    assert set(rows) == {"recipe", "plain blocks"}
    assert set(rows["recipe"]["runs"]) == {"1", "2"}
    values = [run["full ndcg@10"] for run in rows["recipe"]["runs"].values()]
    assert rows["recipe"]["mean"]["full ndcg@10"] == pytest.approx(sum(values) / 2)
    for other in (["--minutes", "0.02"], ["--epochs", "1"]):
        with pytest.raises(SystemExit, match="other settings or another budget"):
            call(ablation, *other, "--seeds", "1", "--variants", "recipe")


def test_the_budget_of_an_ablation_may_be_epochs(call: Any) -> None:
    out = call(ablation, "--epochs", "2", "--seeds", "1", "--variants", "recipe")
    report = json.loads((out / "source.pipeline.ablation.json").read_text())
    assert report["epochs"] == 2
    assert "minutes" not in report
    assert report["rows"]["recipe"]["runs"]["1"]["epochs"] == 2
    out = call(ablation, "--recipe", "ten_minutes", "--epochs", "2", "--seeds", "1", "--variants", "recipe")
    report = json.loads((out / "source.ten_minutes.ablation.json").read_text())
    assert report["rows"]["recipe"]["runs"]["1"]["epochs"] == 2
