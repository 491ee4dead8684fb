from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from sasrec_tasks.sasrec.fit_config import CHECKS, FitConfig

WHOLE = ["num_negatives", "epochs", "batch_size", "batch_slots", "early_stopping_patience", "random_state"]
NUMBERS = [
    "learning_rate",
    "max_minutes",
    "weight_decay",
    "warmup_epochs",
    "gbce_t",
    "adam_beta2",
    "average_decay",
]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_integers_of_numpy_are_kept_as_plain_ones(name: str, kind: Any) -> None:
    value = asdict(FitConfig(**{name: kind(3)}))[name]
    assert value == 3
    assert type(value) is int


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), np.int64(0), 0])
def test_numbers_of_every_kind_are_kept_as_floats(name: str, value: Any) -> None:
    kept = asdict(FitConfig(**{name: value}))[name]
    assert kept == value
    assert type(kept) is float


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float64(2), "2", -1, [1]])
def test_what_is_no_whole_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be a whole number of at least [01]\b.*, not "):
        FitConfig(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, "a", float("nan"), float("inf"), 10**400, -0.1, [0.1]])
def test_what_is_no_number_in_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .*, not "):
        FitConfig(**{name: value})


@pytest.mark.parametrize("name", ["adam_beta2", "average_decay"])
def test_an_average_that_never_moves_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be a number in \[0, 1\), not 1\.0"):
        FitConfig(**{name: 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["none", 1, None, ["bce"]])
def test_a_loss_that_is_not_known_is_refused_with_those_that_are(value: Any) -> None:
    with pytest.raises(ValueError, match=r"loss must be one of bce, .*, not "):
        FitConfig(loss=value)


def test_every_setting_is_checked() -> None:
    assert set(asdict(FitConfig())) == set(CHECKS)
