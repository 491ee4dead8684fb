"""The snippets of scikit-rec's page on SASRec, run word for word with other import lines.

The page is not ours to keep: SCIKIT_REC_PAGE names a file with its text (indentation may be lost), by default
one in a folder `shared/reference` beside the repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sasrec_tasks.api import InteractionsDataset, ItemsDataset, SASRecClassifierEstimator
from sasrec_tasks.api.estimators import SASRecEstimator
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.schema import build_schema

BESIDE = Path(__file__).parents[3] / "shared" / "reference" / "scikit-rec-sasrec-page.txt"
PAGE = Path(os.environ.get("SCIKIT_REC_PAGE") or BESIDE)

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="there is no copy of the page: SCIKIT_REC_PAGE names none"
)

Run = Callable[[str, str], dict[str, Any]]


def snippet(first: str, last: str) -> str:
    """From the line that starts with `first` to the next one that starts with `last`, imports changed."""
    text = PAGE.read_text(encoding="utf-8")
    start = re.search(rf"^{re.escape(first)}", text, re.MULTILINE)
    assert start, first
    end = re.compile(rf"^{re.escape(last)}.*$", re.MULTILINE).search(text, start.start())
    assert end, last
    code = text[start.start() : end.end()]
    return re.sub(r"^from skrec\.\S+ import", "from sasrec_tasks.api import", code, flags=re.MULTILINE)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes two epochs whatever is asked for."""
    real = SASRecEstimator._fit_config

    def capped(self: SASRecEstimator) -> FitConfig:
        return replace(real(self), epochs=min(real(self).epochs, 2))

    monkeypatch.setattr(SASRecEstimator, "_fit_config", capped)


@pytest.fixture
def run(circle: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs snippets in one notebook, which holds the tables that the page takes for granted."""
    monkeypatch.chdir(tmp_path)
    items = ItemsDataset(circle[["ITEM_ID"]].drop_duplicates())
    valid = InteractionsDataset(circle[circle.groupby("USER_ID").cumcount(ascending=False) == 1])
    notebook: dict[str, Any] = {
        "items_dataset": items,
        "items_ds": items,
        "interactions_dataset": InteractionsDataset(circle),
        "interactions_ds": InteractionsDataset(circle),
        "valid_interactions_ds": valid,
        "valid_inter_ds": valid,
        "recent_interactions_df": circle[["USER_ID", "ITEM_ID", "TIMESTAMP"]],
        "interactions": circle.copy(),
        "interactions_df": circle.assign(rating=[1, 2, 3, 4, 5] * 24),
        "SASRecClassifierEstimator": SASRecClassifierEstimator,
    }

    def run(first: str, last: str) -> dict[str, Any]:
        exec(snippet(first, last), notebook)
        return notebook

    return run


@pytest.fixture
def started(run: Run) -> dict[str, Any]:
    """The notebook after the quick start, whose last bracket closes `recommend(`."""
    return run("from skrec.estimator", "top_k=10,\n)")


def test_quick_start(started: dict[str, Any]) -> None:
    assert started["recs"].groupby("USER_ID").size().tolist() == [10] * 20


def test_all_arguments(run: Run) -> None:
    run("SASRecClassifierEstimator(\nhidden_units", ")")


def test_early_stopping(started: dict[str, Any], run: Run) -> None:
    notebook = run("estimator = SASRecClassifierEstimator(\nepochs=200, # Upper bound — acts", ")")
    notebook["recommender"].scorer.estimator = notebook["estimator"]
    run("recommender.train(\nitems_ds=items_ds", ")")
    assert len(notebook["estimator"].result.history) == 2


def test_the_validation_split_and_its_left_over_column(started: dict[str, Any], run: Run) -> None:
    notebook = run('interactions["rank"]', "valid_df =")
    notebook["train_df"].to_csv("train.csv", index=False)
    notebook["valid_df"].to_csv("valid.csv", index=False)
    assert "rank" in pd.read_csv("valid.csv")
    run("interactions_ds = InteractionsDataset(", "valid_inter_ds =")
    run("recommender.train(\nitems_ds=items_ds", ")")
    assert notebook["recommender"].scorer.estimator.result.history[-1].metric is not None


def test_typed_interactions(started: dict[str, Any], run: Run) -> None:
    notebook = run("import pandas as pd\ninteractions_df", "})")
    notebook["recommender"].scorer.estimator.early_stopping_patience = None
    notebook["recommender"].train(interactions_ds=notebook["interactions_df"])


def test_the_schema(run: Run, tmp_path: Path) -> None:
    lines = snippet("columns:", "type: int").splitlines()
    file = tmp_path / "schema.yaml"
    file.write_text("\n".join(f"  {line}" if line.startswith("type") else line for line in lines))
    assert list(build_schema(file).columns) == ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]


@pytest.mark.parametrize("first", [
    'interactions_df["OUTCOME"] =',
    "from skrec.estimator.sequential.sasrec_estimator import SASRecRegressorEstimator",
    "# Recommended production config",
])  # fmt: skip
def test_estimators_of_other_kinds_train(started: dict[str, Any], run: Run, first: str) -> None:
    notebook = run(first, ")")
    notebook["recommender"].scorer.estimator = notebook["estimator"]
    notebook["recommender"].train(
        interactions_ds=notebook["interactions_df"], valid_interactions_ds=notebook["valid_interactions_ds"]
    )
    assert notebook["estimator"].result is not None


def test_every_value_that_the_page_names_is_taken(circle: pd.DataFrame) -> None:
    lines = re.findall(r"^([a-z_]+=[\d.e-]+)(?: #.*)?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"epochs=500", "epochs=50", "max_len=20", "num_negatives=10", "weight_decay=1e-4"} <= set(lines)
    for line in lines:
        estimator = eval(f"SASRecClassifierEstimator({line})")
        assert getattr(estimator, line.split("=")[0]) == float(line.split("=")[1])
