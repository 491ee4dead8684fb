from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.api.vocabulary import Vocabulary, checked_ids, of_one_kind

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20)
integers = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)


@given(ids=texts | integers)
def test_indices_lead_back_to_the_ids_as_they_were(ids: list[Any]) -> None:
    vocabulary = Vocabulary(pd.Series(ids))
    indices = vocabulary.indices(pd.Series(ids))
    assert vocabulary.names(indices).tolist() == ids
    assert sorted(set(indices.tolist())) == list(range(1, len(vocabulary) + 1))


@given(ids=texts | integers, data=st.data())
def test_the_order_of_the_ids_does_not_matter(ids: list[Any], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(ids))
    assert Vocabulary(pd.Series(ids)).ids.tolist() == Vocabulary(pd.Series(shuffled)).ids.tolist()


def test_an_unknown_id_has_the_index_of_padding() -> None:
    assert Vocabulary(pd.Series(["a", "c"])).indices(pd.Series(["c", "b", "a", "C"])).tolist() == [2, 0, 1, 0]


def test_an_integer_and_its_text_are_the_same_id() -> None:
    assert Vocabulary(pd.Series([5, 30])).indices(pd.Series(["30", "5", "05", "x"])).tolist() == [2, 1, 0, 0]
    assert Vocabulary(pd.Series(["30", "5", "05"])).indices(pd.Series([5, 30])).tolist() == [3, 2]


@pytest.mark.parametrize(
    "dtype",
    ["object", "string", "category", "str", pd.ArrowDtype(pa.string()), pd.ArrowDtype(pa.large_string())],
)
def test_strings_of_every_kind_are_strings(dtype: Any) -> None:
    ids = checked_ids(pd.Series(["b", "a", "b"], dtype=dtype), "ITEM_ID")
    assert ids.dtype == object
    assert {type(value) for value in ids} == {str}
    assert ids.tolist() == ["b", "a", "b"]


@pytest.mark.parametrize(
    "dtype", ["int8", "uint64", "Int64", "category", "object", pd.ArrowDtype(pa.int32())]
)
def test_integers_of_every_kind_are_int64(dtype: Any) -> None:
    ids = checked_ids(pd.Series([2, 1, 2]).astype(dtype), "ITEM_ID")
    assert ids.dtype == np.int64
    assert ids.tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (pd.Series(["a", None, "b", None]), r"ITEM_ID: 2 of 4 values are missing, the first in row 1"),
        (pd.Series([1.0, np.nan]), r"ITEM_ID: 1 of 2 values are missing, the first in row 1"),
        (pd.Series([1.5, 2.0]), r"ITEM_ID: values are of type float"),
        (pd.Series([1, "a"], dtype=object), r"ITEM_ID: values are of type int, str.*all of one kind"),
        (pd.Series([True, False]), r"ITEM_ID: values are of type bool"),
        (pd.Series([2**63], dtype="uint64"), r"ITEM_ID: 9223372036854775808 .*strings"),
    ],
)
def test_ids_that_can_not_be_used_are_refused_with_the_reason(ids: pd.Series, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Vocabulary(ids)


def test_columns_of_ids_are_strings_as_soon_as_one_is() -> None:
    numbers, text = pd.Series([7, 8]), pd.Series(["007"], dtype=object)
    assert [ids.tolist() for ids in of_one_kind(numbers, text)] == [["7", "8"], ["007"]]
    assert [ids.tolist() for ids in of_one_kind(numbers, numbers)] == [[7, 8]] * 2
