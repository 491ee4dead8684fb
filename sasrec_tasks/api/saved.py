"""A trained recommender in a folder: weights in safetensors, the rest in JSON; nothing pickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sasrec_tasks.api.estimators import (
    SASRecClassifierEstimator,
    SASRecEstimator,
    SASRecRegressorEstimator,
)
from sasrec_tasks.api.scorer import SequentialScorer
from sasrec_tasks.api.vocabulary import Vocabulary
from sasrec_tasks.sasrec.weights import CONFIG_FILE, REMEDY, WEIGHTS_FILE, load_model, save_model

FILE = "recommender.json"
VERSION = 1

ESTIMATORS: dict[str, type[SASRecEstimator]] = {
    kind.__name__: kind for kind in (SASRecClassifierEstimator, SASRecRegressorEstimator)
}


def write(folder: Path, scorer: SequentialScorer, max_len: int | str) -> None:
    """Write a trained scorer, `recommender.json` last: a folder without it is not taken for a whole one."""
    estimator, items = scorer.estimator, scorer.items
    assert estimator.model is not None
    content = {
        "version": VERSION,
        "estimator": type(estimator).__name__,
        # where to compute is the machine's, not the model's
        "settings": {name: value for name, value in estimator.settings.items() if name != "device"},
        "max_len": max_len,
        "items": items.ids.tolist(),
        "popularity": scorer.popularity[1:].tolist(),
    }
    (folder / FILE).unlink(missing_ok=True)
    save_model(estimator.model, folder)
    content["sha256"] = _digests(folder)
    text = json.dumps(content, indent=1, ensure_ascii=False, default=lambda number: number.item())
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[SequentialScorer, Any]:
    """The scorer, trained, and max_len.

    Raises:
        ValueError: a file is missing, damaged, of another version, or does not fit the others.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: save() a trained recommender there first") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: can't be read as JSON ({error}): {REMEDY}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise ValueError(
            f"{path}: is of version {version!r}, this program reads version {VERSION}: save it again with "
            "this program, or load it with the one that wrote it"
        )
    model = load_model(folder)
    try:
        estimator = ESTIMATORS[content["estimator"]](**content["settings"])
        items = Vocabulary(pd.Index(content["items"]))
        popularity = np.array([0.0, *content["popularity"]], dtype=np.float32)
        max_len = content["max_len"]
        for name, digest in _digests(folder).items():
            if content["sha256"][name] != digest:
                raise ValueError(f"{name} is not the file that was saved with it")
        if items.ids.tolist() != content["items"]:
            raise ValueError("item ids are not distinct or not in order")
        if not len(items) == len(popularity) - 1 == model.config.num_items:
            raise ValueError(f"{len(items)} item ids for a model of {model.config.num_items} items")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: does not fit ({error}): {REMEDY}") from error
    estimator.model = model.to(estimator.torch_device)
    scorer = SequentialScorer(estimator)
    scorer.restore(items, popularity)
    return scorer, max_len


def _digests(folder: Path) -> dict[str, str]:
    """By file; num_heads, for instance, could be changed without changing the shape of a weight."""
    digests = {}
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
