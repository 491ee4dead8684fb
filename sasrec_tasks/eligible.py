"""What may be recommended, and to whom: the items, the pairs to leave out, the users who have rows.

It narrows the export alone: model, evaluation and gate are of all items and users. What the tables said is frozen in
the run's folder before anything is published, so that clearing a run that has ended changes nothing; until then each
try reads them as they are.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sasrec_tasks import contents, strangers
from sasrec_tasks import forgotten as forgotten_users
from sasrec_tasks.artifacts import Damaged, RunStore, Summary, write_json
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import EXCLUDED, MANIFEST, STRANGERS, USERS, Interactions
from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.forgotten import Forgotten
from sasrec_tasks.narrowing import NarrowingTable, named
from sasrec_tasks.sasrec.sequences import PADDING, Int64, Sequences, distinct
from sasrec_tasks.timestamps import first_tick_at

log = logging.getLogger(__name__)

FOLDER = contents.ELIGIBLE
REPORT = "report.json"
ITEMS = "items.npy"


@dataclass(frozen=True, kw_only=True)
class Eligible:
    """What an export is narrowed to; None: not at all."""

    items: Int64 | None = None  # (n + 1,) indices, rising, padding first
    excluded: Sequences | None = None  # items of each user
    active: npt.NDArray[np.bool_] | None = None  # (users,) who has rows
    strangers: Path | None = None  # pairs of users who have no events

    def with_rows_for(self, popular: Int64) -> Eligible:
        """The same, where users who were not active have rows, too, if one of the popular items is left out to them.

        They would get it from whoever gives the popular items to users without rows.

        Args:
            popular: item indices.
        """
        if self.active is None or self.excluded is None:
            return self
        rows, _, positions = self.excluded.flat()
        active = self.active.copy()
        active[rows[np.isin(self.excluded.items[positions], popular)]] = True
        return replace(self, active=active)


def freeze(store: RunStore, settings: Settings, *, ended: bool) -> list[str]:
    """Keep what the tables say in `eligible/`.

    Args:
        ended: what was frozen before stays, whatever the tables hold by now.

    Returns:
        The folder's name if there is anything in it: what `export` reads.

    Raises:
        BadData: a table that breaks its contract, or leaves no item of the catalogue.
    """
    tables = named(settings)
    if not tables:
        return []
    assert settings.as_of is not None  # frozen when the run started
    as_of = settings.as_of

    @cache
    def table(setting: str) -> NarrowingTable:
        return NarrowingTable(setting, settings, as_of)

    before = _report(store) if ended else {}
    forgotten = forgotten_users.read(store.store)
    parts = {
        setting: before[setting]["parts"]
        if before.get(setting, {}).get("table") == url
        else [asdict(part) for part in table(setting).source.parts]
        for setting, url in tables.items()
    }
    store.once(
        FOLDER,
        lambda folder: _write(store, {setting: table(setting) for setting in tables}, forgotten, folder),
        reads=["split"],
        unchanged=forgotten_users.unchanged(store.store, forgotten),
        settings={
            "tables": tables,
            "parts": parts,
            "as_of": as_of.isoformat(),
            "cast_ids": settings.ingest.cast_ids,
        },
    )
    return [FOLDER]


def read(store: RunStore, settings: Settings, data: Interactions) -> Eligible:
    """What was frozen, and the users who were active.

    Raises:
        BadSettings: nobody was.
    """
    tables, items, excluded, file = named(settings), None, None, None
    if "export.eligible_items" in tables:
        items = np.load(store.folder(FOLDER) / ITEMS, allow_pickle=False)
    if "export.excluded_pairs" in tables:
        offsets, pairs = (np.load(store.folder(FOLDER) / name, allow_pickle=False) for name in EXCLUDED)
        excluded = Sequences.from_offsets(offsets, pairs, np.zeros(len(pairs), dtype=np.float32))
        pairs_of_strangers = store.folder(FOLDER) / STRANGERS
        file = pairs_of_strangers if pairs_of_strangers.exists() else None  # an earlier version wrote none
    return Eligible(items=items, excluded=excluded, active=_active(store, settings, data), strangers=file)


def counts(store: RunStore, settings: Settings) -> dict[str, dict[str, int]]:
    """What was found in each table, for the summary of `export`."""
    report = store.read_json(FOLDER, REPORT) if named(settings) else {}
    return {setting.rpartition(".")[2]: of["counts"] for setting, of in report.items()}


def _report(store: RunStore) -> dict[str, Any]:
    try:
        report: dict[str, Any] = store.read_json(FOLDER, REPORT) if store.marker(FOLDER) else {}
    except Damaged as error:
        log.warning("export: what the run was narrowed to is lost, it is read again: %s", error)
        return {}
    return report


def _write(store: RunStore, tables: dict[str, NarrowingTable], forgotten: Forgotten, folder: Path) -> Summary:
    items = pa.array(contents.item_ids(store), pa.string())
    report: dict[str, Any] = {}
    for setting, table in tables.items():
        if setting == "export.eligible_items":
            mask, found = _eligible(table, items)
            np.save(folder / ITEMS, np.flatnonzero(mask))
        else:
            users = pq.read_table(store.folder("split") / USERS, columns=["USER_ID"])["USER_ID"]
            offsets, pairs, found = _excluded(
                table, users.combine_chunks(), items, forgotten, folder / STRANGERS
            )
            np.save(folder / EXCLUDED[0], offsets)
            np.save(folder / EXCLUDED[1], pairs)
        report[setting] = {
            "table": table.url,
            "cut_by": table.source.cut_by,
            "parts": [asdict(part) for part in table.source.parts],
            "counts": found,
        }
        said = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.items())
        log.info("export: %s=%s: %s", setting, table.url, said)
    write_json(folder / REPORT, report)
    return {setting: of["counts"] for setting, of in report.items()}


def _eligible(table: NarrowingTable, items: pa.Array) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """Which items of the catalogue are eligible, (num_items + 1,), with padding; and counts."""
    mask = np.zeros(len(items) + 1, dtype=bool)
    mask[PADDING] = True
    rows = unavailable = 0
    unknown: set[str] = set()
    for batch in table.batches():
        rows += len(batch)
        available = batch.filter(_available(batch, table.as_of))
        unavailable += len(batch) - len(available)
        index = _places(available["ITEM_ID"], items)
        mask[index[index >= 0] + 1] = True
        unknown.update(available["ITEM_ID"].filter(pa.array(index < 0)).to_pylist())
    found = int(mask.sum()) - 1
    if not found:
        why = (
            f"all {rows:,} rows are of another time than as_of ({table.as_of.isoformat()})"
            if unavailable == rows
            else f"ITEM_ID: none of its {len(unknown):,} available items is in the catalogue, for instance "
            f"{min(unknown)!r}, where the catalogue has {items[0].as_py()!r}"
        )
        raise BadData(
            f"{table.url}: leaves nothing to recommend: {why if rows else 'it has no rows'}: "
            f"check the table that {table.setting} names"
        )
    return mask, {
        "rows": rows,
        "rows_of_another_time": unavailable,
        "items": found,
        "items_unknown_to_the_model": len(unknown),
    }


def _available(batch: pa.RecordBatch, as_of: datetime) -> pa.Array:
    """Whether each row holds at a moment."""
    holds, moment = pa.repeat(pa.scalar(True), len(batch)), pa.scalar(as_of, pa.timestamp("us", tz="UTC"))
    for name, compare in (("AVAILABLE_FROM", pc.less_equal), ("AVAILABLE_UNTIL", pc.greater)):
        if name in batch.schema.names:
            holds = pc.and_(holds, pc.fill_null(compare(batch[name], moment), True))
    return holds


def _excluded(
    table: NarrowingTable, users: pa.Array, items: pa.Array, forgotten: Forgotten, file: Path
) -> tuple[Int64, npt.NDArray[np.int32], dict[str, int]]:
    """The pairs as offsets (users + 1,) and items, each pair once; and counts.

    Args:
        forgotten: users whose pairs are left out.
        file: gets the pairs of users who are not among the known ones.
    """
    rows, of_unknown_items, of_forgotten, width = 0, 0, 0, len(items) + 1
    keys = []
    with strangers.collected() as others:
        for batch in table.batches():
            rows += len(batch)
            kept = forgotten.without(batch)
            of_forgotten += len(batch) - len(kept)
            batch = kept
            user, item = _places(batch["USER_ID"], users), _places(batch["ITEM_ID"], items)
            known, unknown = ((user >= 0) & (item >= 0), (user < 0) & (item >= 0))
            keys.append(user[known] * width + item[known] + 1)
            others.add(batch["USER_ID"].filter(pa.array(unknown)), item[unknown] + 1)
            of_unknown_items += int((item < 0).sum())
        pairs_of_others = others.write(file)
    pairs = distinct(np.concatenate([np.zeros(0, dtype=np.int64), *keys]))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs // width, minlength=len(users)))])
    found = {
        "rows": rows,
        "pairs": len(pairs),
        "pairs_of_users_without_events": pairs_of_others,
        "rows_of_items_unknown_to_the_model": of_unknown_items,
        **({"rows_of_forgotten_users": of_forgotten} if forgotten.hashes else {}),
    }
    return offsets, (pairs % width).astype(np.int32), found


def _places(values: pa.Array, among: pa.Array) -> Int64:
    """Where each value stands, from 0; −1 if nowhere."""
    places: Int64 = pc.fill_null(pc.index_in(values, among), -1).to_numpy().astype(np.int64)
    return places


def _active(store: RunStore, settings: Settings, data: Interactions) -> npt.NDArray[np.bool_] | None:
    """Who has an event in the days before `as_of`; of items that are in the catalogue."""
    days = settings.export.active_within_days
    if days is None:
        return None
    assert settings.as_of is not None
    try:
        since = settings.as_of - timedelta(days=days)
    except OverflowError as error:
        raise BadSettings(f"export.active_within_days={days}: begins before the year 1") from error
    first = first_tick_at(since, store.read_json("ingest", MANIFEST)["timestamp_unit"])
    active = np.zeros(len(data.events), dtype=bool)
    some = np.flatnonzero(data.events.lengths > 0)
    active[some] = data.timestamps[data.events.ends[some] - 1] >= first
    if not active.any():
        raise BadSettings(
            f"export.active_within_days={days:g}: none of the {len(active):,} users has an event since "
            f"{since.isoformat()}: raise it, or see whether the source has stopped"
        )
    log.info(
        "export: %s of %s users have no event since %s and no rows",
        f"{int((~active).sum()):,}",
        f"{len(active):,}",
        since.isoformat(),
    )
    return active
