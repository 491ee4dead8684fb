"""The champion beside the new model: both score the same users and items, and are compared user by user.

The champion is scored anew, on today's test items and against the same random items: yesterday's
figures are of yesterday's data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from sasrec_tasks import contents, trained
from sasrec_tasks.artifacts import Damaged, RunStore
from sasrec_tasks.champion import index_in
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import RANKS, USERS, Interactions, protocol
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.measures import rank, summarise, unseen_items
from sasrec_tasks.sasrec.metrics import Float64, Ranks, bootstrap, interval, per_user
from sasrec_tasks.sasrec.scoring import Scorer, model_scorer
from sasrec_tasks.sasrec.sequences import PADDING, HeldOut, Int64, Sequences

METRIC = "ndcg@10"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The champion beside the new model, on the same users and items."""

    run_id: str
    metrics: dict[str, Any]  # protocol → figures
    difference: float  # new − champion
    ci95: tuple[float, float]  # of the difference, paired bootstrap
    unknown_targets: int  # test items that the champion does not know: misses
    on_known: dict[str, float] = field(default_factory=dict)  # both models where both know the target


class ChampionGone(Exception):  # noqa: N818 - it says what is the case
    """The champion's run is pruned, or its model can't be used any more: trying again doesn't bring it back."""


def compare(store: RunStore, settings: Settings, champion: str) -> Comparison:
    """Score the champion on this run's test split and compare user by user.

    Raises:
        ChampionGone: the champion's run is not in the store, or its files are damaged.
        Damaged: this run's own files are.
        OSError: some can't be read now. Trying again is safe.
    """
    data, items = contents.interactions(store, settings), contents.item_ids(store)
    test = measured_users(store, data, settings)
    unseen = unseen_items(data, test, settings)
    try:
        scorer, index = champion_scorer(store.sibling(champion), settings, items, test)
        ranks = rank(scorer, test, unseen)
    except (BadSettings, Damaged, ValueError, FloatingPointError) as error:
        raise ChampionGone(str(error)) from error
    served = protocol(settings)
    old = per_user(ranks[served])[METRIC]
    new = per_user(_own_ranks(store, served))[METRIC]
    names, means = bootstrap(
        {"new": new, "old": old},
        samples=settings.evaluate.bootstrap_samples,
        random_state=settings.evaluate.random_state,
    )
    known = index[test.targets] != PADDING
    return Comparison(
        run_id=champion,
        metrics=summarise({"champion": ranks}, settings)["champion"],
        difference=float((new - old).mean()),
        ci95=interval(means[:, names.index("new")] - means[:, names.index("old")]),
        unknown_targets=int((~known).sum()),
        on_known=_means(new[known], old[known]),
    )


def measured_users(store: RunStore, data: Interactions, settings: Settings) -> HeldOut:
    """Those that `evaluate` has measured: a sample is not drawn anew, as a user may have been forgotten since."""
    if settings.evaluate.test_users is None:
        return data.split.test
    names = pq.read_table(store.folder("split") / USERS, columns=["USER_ID"])["USER_ID"]
    measured = pq.read_table(store.folder("evaluate") / RANKS, columns=["USER_ID"])["USER_ID"]
    chosen = pc.is_in(names.take(pa.array(data.split.test.users)), measured)
    return data.split.test.select(np.flatnonzero(chosen.to_numpy()))


def _own_ranks(store: RunStore, served: str) -> Ranks:
    columns = pq.read_table(
        store.folder("evaluate") / RANKS, columns=[f"model.{served}.better", f"model.{served}.tied"]
    )
    better, tied = (column.to_numpy() for column in columns.columns)
    return Ranks(better=better, tied=tied)


def _means(new: Float64, old: Float64) -> dict[str, float]:
    if not len(new):
        return {"users": 0}
    return {"users": len(new), "new": float(new.mean()), "champion": float(old.mean())}


def champion_scorer(
    champion: RunStore, settings: Settings, items: list[str], test: HeldOut
) -> tuple[Scorer, Int64]:
    """The champion's scores of today's catalogue, −inf for items that it does not know.

    Returns:
        The scorer, and the champion's index of each of today's items: (num_items + 1,), 0 if unknown.
    """
    model = trained.model(champion, settings)
    index = index_in(champion, items)
    score_theirs = model_scorer(model, _translated(test.history, index))
    unknown = np.flatnonzero(index == PADDING)

    def score(rows: Int64) -> Tensor:
        scores = score_theirs(rows)[:, index]
        scores[:, unknown] = -np.inf
        return scores

    return score, index


def _translated(histories: Sequences, index: Int64) -> Sequences:
    """Histories in another catalogue's indices, without what it does not know."""
    rows, _, positions = histories.flat()
    items = index[histories.items[positions]]
    known = items != PADDING
    ends = np.cumsum(np.bincount(rows[known], minlength=len(histories)))
    return Sequences(
        starts=np.concatenate([[0], ends[:-1]]),
        ends=ends,
        items=items[known].astype(np.int32),
        outcomes=histories.outcomes[positions[known]],
    )
