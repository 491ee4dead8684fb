"""What consumers rely on, `schemas/recommendations.yaml`, held against the rows before they are published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from pandera.errors import SchemaErrors

from sasrec_tasks.errors import BadData
from sasrec_tasks.schema import build_schema, reason, schema_file


def checked(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows as they are, whole users in a batch.

    Raises:
        BadData: a row breaks the contract; what was read of it is not published.
    """
    schema = build_schema(schema_file("recommendations"))
    for batch in rows:
        try:
            schema.validate(batch.to_pandas(types_mapper=pd.ArrowDtype), lazy=True)
        except SchemaErrors as errors:
            column, check, value = errors.failure_cases.iloc[0][["column", "check", "failure_case"]]
            raise BadData(
                f"recommendations: {column} {reason(column, check)}: {value!r}: nothing was published"
            ) from errors
        _require_lists(batch)
        yield batch


def _require_lists(batch: pa.RecordBatch) -> None:
    """That each user's ranks are 1, 2, 3, …, and the scores fall."""
    if not len(batch):
        return
    users = batch.column("USER_ID").dictionary_encode().indices.to_numpy()
    ranks, scores = batch.column("RANK").to_numpy(), batch.column("SCORE").to_numpy()
    begins = np.ones(len(users), dtype=bool)
    begins[1:] = users[1:] != users[:-1]
    follows = ~begins[1:]
    ranked = (ranks[begins] == 1).all() and (np.diff(ranks)[follows] == 1).all()
    if not ranked or not (np.diff(scores)[follows] <= 0).all() or begins.sum() != len(np.unique(users)):
        raise BadData("recommendations: RANK: a user's list is not in order from 1: nothing was published")
