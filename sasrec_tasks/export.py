"""Task 7: every user's top-k from their whole history, published as one version of the table.

Rows are made a block of users at a time and streamed into the commit. A run is published once: if
the table holds its rows, nothing is written. After a rollback it holds them no longer, so that
running `export` again publishes the run again. A run of an earlier `as_of` than what is published
(a backfill) does not replace it; its rows stay in its own folder, where the table's reader reads them
as `parquet+<run's folder>/export`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import (
    announcement,
    change,
    contents,
    contract,
    eligible,
    engine,
    examples,
    forgotten,
    named_list,
    trained,
    verdict,
)
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import EXPORT, METRICS, OWN_ROWS, VERDICT
from sasrec_tasks.engine import Cluster
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.measures import PROTOCOLS
from sasrec_tasks.progress import Advance, bar
from sasrec_tasks.rows import Rows
from sasrec_tasks.tables import Published, Superseded, Tables, open_tables
from sasrec_tasks.tables.parquet import PREFIX, write_alone

log = logging.getLogger(__name__)


def run(store: RunStore, settings: Settings) -> Summary:
    """Publish, and write `export.json`.

    Returns:
        table, version, previous_version, published, as_of, rows, users, users_by_origin, users_inactive,
        narrowed_by, new_items (None unless places are kept for them), metrics; of a refitted model also refit: its
        model (SHA-256), and how far its lists are those of the gated one.

    Raises:
        GateRefused: the verdict does not allow it, or asks for an approval that nobody has given.
        BadSettings: no verdict on these weights, `refit` has not gone on from them, the run is published with
            other rows, or the table names a list of forgotten users that the store has not.
        BadData: a table that narrows the export can't be used, or the rows break their contract.
    """
    if not settings.table:
        raise BadSettings("table: not set: name the folder or URL of the table (--table, or SASREC_TABLE)")
    verdict.require(store)
    weights = trained.served_by(settings)
    if weights == trained.REFITTED:
        _require_refit(store)
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
    reads = [*dict.fromkeys(("split", trained.GATED, "gate", weights)), *narrowed]
    hangs_on = (
        {"table": settings.table, "as_of": settings.as_of.isoformat()}
        | _own_settings(settings)
        | settings.split.model_dump(mode="json", include={"min_outcome", "min_user_events"})
    )
    return engine.once(
        store,
        settings,
        "export",
        partial(_export, store, settings, narrowed),
        reads=reads,
        hangs_on=hangs_on,
        parts_hang_on=settings.export.model_dump(mode="json"),
    )


def _require_refit(store: RunStore) -> None:
    """That what `refit` left goes on from the weights that were gated."""
    done = store.marker(trained.REFITTED)
    if done and done.summary["gated_model"] != trained.model_hash(store):
        raise BadSettings(
            f"{store.uri}: `refit` has gone on from other weights than `train` holds now: run it again"
        )


def _content(store: RunStore, settings: Settings, narrowed: list[str]) -> str:
    """What tells a run's rows from others: the weights, the histories and the settings they hang on."""
    rows_hang_on = _own_settings(settings) | settings.split.model_dump(mode="json", include={"min_outcome"})
    return store.fingerprint(
        "export",
        ["split", *narrowed],
        {**rows_hang_on, "model": trained.model_hash(store, trained.served_by(settings))},
    )


def _own_settings(settings: Settings) -> dict[str, Any]:
    """Those of `export` that its rows hang on. What is not set is left out: a setting that comes with a new version
    of this package does not make a published run another one."""
    unused = {"block_users"} | (set() if settings.export.new_item_days else {"new_item_slots"})
    return settings.export.model_dump(mode="json", exclude=unused, exclude_none=True)


def _require_same_rows(published: Published, content: str) -> None:
    """A run is published once: other settings or data under its name would not reach the table."""
    if published.metadata.get("content", content) != content:
        raise BadSettings(
            f"run id {published.run_id!r}: is published already (version {published.version}), with other "
            "settings or data than it has now: give the new run another id"
        )


