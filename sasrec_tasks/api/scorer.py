"""A trained estimator, and the ids of the items that it scores."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch

from sasrec_tasks.api.estimators import SASRecEstimator
from sasrec_tasks.api.model_card import Card, model_card
from sasrec_tasks.api.vocabulary import Vocabulary
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.scoring import Scorer, candidates, constant_scorer, model_scorer, scored_blocks
from sasrec_tasks.sasrec.sequences import Float32, HeldOut, Sequences

T = TypeVar("T")


class SequentialScorer:
    """Scores every item after a history.

    Args:
        estimator: what is trained, and how.

    Raises:
        TypeError: `estimator` is none.
    """

    def __init__(self, estimator: SASRecEstimator) -> None:
        if not isinstance(estimator, SASRecEstimator):
            raise TypeError(
                "estimator must be a SASRecClassifierEstimator or a SASRecRegressorEstimator, not "
                f"{estimator if isinstance(estimator, type) else type(estimator).__name__}"
            )
        self.estimator = estimator
        self._model: SASRec | None = None  # its own: the estimator's may be of another training
        self._settings: dict[str, Any] = {}
        self.card: Card = {}
        """The model card; empty before training."""
        self._items: Vocabulary | None = None
        self._popularity: Float32 | None = None

    def train(
        self,
        items: Vocabulary,
        train: Sequences,
        validation: HeldOut | None,
        period: tuple[str, str] | None = None,
    ) -> None:
        """Train the estimator, and count how often each item occurs in training.

        Args:
            period: the first and the last TIMESTAMP, for the model card.
        """
        model = self.estimator.fit(train, len(items), validation)
        counts = train.item_counts(len(items))
        popularity = (counts / max(counts.sum(), 1)).astype(np.float32)
        card = model_card(self.estimator, model, train, validation, popularity, period)
        self.restore(model, items, popularity, card)

    def restore(self, model: SASRec, items: Vocabulary, popularity: Float32, card: Card) -> None:
        """Put back what training left: the model, item ids, their shares of events (num_items + 1,), and the card."""
        self._model, self._items, self._popularity = model, items, popularity
        self._settings, self.card = self.estimator.settings, card

    @property
    def model(self) -> SASRec:
        """The trained model. RuntimeError before training."""
        return _trained(self._model)

    @property
    def settings(self) -> dict[str, Any]:
        """The estimator's settings when the model was trained."""
        return self._settings

    @property
    def items(self) -> Vocabulary:
        """Ids of the items. RuntimeError before training."""
        return _trained(self._items)

    @property
    def popularity(self) -> Float32:
        """Each item's share of the training events, (num_items + 1,)."""
        return _trained(self._popularity)

    def by_model(self, histories: Sequences) -> Scorer:
        """Scores after each history by the model; −inf for an empty one."""
        return model_scorer(self.model, histories)

    def by_popularity(self) -> Scorer:
        """The same scores for everyone; −inf for an item without a training event."""
        return constant_scorer(np.where(self.popularity > 0, self.popularity, -np.inf).astype(np.float32))

    def score_items(self, histories: Sequences) -> Float32:
        """Scores of all items, (users, num_items); NaN for a user with an empty history."""
        score = self.by_model(histories)
        scores = np.empty((len(histories), len(self.items)), dtype=np.float32)
        with torch.inference_mode():
            for rows in scored_blocks(score, len(histories)):
                scores[rows] = candidates(score, None, rows)[:, 1:].cpu().numpy()
        scores[histories.lengths == 0] = np.nan
        return scores


def _trained(part: T | None) -> T:
    if part is None:
        raise RuntimeError("not trained yet: call SequentialRecommender.train() or load() first")
    return part
