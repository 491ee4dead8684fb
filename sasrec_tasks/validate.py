"""Task 2: hold the snapshot against its contract, the YAML file in `schemas/`, and against earlier nights.

Rows that break the contract are set aside with the reason; the run fails when types are wrong, when
too many rows are rejected, when nothing is left, or when the data are too far from what they were
on the nights before. The report is kept either way.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.parquet as pq
from pandera.errors import SchemaErrors

from sasrec_tasks import drift
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import MANIFEST, REJECTED, REPORT, ROWS_AT_ONCE, SNAPSHOT
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.progress import bar
from sasrec_tasks.schema import NAMES, arrow_type, build_schema, interactions_schema_file, reason

log = logging.getLogger(__name__)

EXAMPLES = 3

REJECTED_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the snapshot, from 0
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
        ("file", pa.string()),  # of the source
    ]
)


def run(store: RunStore, settings: Settings) -> Summary:
    """Check every row of the snapshot; write `report.json` and `rejected.parquet`.

    Returns:
        rows, rejected (rows, not reasons), problems (empty), profile, nights and drift.

    Raises:
        BadData: a column of the wrong type, too many rows rejected, none left, or too much drift.
    """
    schema_file = _schema_file(settings)
    schema = build_schema(schema_file)
    snapshot = store.folder("ingest") / SNAPSHOT
    manifest = store.read_json("ingest", MANIFEST)
    limit = settings.validate_.max_rejected_share

    def work(folder: Path) -> Summary:
        found = _check(snapshot, manifest["files"], schema, limit, folder)
        if found["problems"]:
            return found
        rows = found["rows"] - found["rejected"]
        return found | drift.measure(store, settings, snapshot, rows=rows, unit=manifest["timestamp_unit"])

    summary = store.once(
        "validate",
        work,
        reads=["ingest"],
        settings={
            "max_rejected_share": limit,
            "schema": schema_file.read_text(encoding="utf-8"),
            "drift_nights": settings.validate_.drift_nights,
        },
    )
    if summary["problems"]:
        raise BadData(f"{settings.source}: " + "; ".join(summary["problems"]))
    _look_at_drift(summary, settings)
    return summary


def _look_at_drift(summary: Summary, settings: Settings) -> None:
    """Warn or fail. The limits are no part of what was done once: raised, they let the same run go on."""
    warn, fail = (
        limit or math.inf for limit in (settings.validate_.drift_warn, settings.validate_.drift_fail)
    )
    found = drift.of(summary)
    for each in found:
        if each.factor > warn:
            log.warning("validate: drift: %s", each)
    if too_far := [str(each) for each in found if each.factor > fail]:
        raise BadData(
            f"{settings.source}: the data are not what they were on the last {len(summary['nights'])} published "
            f"night(s): {'; '.join(too_far)}; mend the source, or let it through with a higher "
            f"validate.drift_fail (now {fail:g})"
        )


def _schema_file(settings: Settings) -> Path:
    chosen = settings.validate_.schema_file
    return Path(chosen) if chosen else interactions_schema_file()


def _check(
    snapshot: Path, files: list[dict[str, Any]], schema: pandera.DataFrameSchema, limit: float, folder: Path
) -> Summary:
    parquet = pq.ParquetFile(snapshot, pre_buffer=False)
    rows = parquet.metadata.num_rows
    wrong = _wrong_types(parquet.schema_arrow, schema)
    problems = list(wrong.values())
    first_rows = np.cumsum([0, *(file["rows"] for file in files)])
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[Any]] = {}
    rejected_rows = 0
    with pq.ParquetWriter(folder / REJECTED, REJECTED_SCHEMA, compression="zstd") as writer:
        for rejected in _rejected(parquet, schema.remove_columns(wrong)):
            source = np.searchsorted(first_rows, rejected["row"], side="right") - 1
            rejected["file"] = [files[i]["file"] for i in source]
            counts.update(zip(rejected["column"], rejected["reason"], strict=True))
            rejected_rows += rejected["row"].nunique()
            table = pa.Table.from_pandas(rejected, REJECTED_SCHEMA, preserve_index=False)
            writer.write_table(table)
            for key in counts:
                shown = examples.setdefault(key, [])
                if len(shown) < EXAMPLES:
                    same = (rejected["column"] == key[0]) & (rejected["reason"] == key[1])
                    first = np.flatnonzero(same)[: EXAMPLES - len(shown)]
                    shown += table.take(pa.array(first, pa.int64())).to_pylist()

    if rejected_rows == rows:
        problems.append(f"all {rows:,} rows are rejected, nothing is left" + _listed(counts, examples))
    elif rejected_rows / rows > limit:
        problems.append(
            f"{rejected_rows:,} of {rows:,} rows are rejected, more than validate.max_rejected_share={limit:g}"
            + _listed(counts, examples)
        )
    elif rejected_rows:
        log.warning("validate: %s of %s rows rejected%s", rejected_rows, rows, _listed(counts, examples))
    report = {
        "rows": rows,
        "rejected": rejected_rows,
        "reasons": [{"column": c, "reason": r, "count": n} for (c, r), n in counts.most_common()],
        "examples": [example for shown in examples.values() for example in shown],
        "problems": problems,
    }
    write_json(folder / REPORT, report)
    return {"rows": rows, "rejected": rejected_rows, "problems": problems}


def _wrong_types(found: pa.Schema, schema: pandera.DataFrameSchema) -> dict[str, str]:
    """What is wrong with a column, for each that is missing or of another type."""
    problems = {}
    for name, column in schema.columns.items():
        wanted = arrow_type(column)
        if name not in found.names:
            problems[name] = f"missing column {name}"
        elif found.field(name).type != wanted:
            is_id = name in ("USER_ID", "ITEM_ID") and pa.types.is_integer(found.field(name).type)
            remedy = (
                "set ingest.cast_ids=true to take integers as text" if is_id else "convert it in the source"
            )
            problems[name] = f"column {name} is {found.field(name).type}, must be {NAMES[wanted]}: {remedy}"
    return problems


def _rejected(parquet: pq.ParquetFile, schema: pandera.DataFrameSchema) -> Iterator[pd.DataFrame]:
    """The reasons to reject rows, a frame per chunk: row, column, value, reason."""
    # one column at a time: pandera puts the cases of several into one type, which large integers break
    columns = {name: pandera.DataFrameSchema({name: column}) for name, column in schema.columns.items()}
    if not columns:
        return
    first = 0
    with bar("validate", parquet.metadata.num_rows, "rows") as advance:
        for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns)):
            frame = batch.to_pandas(types_mapper=pd.ArrowDtype)
            found = []
            for name, alone in columns.items():
                try:
                    alone.validate(frame[[name]], lazy=True)
                except SchemaErrors as errors:
                    found.append(_reasons(name, batch.column(name), errors.failure_cases, first))
            if found:
                yield pd.concat(found, ignore_index=True).sort_values("row", kind="stable")
            first += len(batch)
            advance(first)


def _reasons(name: str, values: pa.Array, cases: pd.DataFrame, first: int) -> pd.DataFrame:
    """The reasons to reject rows for what stands in one column."""
    impossible = cases[cases["index"].isna()]
    if len(impossible):
        check, said = impossible.iloc[0][["check", "failure_case"]]
        raise BadSettings(f"validate.schema_file: {check} can't be asked of column {name}: {said}")
    cases = cases.drop_duplicates("index")  # a missing value fails its other checks too
    rows = cases["index"].to_numpy(np.int64)
    return pd.DataFrame(
        {
            "row": rows + first,
            "column": name,
            "value": [
                None if value is None else str(value) for value in values.take(pa.array(rows)).to_pylist()
            ],
            "reason": [reason(name, check) for check in cases["check"]],
        }
    )


def _listed(counts: Counter[tuple[str, str]], examples: dict[tuple[str, str], list[Any]]) -> str:
    def shown(key: tuple[str, str]) -> str:
        return ", ".join(
            f"snapshot row {row['row']} (of {row['file']}): {_short(row['value'])}" for row in examples[key]
        )

    return ": " + "; ".join(
        f"{column} {reason} ({count:,} rows, for instance {shown((column, reason))})"
        for (column, reason), count in counts.most_common()
    )


def _short(value: str | None) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"
