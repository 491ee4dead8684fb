"""Defaults and bounds: what the issue promises, by the names that people use."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from sasrec_tasks.config import GROUPS, Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import as_names, from_names
from sasrec_tasks.pipeline import LAST, REFIT, TASKS

DEFAULTS: dict[str, Any] = {
    "train.hidden_units": 64,
    "train.num_blocks": 2,
    "train.num_heads": 2,
    "train.dropout_rate": 0.1,
    "train.num_negatives": 1024,
    "train.negative_sampling": "shared",
    "train.max_len": 200,
    "train.learning_rate": 0.002,
    "train.epochs": 200,
    "train.batch_slots": 4096,
    "train.weight_decay": 0,
    "train.random_state": 42,
    "train.loss": "auto",
    "train.outcome": "implicit",
    "train.early_stopping_patience": 10,
    "train.validation_users": 10_000,
    "validate.max_rejected_share": 0.01,
    "evaluate.negatives": 100,
    "gate.tolerance": 0.02,
    "export.top_k": 10,
    "ingest.default_outcome": None,
    "ingest.timestamp_unit": "auto",
}


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_defaults(name: str, default: Any) -> None:
    assert as_names(Settings())[name] == default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train.epochs", 0),
        ("train.hidden_units", -1),
        ("train.dropout_rate", 1),
        ("train.learning_rate", 0),
        ("train.learning_rate", float("nan")),
        ("train.max_minutes", float("inf")),
        ("train.loss", "hinge"),
        ("train.epochs", 1.5),
        ("train.epochs", True),
        ("validate.max_rejected_share", 1.01),
        ("validate.max_rejected_share", -0.01),
        ("validate.max_rejected_share", float("nan")),
        ("split.min_outcome", float("nan")),
        ("split.memory_limit", "plenty"),
        ("split.memory_limit", "1GB\n"),
        ("ingest.timestamp_unit", "minutes"),
        ("ingest.default_outcome", float("inf")),
        ("ingest.columns", "a: USER_ID"),
        ("export.top_k", 0),
        ("as_of", "yesterday"),
        ("as_of", 20260131),
        ("as_of", "20260131"),
        ("as_of", "0001-01-01T00:00:00+05:00"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(BadSettings) as raised:
        from_names({name: value})
    assert f"{name}={value!r}" in str(raised.value)


def test_a_value_inside_a_mapping_is_refused_by_its_key() -> None:
    with pytest.raises(BadSettings, match=r"ingest\.columns\.who=1"):
        from_names({"ingest.columns": {"who": 1}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train.hidden_units": 50, "train.num_heads": 3}, ("train.", "hidden_units=50", "num_heads=3")),
        ({"train.outcome": "rating", "train.loss": "bce"}, ("train.", 'outcome="rating"', 'loss="mse"')),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values: dict[str, Any], said: tuple[str, ...]) -> None:
    with pytest.raises(BadSettings) as raised:
        from_names(values)
    assert all(part in str(raised.value) for part in said)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01T02:00:00+02:00", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01T00:00:00.000001", datetime(2024, 5, 1, 0, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_as_of_is_a_moment_in_utc(text: str, moment: datetime) -> None:
    assert from_names({"as_of": text}).as_of == moment


def test_settings_can_not_be_changed_in_passing() -> None:
    with pytest.raises(ValidationError):
        Settings().train.epochs = 3


def test_every_task_has_its_group_and_every_setting_a_line_of_help() -> None:
    settings = Settings()
    # metrics: the file for those who scrape; ray: a cluster that tasks may compute on
    assert set(GROUPS) == {*TASKS, REFIT, LAST, "metrics", "ray"}
    for name, group in GROUPS.items():
        assert isinstance(settings.group(name), group)
        for field in group.model_fields.values():
            assert field.description
            assert field.title


def test_settings_and_names_import_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "pandas", "pyarrow", "pandera", "duckdb", "deltalake"]
    code = (
        "import sys, sasrec_tasks.naming, sasrec_tasks.errors; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]", done.stderr
