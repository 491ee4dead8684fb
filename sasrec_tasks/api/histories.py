"""Tables of interactions → each user's items in order of time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from sasrec_tasks.api.vocabulary import Vocabulary, checked_ids, of_one_kind
from sasrec_tasks.sasrec.sequences import HeldOut, Int64, Sequences

KEY = ["USER_ID", "ITEM_ID", "TIMESTAMP"]
"""What makes two rows the same event."""

UNITS_APART = 300
"""Ratio of two tables' median times from which on they are of different units, of which the next is 1,000 times as
long."""

TOO_HIGH = 2**63
"""What int64 does not hold."""


@dataclass(frozen=True, kw_only=True)
class Histories:
    """Every user of a table, in order of id, with the items that the model knows."""

    users: npt.NDArray[Any]  # (users,) ids as they came
    sequences: Sequences  # users sequences; rows with the same TIMESTAMP keep their order
    train: Sequences  # the same, each up to its first event that is held out
    held: npt.NDArray[np.bool_]  # (events,) whether the event is held out for validation


def histories(frame: pd.DataFrame, vocabulary: Vocabulary, name: str, *, above: int = 1) -> Histories:
    """Sort a table of interactions; items outside the vocabulary are skipped, with a warning.

    Args:
        above: calls between this one and the line that the warning points at.

    Raises:
        ValueError: no row, a column is missing, a value is missing or of a type that has no order.
    """
    frame = checked(frame, name)
    return _sorted(frame, vocabulary, name, np.zeros(len(frame), dtype=bool), stacklevel=above + 3)


def histories_with_validation(
    frame: pd.DataFrame, validation: pd.DataFrame, vocabulary: Vocabulary, name: str, validation_name: str
) -> Histories:
    """Sort the events of both tables into one history per user, those of `validation` marked.

    An event of `validation` may stand in `frame` too (as where a validation table is cut out of all
    interactions); it is one event. Of events with the same TIMESTAMP, one that stands in `validation`
    alone comes last.

    Raises:
        ValueError: as `histories`, or times are moments in one table and numbers in the other.
    """
    moments = [pd.api.types.is_datetime64_any_dtype(table["TIMESTAMP"]) for table in (frame, validation)]
    frame, validation = checked(frame, name), checked(validation, validation_name)
    if moments[0] != moments[1]:
        raise ValueError(
            f"TIMESTAMP is of one type in {name} and of another in {validation_name}: the same event could "
            "not be found in both, and would be trained on: make the types the same"
        )
    if not moments[0]:
        _require_same_unit(frame["TIMESTAMP"], validation["TIMESTAMP"], name, validation_name)
    if "float64" in (frame["TIMESTAMP"].dtype, validation["TIMESTAMP"].dtype):
        frame, validation = (table.astype({"TIMESTAMP": "float64"}) for table in (frame, validation))
    for column in ("USER_ID", "ITEM_ID"):
        frame[column], validation[column] = of_one_kind(frame[column], validation[column])
    events, wanted = (pd.MultiIndex.from_frame(table[KEY]) for table in (frame, validation))
    if "OUTCOME" in frame.columns and "OUTCOME" in validation.columns:
        # validation's own outcomes count for its events
        given = validation["OUTCOME"].set_axis(wanted)[~wanted.duplicated()]
        in_both = events.isin(wanted)
        frame.loc[in_both, "OUTCOME"] = given.reindex(events[in_both]).to_numpy()
    alone = validation[~wanted.isin(events)]
    held = np.concatenate([events.isin(wanted), np.ones(len(alone), dtype=bool)])
    return _sorted(pd.concat([frame, alone], ignore_index=True), vocabulary, name, held, stacklevel=4)


def _require_same_unit(times: pd.Series, validation: pd.Series, name: str, validation_name: str) -> None:
    """Seconds beside milliseconds would be other events, all of them after training's, or before."""
    ours, theirs = (float(np.median(table.to_numpy(np.float64))) for table in (times, validation))
    if min(ours, theirs) > 0 and max(ours, theirs) / min(ours, theirs) > UNITS_APART:
        raise ValueError(
            f"TIMESTAMP is around {ours:.3g} in {name} and around {theirs:.3g} in {validation_name}: these look like "
            "different units, in which the same event could not be found in both, and would be trained on: "
            "make the units the same"
        )


def checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with ids as int64 or str objects, times as int64, and outcomes, if any, as float64.

    Raises:
        ValueError: no row, or a value that can't be used.
    """
    if frame.empty:
        raise ValueError(f"{name}: no rows")
    try:
        columns: dict[str, Any] = {
            "USER_ID": checked_ids(frame["USER_ID"], "USER_ID"),
            "ITEM_ID": checked_ids(frame["ITEM_ID"], "ITEM_ID"),
            "TIMESTAMP": _times(frame["TIMESTAMP"]),
        }
        if "OUTCOME" in frame.columns:
            columns["OUTCOME"] = _outcomes(frame["OUTCOME"])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return pd.DataFrame(columns)


def validation_part(histories: Histories) -> HeldOut:
    """Each held-out event as a target, after all that came before it; those that nothing precedes are left out."""
    every = histories.sequences
    targets = np.flatnonzero(histories.held)
    users = np.searchsorted(every.ends, targets, side="right")
    preceded = targets > every.starts[users]
    if not preceded.all():
        warnings.warn(
            f"{int((~preceded).sum()):,} of {len(preceded):,} validation interactions are left out: nothing of "
            "their user precedes them",
            stacklevel=3,
        )
    targets, users = targets[preceded], users[preceded]
    before = Sequences(starts=every.starts[users], ends=targets, items=every.items, outcomes=every.outcomes)
    return HeldOut(
        users=users,
        targets=every.items[targets].astype(np.int64),
        outcomes=every.outcomes[targets],
        history=before,
        seen=before,
    )


def _sorted(
    frame: pd.DataFrame, vocabulary: Vocabulary, name: str, held: npt.NDArray[np.bool_], *, stacklevel: int
) -> Histories:
    codes, users = pd.factorize(frame["USER_ID"], sort=True)
    items = vocabulary.indices(frame["ITEM_ID"])
    if unknown := int((items == 0).sum()):
        warnings.warn(
            f"{name}: {unknown:,} of {len(items):,} rows are skipped, the model does not know their items",
            stacklevel=stacklevel,
        )
    order = np.lexsort((frame["TIMESTAMP"].to_numpy(), codes))  # stable: ties keep the table's order
    owner, place = codes[order], np.arange(len(order))
    first_held = np.full(len(users), len(order))
    np.minimum.at(first_held, owner[held[order]], place[held[order]])  # also where its item is not known
    known = items[order] > 0
    before = known & (place < first_held[owner])
    order = order[known]
    offsets: Int64 = np.concatenate([[0], np.cumsum(np.bincount(owner[known], minlength=len(users)))])
    outcomes = (
        frame["OUTCOME"].to_numpy(np.float32)
        if "OUTCOME" in frame.columns
        else np.ones(len(frame), np.float32)
    )
    sequences = Sequences.from_offsets(offsets, items[order].astype(np.int32), outcomes[order])
    train = replace(sequences, ends=offsets[:-1] + np.bincount(owner[before], minlength=len(users)))
    return Histories(users=np.asarray(users), sequences=sequences, train=train, held=held[order])


def _times(values: pd.Series) -> pd.Series:
    """Whole numbers as int64, others as float64, moments as nanoseconds since 1970; all of NumPy."""
    _refuse_missing(values)
    if values.dtype == object and all(isinstance(value, date) for value in values):  # a datetime is one
        values = pd.to_datetime(values)
    if isinstance(values.dtype, pd.ArrowDtype) and pa.types.is_date(values.dtype.pyarrow_dtype):
        values = values.astype(pd.ArrowDtype(pa.timestamp("s")))
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return pd.Series(values.dt.as_unit("ns").astype("int64"))
    if pd.api.types.is_integer_dtype(values.dtype):
        return _int64(values)
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        numbers = values.astype("float64")  # pyarrow's types know no remainder
        _refuse_missing(numbers)  # nor do they count nan among what is missing
        whole = (numbers % 1 == 0) & (numbers.abs() < TOO_HIGH)
        return numbers.astype("int64") if whole.all() else numbers
    row = int(np.argmax(pd.to_numeric(values, errors="coerce").isna()))  # what makes a column of numbers text
    raise ValueError(
        f"TIMESTAMP: values are {values.dtype}, for instance {_told(values, row)} in row {row}: give "
        "numbers or moments, with pandas.to_datetime for instance"
    )


def _int64(values: pd.Series) -> pd.Series:
    if (highest := int(values.max())) >= TOO_HIGH:
        row = int(np.argmax(values.to_numpy(np.uint64)))
        raise ValueError(
            f"TIMESTAMP: {highest} in row {row} is not below 2^63: give times in a longer unit, "
            "milliseconds for instance"
        )
    return values.astype("int64")


def _refuse_missing(times: pd.Series) -> None:
    if missing := int(times.isna().sum()):
        raise ValueError(
            f"TIMESTAMP: {missing:,} of {len(times):,} values are missing, the first in row "
            f"{int(np.argmax(times.isna()))}: drop these rows"
        )


def _outcomes(values: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    with np.errstate(over="ignore"):  # the model reads float32, where 1e300 is infinite
        wrong = ~np.isfinite(numbers.to_numpy().astype(np.float32))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"OUTCOME: {int(wrong.sum()):,} of {len(values):,} values are no finite numbers, the first in "
            f"row {row} ({_told(values, row)}): drop these rows or give them one"
        )
    return numbers


def _told(values: pd.Series, row: int) -> str:
    return repr(values.iloc[row : row + 1].tolist()[0])  # as Python's own type
