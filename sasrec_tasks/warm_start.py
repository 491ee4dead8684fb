"""Where tonight's training starts: from the champion's weights, or anew."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from sasrec_tasks import contents, trained
from sasrec_tasks.artifacts import Damaged, RunStore
from sasrec_tasks.champion import earlier_publishes, index_in
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.sasrec.fit_config import FitConfig
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.sequences import Sequences
from sasrec_tasks.sasrec.transfer import carry_over, fits

log = logging.getLogger(__name__)

WARM_UP = 0.25
"""Share of `train.warmup_epochs` that a warm start takes: its blocks are trained; only Adam has to find its moments."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What training starts from."""

    run_id: str | None = None  # of the champion; None: anew
    model: str | None = None  # SHA-256 of its weights
    nights: int = 0  # warm starts since the last cold one, this one included
    reason: str = ""  # why anew


def kept(store: RunStore) -> Start | None:
    """What this run's training has started from; None as long as it has not ended."""
    done = store.marker("train")
    found = done.summary.get("warm_start") if done else None
    return None if found is None else Start(**found)


def choose(store: RunStore, settings: Settings, fresh: SASRec, before: Start | None = None) -> Start:
    """The champion, unless it is time for a cold start or its weights don't fit.

    Args:
        fresh: an untrained model of tonight's sizes.
        before: what this run has started from. It stays, though the champion may be another by now, unless it can't be
            gone on from any more: then it begins anew.

    Raises:
        OSError: what is published, or its weights, can't be read now. Trying again is safe.
    """
    every = settings.train.cold_start_every
    if every == 1:
        return Start(reason="train.cold_start_every=1")
    if before:
        return _still(before, store, settings, fresh)
    # Not from a run of the same night: a night that runs again, or is filled in later, gives what it had given.
    champion = next(iter(earlier_publishes(store, settings, 1, same_night=False)), None)
    if champion is None:
        return Start(reason="nothing is published of an as_of before this one")
    found = _from_run(champion.run_id, store, settings, fresh)
    if found.nights >= every:
        return Start(
            reason=f"the last {found.nights - 1} nights began warm, and one night in {every} begins cold"
        )
    return found


def _still(before: Start, store: RunStore, settings: Settings, fresh: SASRec) -> Start:
    """What a run has started from, if it is still there as it was."""
    if before.run_id is None:
        return before
    found = _from_run(before.run_id, store, settings, fresh)
    if found.run_id and found.model != before.model:
        return Start(reason=f"the weights of run {before.run_id} are others than this run had begun with")
    return before if found.run_id else found


def _from_run(run_id: str, store: RunStore, settings: Settings, fresh: SASRec) -> Start:
    """A start from an earlier run's weights, or anew if they can't be gone on from."""
    items = contents.item_ids(store)
    try:
        run = store.sibling(run_id)
        model, marker = trained.model(run, settings), run.marker("train")
        weights = trained.model_hash(run)
        in_common = index_in(run, items).any()
    except (BadSettings, Damaged, ValueError) as error:
        return Start(reason=f"the weights of the champion {run_id} can't be read: {error}")
    if not fits(fresh.config, model.config):
        return Start(reason=f"the champion {run_id} has other sizes than tonight's settings")
    if not in_common:
        return Start(reason=f"the champion {run_id} knows none of tonight's items")
    nights = 1 + (marker.summary.get("warm_start") or {}).get("nights", 0) if marker else 1
    return Start(run_id=run_id, model=weights, nights=nights)


def apply(
    store: RunStore,
    settings: Settings,
    start: Start,
    model: SASRec,
    histories: Sequences,
    config: FitConfig,
) -> FitConfig:
    """Give an untrained model what it starts from, and say so.

    Returns:
        How to train it from there.
    """
    if start.run_id is None:
        log.info("train: a cold start: %s", start.reason)
        return config
    champion = store.sibling(start.run_id)
    items = contents.item_ids(store)
    index = index_in(champion, items)
    new = carry_over(
        model,
        trained.model(champion, settings),
        index,
        histories,
        item_share=settings.train.warm_item_share,
    )
    gone = len(contents.item_ids(champion)) - (len(items) - new)
    log.info(
        "train: a warm start from run %s: %s items are new, %s are gone (night %d of at most %d)",
        start.run_id,
        f"{new:,}",
        f"{gone:,}",
        start.nights,
        settings.train.cold_start_every - 1,
    )
    return replace(config, warmup_epochs=WARM_UP * config.warmup_epochs)
