"""What `train` and `recommend` are given, as tables: a dataset or a DataFrame."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import pandas as pd

from sasrec_tasks.api.datasets import InteractionsDataset, ItemsDataset, kind_of
from sasrec_tasks.api.vocabulary import Vocabulary, checked_ids, of_one_kind


def interactions_dataset(given: InteractionsDataset | pd.DataFrame, argument: str) -> InteractionsDataset:
    """A dataset; a DataFrame in it goes by the argument's name. TypeError for another thing."""
    if not isinstance(given, InteractionsDataset | pd.DataFrame):
        raise TypeError(
            f"{argument} must be an InteractionsDataset or a pandas DataFrame, not {_shortly(given)}"
        )
    dataset = copy(given) if isinstance(given, InteractionsDataset) else InteractionsDataset(given)
    if isinstance(dataset.data_location, pd.DataFrame):
        dataset.name = f"{argument} (a DataFrame)"
    return dataset


def catalogue(given: ItemsDataset | pd.DataFrame) -> Vocabulary:
    """The items of a catalogue.

    Raises:
        TypeError: neither a dataset of items nor a DataFrame.
        ValueError: ids that can't be used.
    """
    if not isinstance(given, ItemsDataset | pd.DataFrame):
        raise TypeError(
            f"items_ds must be an ItemsDataset, a pandas DataFrame or None, not {_shortly(given)}"
        )
    dataset = given if isinstance(given, ItemsDataset) else ItemsDataset(given)
    return Vocabulary(dataset.fetch_data()["ITEM_ID"], f"{dataset.name}: ITEM_ID")


def items_of(tables: list[tuple[pd.DataFrame, str]]) -> Vocabulary:
    """The items that occur in tables of interactions, each with what errors call it."""
    ids = [checked_ids(frame["ITEM_ID"], f"{name}: ITEM_ID") for frame, name in tables]
    return Vocabulary(pd.concat(of_one_kind(*ids), ignore_index=True))


def with_outcome(dataset: InteractionsDataset) -> pd.DataFrame:
    """The table. ValueError if it has no OUTCOME."""
    frame = dataset.fetch_data()
    if "OUTCOME" in frame.columns:
        return frame
    if dataset.client_schema_path is not None:
        raise ValueError(
            f"{dataset.client_schema_path}: no column OUTCOME, which is trained on, so that it is not read from "
            f"{dataset.name}: add it to this schema, as a float"
        )
    raise ValueError(
        f"{dataset.name}: no column OUTCOME, which is trained on: for clicks or purchases set it to 1.0"
    )


def _shortly(given: object) -> str:
    """A path or None as it is, else the type: tables are long."""
    return repr(given) if given is None or isinstance(given, str | Path) else kind_of(given)
