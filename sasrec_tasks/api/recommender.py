"""From tables of interactions to recommendations: what a notebook works with."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from sasrec_tasks.api import saved
from sasrec_tasks.api.datasets import InteractionsDataset, ItemsDataset
from sasrec_tasks.api.given import catalogue, interactions_dataset, items_of, with_outcome
from sasrec_tasks.api.histories import (
    Histories,
    histories,
    histories_with_validation,
    validation_part,
)
from sasrec_tasks.api.scorer import SequentialScorer
from sasrec_tasks.api.settings import size
from sasrec_tasks.sasrec.checks import NOT_NEGATIVE, flag, number_in, whole_number
from sasrec_tasks.sasrec.sequences import Float32, Int64
from sasrec_tasks.sasrec.top_k import DRAWING, sample_k, top_k

MaxLen = int | Literal["auto"]


class SequentialRecommender:
    """Trains on tables of interactions, and recommends from them.

    Args:
        scorer: wraps the estimator.
        max_len: how many of the most recent items are read; "auto" chooses it by the lengths of the
            histories. A value given here wins over the estimator's, with a warning where they differ;
            without one, the estimator's is used.

    Raises:
        TypeError: `scorer` is no scorer.
        ValueError: `max_len` is neither a whole number nor "auto".
    """

    def __init__(self, scorer: SequentialScorer, max_len: MaxLen | None = None) -> None:
        if not isinstance(scorer, SequentialScorer):
            raise TypeError(
                f"scorer must be a SequentialScorer, not {type(scorer).__name__}: wrap the estimator, "
                "SequentialRecommender(SequentialScorer(estimator))"
            )
        self.scorer = scorer
        self._max_len = None if max_len is None else size("max_len", max_len)

    @property
    def max_len(self) -> MaxLen:
        """How many of the most recent items are read, or "auto"."""
        return self.scorer.estimator.max_len if self._max_len is None else self._max_len

    @max_len.setter
    def max_len(self, value: MaxLen) -> None:
        self._max_len = size("max_len", value)

    def train(
        self,
        *,
        interactions_ds: InteractionsDataset | pd.DataFrame,
        items_ds: ItemsDataset | pd.DataFrame | None = None,
        valid_interactions_ds: InteractionsDataset | pd.DataFrame | None = None,
        train_on_all: bool = False,
    ) -> None:
        """Train the estimator.

        Args:
            interactions_ds: USER_ID, ITEM_ID, OUTCOME, TIMESTAMP. Rows with the same TIMESTAMP keep
                their order.
            items_ds: the catalogue; without it, the items are those of the interactions.
            valid_interactions_ds: what early stopping looks at, each event after all that came before
                it. Neither these events nor what comes after them in a user's history is trained on,
                whether or not they stand in `interactions_ds`, too.
            train_on_all: train on these as well, for a final refit. Metrics on them then mean nothing.
                Without `valid_interactions_ds` all is trained on anyway.

        Raises:
            TypeError: what should be a table is none.
            ValueError: `early_stopping_patience` without validation interactions; a column, value or
                outcome that can't be used; nothing to train on.
        """
        estimator = self.scorer.estimator
        if estimator.early_stopping_patience is not None and valid_interactions_ds is None:
            raise ValueError(
                f"early_stopping_patience={estimator.early_stopping_patience} needs validation "
                "interactions: pass valid_interactions_ds to train(), or set it to None"
            )
        train_on_all = flag("train_on_all", train_on_all)
        self._agree_on_max_len()
        interactions = interactions_dataset(interactions_ds, "interactions_ds")
        frame, name = with_outcome(interactions), interactions.name
        validation, validation_name = None, ""
        if valid_interactions_ds is not None:
            given = interactions_dataset(valid_interactions_ds, "valid_interactions_ds")
            validation, validation_name = with_outcome(given), given.name
        if items_ds is not None:
            items = catalogue(items_ds)
        else:
            tables = [(frame, name), *([] if validation is None else [(validation, validation_name)])]
            items = items_of(tables)
        if validation is None:
            every = histories(frame, items, name)
            self.scorer.train(items, every.sequences, None, _period(frame))
            return
        every = histories_with_validation(frame, validation, items, name, validation_name)
        held_out = validation_part(every)
        if not len(held_out):
            raise ValueError(
                f"{validation_name}: no event in it has an earlier one of the same user in {name}: there "
                "is nothing to validate on"
            )
        self.scorer.train(items, every.sequences if train_on_all else every.train, held_out, _period(frame))

    @overload
    def recommend(
        self,
        interactions: InteractionsDataset | pd.DataFrame,
        top_k: int = ...,
        sampling_temperature: float | None = ...,
        replace: bool = ...,
        exclude_seen: bool = ...,
        random_state: int | None = ...,
        as_array: Literal[False] = ...,
    ) -> pd.DataFrame: ...

    @overload
    def recommend(
        self,
        interactions: InteractionsDataset | pd.DataFrame,
        top_k: int = ...,
        sampling_temperature: float | None = ...,
        replace: bool = ...,
        exclude_seen: bool = ...,
        random_state: int | None = ...,
        *,
        as_array: Literal[True],
    ) -> npt.NDArray[Any]: ...

    def recommend(
        self,
        interactions: InteractionsDataset | pd.DataFrame,
        top_k: int = 1,
        sampling_temperature: float | None = 0,
        replace: bool = False,
        exclude_seen: bool = False,
        random_state: int | None = None,
        as_array: bool = False,
    ) -> pd.DataFrame | npt.NDArray[Any]:
        """The best items of each user, after what `interactions` says they did last.

        Args:
            interactions: USER_ID, ITEM_ID, TIMESTAMP. Rows of items that the model does not know are
                skipped.
            top_k: items per user.
            sampling_temperature: 0 or None ranks by score; above, items are drawn with probability
                softmax(score / temperature), and rank is the order drawn. The popular items, for users of
                whom the model knows no item, are always ranked.
            replace: whether an item may be drawn twice; without a temperature it means nothing.
            exclude_seen: leave out what is in the user's rows.
            random_state: seed of the drawing; None takes the estimator's. What is drawn for a user follows
                it and the user's id alone, whoever else is asked for.
            as_array: the item ids alone.

        Returns:
            USER_ID, RANK (from 1), ITEM_ID, SCORE, ORIGIN, in order of user and rank. ORIGIN is
            "model", or "popular" for a user of whom the model knows no item. Or, `as_array`, item ids
            (users, top_k), users in order of id, None where a user has fewer; no more columns than
            there are items.

        Raises:
            ValueError: a column or value that can't be used.
            RuntimeError: not trained yet.
        """
        top_k = whole_number("top_k", top_k)
        replace, exclude_seen = flag("replace", replace), flag("exclude_seen", exclude_seen)
        as_array = flag("as_array", as_array)
        temperature = number_in(NOT_NEGATIVE, "sampling_temperature", sampling_temperature or 0)
        seed = self.scorer.estimator.random_state if random_state is None else random_state
        seed = whole_number("random_state", seed, at_least=0, below=2**63)
        given = self._histories(interactions)
        k = top_k if replace and temperature else min(top_k, len(self.scorer.items))
        scores, items = self._best(given, k, temperature, replace, exclude_seen, seed)
        served = scores > -np.inf
        names = np.full(items.shape, None, dtype=object)
        names[served] = self.scorer.items.names(items[served])
        if as_array:
            return names.astype(np.int64) if served.all() and self.scorer.items.are_integers else names
        user, place = np.nonzero(served)
        origin = np.where(given.sequences.lengths[user] > 0, "model", "popular")
        return pd.DataFrame(
            {
                "USER_ID": given.users[user],
                "RANK": (place + 1).astype(np.int32),
                "ITEM_ID": pd.Series(names[served]).astype(self.scorer.items.ids.dtype),
                "SCORE": scores[served],
                "ORIGIN": origin,
            }
        )

    def score_items(self, interactions: InteractionsDataset | pd.DataFrame) -> pd.DataFrame:
        """The score of every item for every user: rows are users, columns items.

        A user of whom the model knows no item has NaN throughout. This table has users × items
        cells; `recommend` needs far less.
        """
        given = self._histories(interactions)
        return pd.DataFrame(
            self.scorer.score_items(given.sequences),
            index=pd.Index(given.users, name="USER_ID"),
            columns=pd.Index(self.scorer.items.ids, name="ITEM_ID"),
        )

    def save(self, path: str | Path) -> None:
        """Write the trained model, its settings, its item ids and its model card into a folder.

        Safetensors, JSON and Markdown; nothing is pickled.
        """
        max_len = self.max_len if self.max_len == "auto" else self.scorer.model.config.max_len
        saved.write(Path(path), self.scorer, max_len)

    @classmethod
    def load(cls, path: str | Path) -> SequentialRecommender:
        """What `save` wrote, ready to recommend.

        Raises:
            ValueError: no such folder, a file that is missing, damaged or of another version, or
                weights that do not fit it.
        """
        return cls(*saved.read(Path(path)))

    def _best(
        self,
        given: Histories,
        k: int,
        temperature: float,
        replace: bool,
        exclude_seen: bool,
        seed: int,
    ) -> tuple[Float32, Int64]:
        """Scores and item indices (users, k), −inf where there are fewer."""
        by_model = given.sequences.lengths > 0
        scores = np.full((len(by_model), k), -np.inf, dtype=np.float32)
        items = np.zeros((len(by_model), k), dtype=np.int64)
        model, popular = self.scorer.by_model(given.sequences), self.scorer.by_popularity()

        def drawn(found: Tensor, rows: Int64) -> tuple[Tensor, Tensor]:
            generators = [_generator(seed, user) for user in given.users[rows]]
            return sample_k(found, k, temperature=temperature, replace=replace, generators=generators)

        for score, rows in ((model, np.flatnonzero(by_model)), (popular, np.flatnonzero(~by_model))):
            seen = given.sequences.select(rows) if exclude_seen else None
            pick = drawn if temperature and score is model else None
            scores[rows], items[rows] = top_k(score, seen, rows, k, pick, DRAWING if pick else 1)
        return scores, items

    def _histories(self, interactions: InteractionsDataset | pd.DataFrame) -> Histories:
        dataset = interactions_dataset(interactions, "interactions")
        frame = dataset.fetch_data(dataset.required)  # outcomes are not read, so may be anything, or none
        return histories(frame, self.scorer.items, dataset.name, above=2)

    def _agree_on_max_len(self) -> None:
        estimator = self.scorer.estimator
        if estimator.max_len != self.max_len:
            warnings.warn(
                f"max_len={self.max_len} of SequentialRecommender replaces max_len={estimator.max_len} of "
                f"{type(estimator).__name__}: pass the same to both",
                stacklevel=3,
            )
            estimator.max_len = self.max_len


def _period(frame: pd.DataFrame) -> tuple[str, str]:
    """The first and the last TIMESTAMP of a table that has been found good, as they are told."""
    return str(frame["TIMESTAMP"].min()), str(frame["TIMESTAMP"].max())


def _generator(seed: int, user: str | int) -> torch.Generator:
    """Of a user's own; an integer and the text it is written as are the same user."""
    digest = hashlib.blake2b(f"{seed} {user}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
