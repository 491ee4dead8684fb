"""Where tonight's training starts: from the champion's weights, or anew."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from sasrec_tasks import contents, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.champion import earlier_publishes, index_in
from sasrec_tasks.config import Settings
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


def choose(store: RunStore, settings: Settings, fresh: SASRec) -> Start:
    """The champion, unless it is time for a cold start or its weights don't fit; as before, where this run has begun.

    Args:
        fresh: an untrained model of tonight's sizes.
    """
    every = settings.train.cold_start_every
    if every == 1:
        return Start(reason="train.cold_start_every=1")
    if done := store.marker("train"):  # the champion may be another by now: what was trained stays
        kept = done.summary.get("warm_start")
        if kept is not None:
            return Start(**kept)
    # Not from a run of the same night: a night that runs again, or is filled in later, gives what it had given.
    champion = next(iter(earlier_publishes(store, settings, 1, same_night=False)), None)
    if champion is None:
        return Start(reason="nothing is published of an as_of before this one")
    sibling = store.sibling(champion.run_id)
    try:
        model, marker = trained.model(sibling, settings), sibling.marker("train")
        weights = trained.model_hash(sibling)
        in_common = index_in(sibling, contents.item_ids(store)).any()
    except (OSError, ValueError) as error:
        return Start(reason=f"the weights of the champion {champion.run_id} can't be read: {error}")
    nights = 1 + (marker.summary.get("warm_start") or {}).get("nights", 0) if marker else 1
    if nights >= every:
        return Start(reason=f"the last {nights - 1} nights began warm, and one night in {every} begins cold")
    if not fits(fresh.config, model.config):
        return Start(reason=f"the champion {champion.run_id} has other sizes than tonight's settings")
    if not in_common:
        return Start(reason=f"the champion {champion.run_id} knows none of tonight's items")
    return Start(run_id=champion.run_id, model=weights, nights=nights)


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
