"""What consumers rely on, the files of `schemas/`, held against the rows before they are published.

A consumer's tests can hold a table, or rows made up for a test, against the same: `checked` and `checked_popular`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
from pandera.errors import SchemaErrors

from sasrec_tasks.errors import BadData
from sasrec_tasks.naming import shown
from sasrec_tasks.schema import build_schema, reason, schema_file

OF_ALL = ("RUN_ID", "AS_OF")
"""Columns with one value in the whole table."""


def checked(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of the recommendations as they are, whole users in a batch.

    Args:
        rows: in order of USER_ID and RANK; a user may go on in the next batch.

    Raises:
        BadData: a row breaks `schemas/recommendations.yaml`; what was read of it is not published.
    """
    schema = build_schema(schema_file("recommendations"))
    before: pa.RecordBatch | None = None
    for batch in _whole_users(rows):
        _require_columns("recommendations", batch, schema)
        if len(batch):
            users = batch.column("USER_ID")
            _require_lists("recommendations", batch, users.dictionary_encode().indices.to_numpy())
            _require_order(users, before.column("USER_ID")[-1] if before else None)
            _require_same("recommendations", batch, before)
            before = batch
        yield batch


def _whole_users(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows with a user who goes on in the next batch held over to it."""
    held: pa.RecordBatch | None = None
    for batch in rows:
        if not len(batch):
            yield batch
            continue
        if held is not None:
            (batch,) = pa.Table.from_batches([held, batch]).combine_chunks().to_batches()
        users = batch.column("USER_ID")
        others = pc.fill_null(pc.not_equal(users, users[-1]), True).to_numpy(zero_copy_only=False)
        upto = int(others.nonzero()[0][-1]) + 1 if others.any() else 0
        if upto:
            yield batch.slice(0, upto)
        held = batch.slice(upto) if upto < len(batch) else None
    if held is not None:
        yield held


def checked_popular(rows: pa.Table) -> pa.Table:
    """The popular items as they are.

    Raises:
        BadData: a row breaks `schemas/popular_items.yaml`.
    """
    schema = build_schema(schema_file("popular_items"))
    before: pa.RecordBatch | None = None
    for batch in rows.combine_chunks().to_batches():
        _require_columns("popular items", batch, schema)
        _require_lists("popular items", batch, np.zeros(len(batch), dtype=np.int64))
        _require_same("popular items", batch, before)
        before = batch
    return rows


def _require_columns(table: str, batch: pa.RecordBatch, schema: pandera.DataFrameSchema) -> None:
    """That each value is what its column may hold."""
    try:
        schema.validate(batch.to_pandas(types_mapper=pd.ArrowDtype), lazy=True)
    except SchemaErrors as errors:
        column, check, value = errors.failure_cases.iloc[0][["column", "check", "failure_case"]]
        raise _broken(table, f"{column} {reason(column, check)}: {shown(value)}") from errors


def _require_lists(table: str, batch: pa.RecordBatch, users: npt.NDArray[np.integer]) -> None:
    """That each user's ranks are 1, 2, 3, …, the scores fall, and no item is there twice."""
    if not len(batch):
        return
    ranks, scores = batch.column("RANK").to_numpy(), batch.column("SCORE").to_numpy()
    begins = np.ones(len(users), dtype=bool)
    begins[1:] = users[1:] != users[:-1]
    follows = ~begins[1:]
    ranked = (ranks[begins] == 1).all() and (np.diff(ranks)[follows] == 1).all()
    if not ranked or not (np.diff(scores)[follows] <= 0).all() or begins.sum() != len(np.unique(users)):
        raise _broken(table, "RANK: a user's list is not in order from 1")
    items = batch.column("ITEM_ID").dictionary_encode()
    pairs = users.astype(np.int64) * len(items.dictionary) + items.indices.to_numpy()
    order = np.argsort(pairs, kind="stable")
    again = order[1:][np.diff(pairs[order]) == 0]
    if len(again):
        raise _broken(
            table, f"ITEM_ID: is twice in one list: {shown(batch.column('ITEM_ID')[int(again[0])].as_py())}"
        )


def _require_order(users: pa.Array, last: pa.Scalar | None) -> None:
    """That users come in order, after the last one of the batch before."""
    falls = pc.any(pc.greater(users[:-1], users[1:])).as_py()
    if falls or (last is not None and not pc.less(last, users[0]).as_py()):
        raise _broken("recommendations", "USER_ID: users are not in order")


def _require_same(table: str, batch: pa.RecordBatch, before: pa.RecordBatch | None) -> None:
    for name in OF_ALL:
        one = (before or batch).column(name)[0]
        if not pc.all(pc.equal(batch.column(name), one)).as_py():
            raise _broken(table, f"{name}: is not the same in the whole table")


def _broken(table: str, what: str) -> BadData:
    return BadData(f"{table}: {what}: nothing was published")
