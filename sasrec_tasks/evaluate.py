"""Task 5: measure the model, and two baselines, on every user's last item.

Three protocols, side by side since figures can't be compared across them:

- `sampled`: the test item among 100 random items that the user has not seen (the SASRec paper's);
- `full`: among all items but the seen ones, as it is served; a test item seen before is a miss;
- `full_with_seen`: among all items.

Popularity is counted on training events only, and every scorer meets the same random items.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sasrec_tasks import contents, engine, item_age, trained
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.by_item_age import by_item_age
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import METRICS, MODEL_CARD, RANKS, USERS
from sasrec_tasks.engine import Cluster
from sasrec_tasks.measured import BASELINES, SCORERS, Measuring, from_tables
from sasrec_tasks.measures import (
    PROTOCOLS,
    by_history_length,
    describe,
    summarise,
)
from sasrec_tasks.model_card import as_markdown, model_card
from sasrec_tasks.progress import bar
from sasrec_tasks.sasrec.metrics import Ranks
from sasrec_tasks.sasrec.sequences import PADDING, HeldOut

log = logging.getLogger(__name__)

COUNTS = "counts"
"""Name of the part from which a cluster has `Measuring.counts`."""


def run(store: RunStore, settings: Settings) -> Summary:
    """Write `metrics.json`, `ranks.parquet` (a row per evaluated user), and the model card (.json, .md).

    Returns:
        HR@10 and NDCG@10 of the model and of popularity, sampled and full; users_evaluated.

    Raises:
        BadSettings: the model's weights are not finite.
    """
    assert settings.as_of is not None  # frozen when the run started
    hangs_on = (
        settings.evaluate.model_dump(
            mode="json", exclude_none=True
        )  # a new setting changes no run that is without it
        | settings.split.model_dump(mode="json", include={"min_outcome", "min_user_events"})
        | {"as_of": settings.as_of.isoformat()}
        | ({"refit": True} if settings.refit.enabled else {})  # the card says so
    )
    work = partial(_evaluate, store, settings)
    return engine.once(store, settings, "evaluate", work, reads=["split", "train"], hangs_on=hangs_on)


def _evaluate(store: RunStore, settings: Settings, cluster: Cluster | None, folder: Path) -> Summary:
    measuring = Measuring(store, trained.here(settings))
    data, test, negatives, popular = measuring.data, measuring.test, measuring.negatives, measuring.popular
    if cluster:
        cluster.shards.write(COUNTS, measuring.counts())
        cluster.made()
        measured = from_tables(cluster.parts())
    else:
        with bar("evaluate", len(SCORERS), "scorers") as advance:
            measured = measuring.part(range(len(test)), advance)
    ranks = {name: each.ranks for name, each in measured.items()}
    served = {name: each.items for name, each in measured.items()}
    figures = summarise(ranks, settings)
    users = int((data.split.train.lengths > 0).sum())
    shown = {name: describe(items, popular, users) for name, items in served.items()}
    drawn = (negatives != PADDING).sum(1)
    metrics = {
        **figures["model"],
        "baselines": {name: figures[name] for name in BASELINES},
        "by_history_length": by_history_length(ranks, test),
        **by_item_age(
            data,
            settings,
            ages=item_age.ages(store, settings, data),
            trained_on=popular,
            ranks=ranks,
            served=served,
        ),
        **{metric: {name: shown[name][metric] for name in shown} for metric in shown["model"]},
        "users_evaluated": len(test),
        "negatives": settings.evaluate.negatives,
        "users_with_fewer_negatives": int((drawn < settings.evaluate.negatives).sum()),
        "seed": settings.evaluate.random_state,
        "split": "leave-last-two-out: last item test, second to last validation",
        "device": trained.computed_on(settings),
        "model": trained.model_hash(store),
    }
    write_json(folder / METRICS, metrics)
    _write_ranks(store, test, ranks, folder / RANKS)
    card = model_card(store, settings, data, metrics)
    write_json(folder / f"{MODEL_CARD}.json", card)
    (folder / f"{MODEL_CARD}.md").write_text(as_markdown(card), encoding="utf-8")
    log.info(
        "evaluate: HR@10 %.4f, NDCG@10 %.4f sampled; %.4f, %.4f full (popularity %.4f, %.4f full)",
        *(figures["model"][p][m] for p in ("sampled", "full") for m in ("hr@10", "ndcg@10")),
        *(figures["popularity"]["full"][m] for m in ("hr@10", "ndcg@10")),
    )
    return {
        "users_evaluated": len(test),
        **{
            f"{name}.{protocol}.{metric}": figures[name][protocol][metric]
            for name in ("model", "popularity")
            for protocol in ("sampled", "full")
            for metric in ("hr@10", "ndcg@10")
        },
    }


def _write_ranks(store: RunStore, test: HeldOut, ranks: dict[str, dict[str, Ranks]], file: Path) -> None:
    """A row per evaluated user: target, and how many candidates scored better than it or the same."""
    users = pq.read_table(store.folder("split") / USERS, columns=["USER_ID"])["USER_ID"]
    items = pa.array(contents.item_ids(store))
    columns: dict[str, Any] = {
        "USER_ID": users.take(pa.array(test.users)),
        "ITEM_ID": items.take(pa.array(test.targets - 1)),
    }
    for scorer, protocols in ranks.items():
        for protocol in PROTOCOLS:
            columns[f"{scorer}.{protocol}.better"] = protocols[protocol].better
            columns[f"{scorer}.{protocol}.tied"] = protocols[protocol].tied
    pq.write_table(pa.table(columns), file, compression="zstd")
