"""Task 7: every user's top-k from their whole history, published as one version of the table.

Rows are made a block of users at a time and streamed into the commit. A run is published once: if
the table holds its rows, nothing is written. After a rollback it holds them no longer, so that
running `export` again publishes the run again. A run of an earlier `as_of` than what is published
(a backfill) does not replace it; its rows stay in its own folder.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import approval, contents, eligible, trained
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import EXPORT, METRICS, OWN_ROWS, USERS, VERDICT
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.measures import PROTOCOLS
from sasrec_tasks.progress import Advance, bar
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.scoring import Scorer, constant_scorer, model_scorer
from sasrec_tasks.sasrec.sequences import Float32, Int64, Sequences, row_blocks
from sasrec_tasks.sasrec.top_k import top_k
from sasrec_tasks.tables import Published, Superseded, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

log = logging.getLogger(__name__)


def run(store: RunStore, settings: Settings) -> Summary:
    """Publish, and write `export.json`.

    Returns:
        table, version, published, rows, users, users_by_origin, users_inactive, narrowed_by, metrics.

    Raises:
        GateRefused: the verdict does not allow it, or asks for an approval that nobody has given.
        BadSettings: no verdict on these weights, or the run is published with other rows.
        BadData: a table that narrows the export can't be used.
    """
    if not settings.table:
        raise BadSettings("table: not set: name the folder or URL of the table (--table, or SASREC_TABLE)")
    _require_verdict(store)
    assert settings.as_of is not None  # frozen when the run started
    published = next((p for p in open_tables(settings.table).published() if p.run_id == store.run_id), None)
    marker = store.marker("export")
    narrowed = eligible.freeze(store, settings, ended=bool(published or marker))
    if published:
        _require_same_rows(published, _content(store, settings, narrowed))
    elif marker and marker.summary["published"] and marker.summary["table"] == settings.table:
        log.warning(
            "export: run %s was rolled back since it was published: publishing it again", store.run_id
        )
        store.forget("export")
    return store.once(
        "export",
        lambda folder: _export(store, settings, narrowed, folder),
        reads=["split", "train", "gate", *narrowed],
        settings={"table": settings.table, "as_of": settings.as_of.isoformat()}
        | _own_settings(settings)
        | settings.split.model_dump(mode="json", include={"min_outcome", "min_user_events"}),
    )


def _require_verdict(store: RunStore) -> None:
    """That the gate allows these weights to be published."""
    if not store.marker("gate"):
        raise BadSettings(f"{store.uri}: `gate` has not finished in this run: run it first")
    verdict = store.read_json("gate", VERDICT)
    if verdict["model"] != trained.model_hash(store):
        raise BadSettings(
            f"{store.uri}: the verdict of `gate` is on other weights than `train` holds now: "
            "run `evaluate` and `gate` again"
        )
    if not verdict["publish"]:
        raise GateRefused("the verdict in gate/verdict.json does not allow a publish")
    approval.require(store, verdict)


def _content(store: RunStore, settings: Settings, narrowed: list[str]) -> str:
    """What tells a run's rows from others: the weights, the histories and the settings they hang on."""
    rows_hang_on = _own_settings(settings) | settings.split.model_dump(mode="json", include={"min_outcome"})
    return store.fingerprint(
        "export", ["split", *narrowed], {**rows_hang_on, "model": trained.model_hash(store)}
    )


def _own_settings(settings: Settings) -> dict[str, Any]:
    """Those of `export` that its rows hang on. What is not set is left out: a setting that comes with a new version
    of this package does not make a published run another one."""
    return settings.export.model_dump(mode="json", exclude={"block_users"}, exclude_none=True)


def _require_same_rows(published: Published, content: str) -> None:
    """A run is published once: other settings or data under its name would not reach the table."""
    if published.metadata.get("content", content) != content:
        raise BadSettings(
            f"run id {published.run_id!r}: is published already (version {published.version}), with other "
            "settings or data than it has now: give the new run another id"
        )


def _export(store: RunStore, settings: Settings, narrowed: list[str], folder: Path) -> Summary:
    rows = _Rows(store, settings)
    metrics = store.read_json("evaluate", METRICS)
    assert settings.as_of is not None
    tables = open_tables(settings.table)
    version: int | None = None
    with bar(
        "export", len(rows.data.events), "users"
    ) as advance:  # here: a driver may read the rows in another thread
        try:
            version = tables.publish(
                rows.batches(advance),
                rows.popular(),
                run_id=store.run_id,
                as_of=settings.as_of,
                metadata={
                    "store": store.store,
                    "model": trained.model_hash(store),
                    "content": _content(store, settings, narrowed),
                    "metrics": {name: metrics[name] for name in PROTOCOLS},
                    "data_interval": [contents.period(store, rows.data)[0], settings.as_of.isoformat()],
                    "forced": store.read_json("gate", VERDICT)["forced"],
                },
            ).version
        except Superseded as newer:
            with pq.ParquetWriter(folder / OWN_ROWS, RECOMMENDATIONS, compression="zstd") as writer:
                for batch in rows.batches(advance):
                    writer.write_batch(batch)
            log.warning(
                "export: %s: %s, later than this run's %s: not replaced, the rows are in this run's folder",
                settings.table,
                newer,
                settings.as_of.isoformat(),
            )
    written = _counts(
        tables.rows(version) if version is not None else pq.ParquetFile(folder / OWN_ROWS).iter_batches()
    )
    summary: Summary = {
        "table": settings.table,
        "version": version,
        "published": version is not None,
        "rows": written["rows"],
        "users": rows.users,
        "users_by_origin": {
            "model": written["model"],
            "popular": written["popular"],
            "none": rows.users - written["model"] - written["popular"],
        },
        "users_inactive": len(rows.data.events) - rows.users,
        "narrowed_by": eligible.counts(store, settings),
        "metrics": {
            f"{protocol}.{metric}": metrics[protocol][metric]
            for protocol in ("sampled", "full")
            for metric in ("hr@10", "ndcg@10")
        },
    }
    write_json(folder / EXPORT, {**summary, "run_id": store.run_id, "as_of": settings.as_of.isoformat()})
    log.info("export: %s rows, version %s of %s", f"{summary['rows']:,}", version, settings.table)
    return summary


