"""Table contracts: the YAML files of `schemas/` as pandera schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa

from sasrec_tasks import plain_yaml
from sasrec_tasks.errors import BadSettings

TYPES = {
    "str": pa.string(),
    "int": pa.int64(),
    "int32": pa.int32(),
    "float": pa.float64(),
    "float32": pa.float32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
"""Types of the schema files, as snapshots have them."""

NAMES = {arrow: name for name, arrow in TYPES.items()}


def interactions_schema_file() -> Path:
    """The contract of training interactions."""
    return schema_file("interactions_schema_with_timestamp_training")


def schema_file(name: str) -> Path:
    """A contract of `schemas/`: in the repository, or beside the installed package."""
    here = Path(__file__).parent
    files = (folder / "schemas" / f"{name}.yaml" for folder in (here, here.parent))
    return next(file for file in files if file.exists())


def build_schema(file: Path) -> pandera.DataFrameSchema:
    """The pandera schema of a file in the dialect `columns: - name: …, type: …`.

    Built here since pandera's own reader takes this dialect and drops the types.

    Raises:
        BadSettings: not such a file, or an unknown type or check.
    """
    try:
        content = plain_yaml.load(file.read_text(encoding="utf-8"))
        columns = {str(column["name"]): _column(column) for column in content["columns"]}
    except (OSError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise BadSettings(f"{file}: not a table schema (`columns: - name: …, type: …`): {error}") from error
    return pandera.DataFrameSchema(columns, strict=False)


def arrow_type(column: pandera.Column) -> pa.DataType:
    """The type that a column of such a schema must have."""
    return next(kind for kind in TYPES.values() if column.dtype.type == pd.ArrowDtype(kind))


def _column(column: dict[str, Any]) -> pandera.Column:
    unknown = set(column) - {"name", "type", "nullable", "required", "checks", "what"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r} at column {column['name']}")
    if column["type"] not in TYPES:
        raise ValueError(f"unknown type {column['type']!r}: use {', '.join(TYPES)}")
    checks = [OWN_CHECKS["has_no_nul"]] if column["type"] == "str" else []
    for name, argument in (column.get("checks") or {}).items():
        if name in OWN_CHECKS:
            checks.append(OWN_CHECKS[name])
        elif isinstance(argument, dict):
            checks.append(getattr(pandera.Check, name)(**argument))
        else:
            checks.append(getattr(pandera.Check, name)(argument))
    return pandera.Column(
        pd.ArrowDtype(TYPES[column["type"]]),
        checks,
        nullable=bool(column.get("nullable", False)),
        required=bool(column.get("required", True)),
    )


def reason(column: str, check: str) -> str:
    """What a value has that fails a pandera check, in words."""
    if column == "TIMESTAMP" and check == "greater_than_or_equal_to(0)":
        return "is not a time (before 1970)"
    known = {
        "not_nullable": "is missing",
        "is_finite": "is not a finite number",
        "str_length(1, None)": "is empty",
        "has_no_nul": "has a NUL character, which databases don't take",
    }
    return known.get(check, f"fails {check}")


def _is_finite(values: pd.Series) -> pd.Series:
    with np.errstate(over="ignore"):  # float32 is what the model reads: 1e300 is infinite there
        finite = np.isfinite(values.to_numpy(dtype=float, na_value=np.nan).astype(np.float32))
    return pd.Series(finite, index=values.index)


def _has_no_nul(values: pd.Series) -> pd.Series:
    return ~values.str.contains("\0", regex=False)


OWN_CHECKS = {
    "is_finite": pandera.Check(_is_finite, name="is_finite"),
    "has_no_nul": pandera.Check(_has_no_nul, name="has_no_nul"),
}
"""By name, beside pandera's; text is always held against the second."""
