"""The guide's code runs as it stands."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sasrec_tasks.api import SASRecClassifierEstimator
from sasrec_tasks.config import Train

DEFAULTS = SASRecClassifierEstimator().settings
UNREAD = {"num_negatives", "negative_sampling", "batch_size", "max_minutes", "device"}
"""By softmax and batches by slots; or of the place, not of the model."""

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The CSVs that the guide reads, in the working directory."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{(user + step) % 20:02}", 1.0, 1_700_000_000 + step)
        for user in range(60)
        for step in range(int(random.integers(4, 9)))
    ]
    events = pd.DataFrame(rows, columns=["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"])
    from_the_end = events.groupby("USER_ID").cumcount(ascending=False)
    events.to_csv(tmp_path / "train.csv", index=False)
    events[from_the_end == 1].to_csv(tmp_path / "valid.csv", index=False)
    events[from_the_end >= 1].drop(columns="OUTCOME").to_csv(tmp_path / "recent.csv", index=False)
    events[["ITEM_ID"]].drop_duplicates().to_csv(tmp_path / "items.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return events


def test_all_its_code_runs_in_order(files: pd.DataFrame) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(block, names)
    top = names["top"]
    assert isinstance(top, pd.DataFrame)
    assert list(top.columns) == ["USER_ID", "RANK", "ITEM_ID", "SCORE", "ORIGIN"]
    assert top["USER_ID"].nunique() == 60
    best = names["best"]
    assert isinstance(best, SASRecClassifierEstimator)
    pipeline = {**Train().model_dump(), "loss": "softmax"}  # what "auto" is for a small catalogue
    given = {name: value for name, value in best.settings.items() if value != DEFAULTS[name]}
    assert given == {name: pipeline[name] for name in given}
    same = best.settings.keys() & pipeline.keys() - given.keys() - UNREAD
    assert {name: best.settings[name] for name in same} == {name: pipeline[name] for name in same}
    test = names["test"]
    assert isinstance(test, pd.DataFrame)
    assert len(test) == 60