def _counts(written: Iterable[pa.RecordBatch]) -> Counter[str]:
    """Rows that were written, and users who are served by the model, and by popularity."""
    counts = Counter({"rows": 0, "model": 0, "popular": 0})
    for batch in written:
        counts["rows"] += len(batch)
        firsts = batch.filter(pc.equal(batch.column("RANK"), 1))
        for origin in pc.value_counts(firsts.column("ORIGIN")).to_pylist():
            counts[origin["values"]] += origin["counts"]
    return counts


class _Rows:
    """The rows of the table, made a block of users at a time."""

    def __init__(self, store: RunStore, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.data = contents.interactions(store, settings)
        self.items = np.array(["", *contents.item_ids(store)], dtype=object)
        self.eligible = eligible.read(store, settings, self.data)
        active = self.eligible.active
        self.users = len(self.data.events) if active is None else int(active.sum())
        among = self.eligible.items
        self.among = np.arange(self.data.num_items + 1) if among is None else among  # column → item
        self.column_of = np.zeros(self.data.num_items + 1, dtype=np.int64)  # padding: not eligible
        self.column_of[self.among] = np.arange(len(self.among))

    def popularity(self) -> Float32:
        """Share of all events per eligible item, in the order of the scores' columns; −inf where an item has none."""
        counts = self.data.split.whole.item_counts(self.data.num_items)
        shares = counts / max(counts.sum(), 1)
        return np.where(counts > 0, shares, -np.inf).astype(np.float32)[self.among]

    def popular(self) -> pa.Table:
        """The popular eligible items, best first."""
        shares = self.popularity()
        best = np.argsort(-shares, kind="stable")
        best = best[shares[best] > -np.inf][: self.settings.export.popular_items]
        return self._table(
            POPULAR,
            RANK=np.arange(1, len(best) + 1),
            items=self.among[best],
            SCORE=shares[best],
            ORIGIN="popular",
        )

    def batches(self, advance: Advance) -> Iterator[pa.RecordBatch]:
        """All rows in order of user and rank, one batch per `export.block_users` users."""
        model = trained.model(self.store, self.settings)
        popular = constant_scorer(self.popularity())
        size = self.settings.export.block_users
        ids = pq.ParquetFile(self.store.folder("split") / USERS, pre_buffer=False).iter_batches(
            size, columns=["USER_ID"]
        )
        for rows, names in zip(row_blocks(len(self.data.events), size), ids, strict=True):
            active = rows if self.eligible.active is None else rows[self.eligible.active[rows]]
            if len(active):
                theirs = names.column(0).take(pa.array(active - rows[0]))
                yield from self._block(model, popular, active, theirs)
            advance(int(rows[-1]) + 1)

    def _block(
        self, model: SASRec, popular: Scorer, rows: Int64, names: pa.Array
    ) -> Iterator[pa.RecordBatch]:
        histories = self.data.split.whole.select(rows)
        by_model = histories.lengths > 0
        scorer = model_scorer(model, histories, self.eligible.items)
        k = min(self.settings.export.top_k, len(self.among) - 1)
        scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
        items = np.zeros((len(rows), k), dtype=np.int64)
        for score, chosen in ((scorer, np.flatnonzero(by_model)), (popular, np.flatnonzero(~by_model))):
            scores[chosen], columns = top_k(score, self._left_out(rows[chosen]), chosen, k)
            items[chosen] = self.among[columns]
        served = scores > -np.inf
        user, place = np.nonzero(served)
        yield from self._table(
            RECOMMENDATIONS,
            USER_ID=names.take(pa.array(user)),
            RANK=place + 1,
            items=items[served],
            SCORE=scores[served],
            ORIGIN=np.where(by_model[user], "model", "popular"),
        ).to_batches()

    def _left_out(self, rows: Int64) -> Sequences | None:
        """What is not to be recommended to some users, as columns of the scores."""
        left_out = self.data.events.select(rows) if self.settings.export.exclude_seen else None
        if self.eligible.excluded is not None:
            excluded = self.eligible.excluded.select(rows)
            left_out = left_out.joined(excluded) if left_out is not None else excluded
        if left_out is None or self.eligible.items is None:
            return left_out
        return left_out.renumbered(self.column_of)

    def _table(self, schema: pa.Schema, *, items: Int64, **columns: Any) -> pa.Table:
        rows = len(items)
        as_of: datetime | None = self.settings.as_of
        columns |= {"ITEM_ID": self.items[items], "RUN_ID": self.store.run_id, "AS_OF": as_of}
        arrays = [
            pa.repeat(pa.scalar(value, column.type), rows)
            if isinstance(value := columns[column.name], str | datetime)
            else pa.array(value, column.type)
            for column in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)