def _export(
    store: RunStore, settings: Settings, narrowed: list[str], cluster: Cluster | None, folder: Path
) -> Summary:
    listed = forgotten.read(store.store)
    unchanged = (store.inputs_unchanged(["split", *narrowed]), forgotten.unchanged(store.store, listed))
    rows = Rows(store, trained.here(settings))
    metrics = store.read_json("evaluate", METRICS)
    assert settings.as_of is not None
    tables = open_tables(settings.table)
    weights = trained.served_by(settings)
    refitted = _refitted(store, settings, rows) if weights == trained.REFITTED else None
    metadata = {
        "store": store.store,
        "model": trained.model_hash(store, weights),
        **({"gated_model": trained.model_hash(store)} if refitted else {}),
        "content": _content(store, settings, narrowed),
        "metrics": {name: metrics[name] for name in PROTOCOLS},
        "data_interval": [contents.period(store, rows.data)[0], settings.as_of.isoformat()],
        "forced": store.read_json("gate", VERDICT)["forced"],
        **named_list.named(listed, store.store),
    }

    if cluster:
        cluster.made()

    def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
        """Without users on a list that has come into the store since the source was read."""
        found = rows.merged(_of(cluster.parts(), advance)) if cluster else rows.batches(advance, weights)
        return contract.checked(map(listed.without, found))

    version: int | None = None
    with bar(
        "export", len(rows.data.events), "users"
    ) as advance:  # here: a driver may read the rows in another thread
        try:
            version = tables.publish(
                _while(unchanged, batches(advance)),
                contract.checked_popular(rows.popular()),
                run_id=store.run_id,
                as_of=settings.as_of,
                metadata=metadata,
                may_replace=partial(named_list.require, table=settings.table, store=store.store),
            ).version
        except Superseded as newer:
            write_alone(
                folder,
                batches(advance),
                contract.checked_popular(rows.popular()),
                run_id=store.run_id,
                as_of=settings.as_of,
                metadata=metadata,
            )
            log.warning(
                "export: %s: %s, later than this run's %s: not replaced, this run's rows are the table %s%s/export",
                settings.table,
                newer,
                settings.as_of.isoformat(),
                PREFIX,
                store.uri,
            )
    written = _counts(
        tables.rows(version) if version is not None else pq.ParquetFile(folder / OWN_ROWS).iter_batches()
    )
    summary: Summary = {
        "table": settings.table,
        "version": version,
        "previous_version": _previous(tables, version),
        "published": version is not None,
        "as_of": settings.as_of.isoformat(),
        "rows": written["rows"],
        "users": rows.users,
        "users_by_origin": {
            "model": written["model"],
            "popular": written["popular"],
            "none": rows.users - written["model"] - written["popular"],
        },
        "users_inactive": len(rows.data.events) - rows.active,
        "narrowed_by": eligible.counts(store, settings),
        "new_items": None
        if settings.export.new_item_days is None
        else {"items": len(rows.new), "recommended": written["new_items"], "rows": written["new_rows"]},
        "metrics": announcement.figures(metrics),
    }
    if refitted:
        summary["refit"] = refitted
    write_json(folder / EXPORT, {**summary, "run_id": store.run_id})
    examples.write(folder, rows, weights)  # the gate's are of what might be recommended then
    if version is not None:
        log.info("export: version %d of %s", version, settings.table)
    return summary


def _of(parts: Iterable[pa.Table], advance: Advance) -> Iterator[pa.RecordBatch]:
    """The rows of parts, each of whole users."""
    users = 0
    for part in parts:
        yield from part.to_batches()
        users += pc.sum(pc.equal(part["RANK"], 1)).as_py() or 0
        advance(users)


def _while(
    unchanged: Iterable[Callable[[], None]], rows: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Rows that are only published if, when all have been read, what they were made of is what it was."""
    yield from rows
    for check in unchanged:
        check()


def _refitted(store: RunStore, settings: Settings, rows: Rows) -> dict[str, Any]:
    """The weights that make the table, and their lists beside those of the weights that were gated."""
    compared = change.compare(
        rows.of_users,
        partial(rows.of_users, weights=trained.REFITTED),
        tonight=rows.user_ids(),
        users=settings.gate.compared_users,
        random_state=settings.evaluate.random_state,
    )
    if compared.overlap is not None:
        log.info(
            "export: the refitted model keeps %.1f%% of the gated one's lists (%s users); %.1f%% are wholly other ones",
            100 * compared.overlap,
            f"{compared.users_compared:,}",
            100 * (compared.lists_changed or 0.0),
        )
    return {"model": trained.model_hash(store, trained.REFITTED), **asdict(compared)}


def _previous(tables: Tables, version: int | None) -> int | None:
    """The version that was served before."""
    if version is None:
        return None
    return next((each.version for each in tables.published() if each.version < version), None)


def _counts(written: Iterable[pa.RecordBatch]) -> Counter[str]:
    """Rows that were written, users who are served by the model, and by popularity, and what is in the places for new
    items."""
    counts = Counter({"rows": 0, "model": 0, "popular": 0})
    new: set[str] = set()
    for batch in written:
        counts["rows"] += len(batch)
        firsts = batch.filter(pc.equal(batch.column("RANK"), 1))
        for origin in pc.value_counts(firsts.column("ORIGIN")).to_pylist():
            counts[origin["values"]] += origin["counts"]
        of_new = batch.column("ITEM_ID").filter(pc.equal(batch.column("ORIGIN"), "new"))
        counts["new_rows"] += len(of_new)
        new.update(pc.unique(of_new).to_pylist())
    counts["new_items"] = len(new)
    return counts
