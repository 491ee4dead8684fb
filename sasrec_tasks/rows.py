"""The rows that a run serves: every user's top k among what may be recommended to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sasrec_tasks import contents, eligible, item_age, strangers, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.progress import Advance
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.reserving import HELD, reserve
from sasrec_tasks.sasrec.scoring import Scorer, constant_scorer, model_scorer
from sasrec_tasks.sasrec.sequences import Float32, Int64, Sequences, ranges, row_blocks
from sasrec_tasks.sasrec.top_k import top_k
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

PART_USERS = 65_536
"""Users whose USER_IDs are held at once."""


class Rows:
    """A run's rows, made a block of users at a time; what narrows them is frozen before (`eligible.freeze`)."""

    def __init__(self, store: RunStore, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.data = contents.interactions(store, settings)
        self._user_ids = contents.UserIds(store)
        if len(self._user_ids) != len(self.data.events):
            raise OSError(f"{store.uri}/split: its files were replaced since they were read: try again")
        self.items = np.array(["", *contents.item_ids(store)], dtype=object)
        self.eligible = eligible.read(store, settings, self.data)
        among = self.eligible.items
        self.among = np.arange(self.data.num_items + 1) if among is None else among  # column → item
        self.column_of = np.zeros(self.data.num_items + 1, dtype=np.int64)  # padding: not eligible
        self.column_of[self.among] = np.arange(len(self.among))
        popular = self.among[self._most_popular()]
        self.eligible = self.eligible.with_rows_for(popular)
        active = self.eligible.active
        self.active = len(self.data.events) if active is None else int(active.sum())
        self.strangers: pa.Array = pa.array([], pa.string())
        self.left_out_to_strangers: Sequences | None = None
        if self.eligible.strangers:
            self.strangers, self.left_out_to_strangers = strangers.concerned(self.eligible.strangers, popular)
        self.users = self.active + len(self.strangers)
        self.new = np.intersect1d(
            item_age.new_items(store, settings, self.data), self.among, assume_unique=True
        )

    def popularity(self) -> Float32:
        """Share of all events per eligible item, in the order of the scores' columns; −inf where an item has none."""
        counts = self.data.split.whole.item_counts(self.data.num_items)
        shares = counts / max(counts.sum(), 1)
        return np.where(counts > 0, shares, -np.inf).astype(np.float32)[self.among]

    @cached_property
    def _by_popularity(self) -> Scorer:
        return constant_scorer(self.popularity())

    def popular(self) -> pa.Table:
        """The popular eligible items, best first."""
        shares, best = self.popularity(), self._most_popular()
        return self._table(
            POPULAR,
            RANK=np.arange(1, len(best) + 1),
            items=self.among[best],
            SCORE=shares[best],
            ORIGIN="popular",
        )

    def _most_popular(self) -> Int64:
        """Columns of the popular items, best first."""
        shares = self.popularity()
        best = np.argsort(-shares, kind="stable")
        return best[shares[best] > -np.inf][: self.settings.export.popular_items]

    def batches(self, advance: Advance, weights: str = trained.GATED) -> Iterator[pa.RecordBatch]:
        """All rows in order of user and rank, a batch or more per `export.block_users` users.

        Args:
            weights: the task that left them.
        """
        model = trained.model(self.store, self.settings, weights)
        parts = (self.part(users, model, advance) for users in self.parts(PART_USERS))
        yield from self.merged(chain.from_iterable(parts))

    def merged(self, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of all parts, one after another, and among them those of users without an event."""
        yield from self._with_strangers(rows, np.arange(len(self.strangers)))

    def parts(self, users: int) -> list[range]:
        """All users by their places in `users.parquet`, about so many at a time: whole blocks, so that the rows don't
        hang on how they are shared out."""
        size = self.settings.export.block_users
        return ranges(len(self.data.events), max(users // size, 1) * size)

    def part(
        self, users: range, model: SASRec, advance: Advance = lambda done: None
    ) -> Iterator[pa.RecordBatch]:
        """The rows of some consecutive users."""
        for rows, names in self._blocks(users):
            if len(rows):
                yield from self._block(model, self._by_popularity, rows, names)
                advance(int(rows[-1]) + 1)

    def user_ids(self) -> Iterator[pa.RecordBatch]:
        """USER_ID of all who have rows."""
        for _, names in self._all_blocks():
            yield pa.RecordBatch.from_arrays([names], names=["USER_ID"])
        if len(self.strangers):
            yield pa.RecordBatch.from_arrays([self.strangers], names=["USER_ID"])

    def of_users(self, chosen: Collection[str], weights: str = trained.GATED) -> Iterator[pa.RecordBatch]:
        """The rows of some users, in order of user and rank.

        Args:
            weights: the task that left them.
        """
        wanted = pa.array(chosen, pa.string())
        yield from self._with_strangers(
            self._chosen(lambda _, names: np.flatnonzero(pc.is_in(names, wanted)), weights),
            np.flatnonzero(pc.is_in(self.strangers, wanted)),
        )

    def of_places(self, chosen: Int64, weights: str = trained.GATED) -> Iterator[pa.RecordBatch]:
        """As `of_users`, of users by their places in `users.parquet`."""
        yield from self._chosen(lambda rows, _: np.flatnonzero(np.isin(rows, chosen)), weights)

    def _chosen(self, places: Callable[[Int64, pa.Array], Int64], weights: str) -> Iterator[pa.RecordBatch]:
        model = trained.model(self.store, self.settings, weights)
        for rows, names in self._all_blocks():
            chosen = places(rows, names)
            if len(chosen):
                yield from self._block(model, self._by_popularity, rows[chosen], names.take(pa.array(chosen)))

    def _with_strangers(self, rows: Iterator[pa.RecordBatch], chosen: Int64) -> Iterator[pa.RecordBatch]:
        yield from strangers.merged(rows, self._of_strangers(chosen)) if len(chosen) else rows

    def _of_strangers(self, chosen: Int64) -> Iterator[pa.RecordBatch]:
        """The most popular eligible items that are not left out to them."""
        assert self.left_out_to_strangers is not None  # without pairs there are no strangers
        k = min(self.settings.export.top_k, len(self.among) - 1)
        for block in row_blocks(len(chosen), self.settings.export.block_users):
            users = chosen[block]
            left_out = self._in_columns(self.left_out_to_strangers.select(users))
            scores, columns = top_k(self._by_popularity, left_out, users, k)
            served = scores > -np.inf
            user, place = np.nonzero(served)
            yield from self._table(
                RECOMMENDATIONS,
                USER_ID=self.strangers.take(pa.array(users[user])),
                RANK=place + 1,
                items=self.among[columns[served]],
                SCORE=scores[served],
                ORIGIN="popular",
            ).to_batches()

    def _all_blocks(self) -> Iterator[tuple[Int64, pa.Array]]:
        return chain.from_iterable(map(self._blocks, self.parts(PART_USERS)))

    def _blocks(self, users: range) -> Iterator[tuple[Int64, pa.Array]]:
        """Those of some consecutive users who have rows, `export.block_users` or fewer at a time: their places and
        their USER_IDs."""
        names = self._user_ids.of(users)
        for block in ranges(len(users), self.settings.export.block_users):
            rows = np.arange(users.start + block.start, users.start + block.stop)
            active = rows if self.eligible.active is None else rows[self.eligible.active[rows]]
            yield active, names.take(pa.array(active - users.start))

    def _block(
        self, model: SASRec, popular: Scorer, rows: Int64, names: pa.Array
    ) -> Iterator[pa.RecordBatch]:
        histories = self.data.split.whole.select(rows)
        by_model = histories.lengths > 0
        scorer = model_scorer(model, histories, self.eligible.items)
        k = min(self.settings.export.top_k, len(self.among) - 1)
        reserved = max(0, k - self.settings.export.top_k + self.settings.export.new_item_slots)
        slots = reserved if len(self.new) else 0
        pick = reserve(k, slots, self.column_of[self.new], len(self.among)) if slots else None
        scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
        items = np.zeros((len(rows), k), dtype=np.int64)
        for score, chosen, how in (
            (scorer, np.flatnonzero(by_model), pick),
            (popular, np.flatnonzero(~by_model), None),
        ):
            left_out = self._left_out(rows[chosen])
            scores[chosen], columns = top_k(score, left_out, chosen, k, how, HELD if how else 1)
            items[chosen] = self.among[columns]
        served = scores > -np.inf
        user, place = np.nonzero(served)
        origin = np.where(by_model[user], "model", "popular")
        origin[by_model[user] & (place >= k - slots) & np.isin(items[served], self.new)] = "new"
        yield from self._table(
            RECOMMENDATIONS,
            USER_ID=names.take(pa.array(user)),
            RANK=place + 1,
            items=items[served],
            SCORE=scores[served],
            ORIGIN=origin,
        ).to_batches()

    def _left_out(self, rows: Int64) -> Sequences | None:
        """What is not to be recommended to some users, as columns of the scores."""
        left_out = self.data.events.select(rows) if self.settings.export.exclude_seen else None
        if self.eligible.excluded is not None:
            excluded = self.eligible.excluded.select(rows)
            left_out = left_out.joined(excluded) if left_out is not None else excluded
        return left_out if left_out is None else self._in_columns(left_out)

    def _in_columns(self, items: Sequences) -> Sequences:
        """Items as columns of the scores; padding for those that are not eligible."""
        return items if self.eligible.items is None else items.renumbered(self.column_of)

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
