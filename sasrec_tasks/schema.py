"""Table contracts: the YAML files of `schemas/` as pandera schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import yaml

from sasrec_tasks.errors import BadSettings

TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
"""Types of the schema files, as the snapshot has them."""

NAMES = {arrow: name for name, arrow in TYPES.items()}


def interactions_schema_file() -> Path:
    """The contract of training interactions: in the repository, or beside the installed package."""
    name = "schemas/interactions_schema_with_timestamp_training.yaml"
    here = Path(__file__).parent
    return next(file for file in (here / name, here.parent / name) if file.exists())


def build_schema(file: Path) -> pandera.DataFrameSchema:
    """The pandera schema of a file in the dialect `columns: - name: …, type: …`.

    Built here since pandera's own reader takes this dialect and drops the types.

    Raises:
        BadSettings: not such a file, or an unknown type or check.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        columns = {str(column["name"]): _column(column) for column in content["columns"]}
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise BadSettings(f"{file}: not a table schema (`columns: - name: …, type: …`): {error}") from error
    return pandera.DataFrameSchema(columns, strict=False)


def arrow_type(column: pandera.Column) -> pa.DataType:
    """The type that a column of such a schema must have."""
    return next(kind for kind in TYPES.values() if column.dtype.type == pd.ArrowDtype(kind))


def _column(column: dict[str, Any]) -> pandera.Column:
    unknown = set(column) - {"name", "type", "nullable", "checks", "what"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r} at column {column['name']}")
    if column["type"] not in TYPES:
        raise ValueError(f"unknown type {column['type']!r}: use {', '.join(TYPES)}")
    checks = []
    for name, argument in (column.get("checks") or {}).items():
        if name == "is_finite":
            checks.append(pandera.Check(_is_finite, name=name))
        elif isinstance(argument, dict):
            checks.append(getattr(pandera.Check, name)(**argument))
        else:
            checks.append(getattr(pandera.Check, name)(argument))
    return pandera.Column(
        pd.ArrowDtype(TYPES[column["type"]]), checks, nullable=bool(column.get("nullable", False))
    )


def _is_finite(values: pd.Series) -> pd.Series:
    with np.errstate(over="ignore"):  # float32 is what the model reads: 1e300 is infinite there
        finite = np.isfinite(values.to_numpy(dtype=float, na_value=np.nan).astype(np.float32))
    return pd.Series(finite, index=values.index)
