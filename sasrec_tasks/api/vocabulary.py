"""Item ids ↔ item indices of the model; ids keep the type that they came with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sasrec_tasks.sasrec.sequences import Int64


class Vocabulary:
    """The items that a model knows: the first has index 1, since 0 is padding.

    Args:
        ids: strings or integers, in any order, each as often as it likes.

    Raises:
        ValueError: an id is missing, or ids are neither strings nor integers.
    """

    def __init__(self, ids: pd.Series | pd.Index, name: str = "ITEM_ID") -> None:
        values = checked_ids(pd.Series(ids), name)
        self.ids = pd.Index(np.sort(values.unique()))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def are_integers(self) -> bool:
        """Whether ids are integers; else they are strings."""
        return bool(pd.api.types.is_integer_dtype(self.ids.dtype))

    def indices(self, ids: pd.Series) -> Int64:
        """Index of each id, 0 for one that is not known: (n,) int64.

        An integer and the text it is written as are the same id: a CSV read without a schema holds
        the one, a table read with a schema the other.
        """
        ids = checked_ids(ids, "ITEM_ID")
        known = self.ids
        if self.are_integers != pd.api.types.is_integer_dtype(ids.dtype):
            known, ids = known.astype(str), ids.astype(str)
        codes, uniques = pd.factorize(ids)
        return np.asarray((known.get_indexer(pd.Index(uniques)) + 1)[codes], dtype=np.int64)

    def names(self, indices: Int64) -> np.ndarray:
        """Ids of items, none of them padding: an array of the same shape."""
        return np.asarray(self.ids)[indices - 1]


def of_one_kind(*columns: pd.Series) -> list[pd.Series]:
    """Columns of ids, each as `checked_ids` gives it, as strings if one of them is of strings.

    A CSV read without a schema has integers where all its ids are such, though the file that it was
    cut out of had others, too.
    """
    integers = [pd.api.types.is_integer_dtype(ids.dtype) for ids in columns]
    return [ids if all(integers) else ids.astype(str).astype(object) for ids in columns]


def checked_ids(ids: pd.Series, column: str) -> pd.Series:
    """Ids as int64 or as str objects.

    Raises:
        ValueError: one is missing, or they are of another type or of several.
    """
    if missing := int(ids.isna().sum()):
        raise ValueError(
            f"{column}: {missing:,} of {len(ids):,} values are missing, the first in row "
            f"{int(np.argmax(ids.isna()))}: drop these rows"
        )
    if isinstance(ids.dtype, pd.CategoricalDtype):
        ids = ids.astype(ids.cat.categories.dtype)
    ids = ids.infer_objects()
    if pd.api.types.is_integer_dtype(ids.dtype):
        if (highest := ids.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{column}: {highest} is not below 2^63: give such ids as strings")
        return ids.astype("int64")
    kinds = {type(value) for value in ids.unique()}
    if kinds <= {str}:
        return ids.astype(object)
    told = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ValueError(f"{column}: values are of type {told}: ids are strings or integers, all of one kind")
