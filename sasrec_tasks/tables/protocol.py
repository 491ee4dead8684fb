"""What the pipeline asks of a place to publish to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.mentions import Mentions
from sasrec_tasks.traces import Searched

if TYPE_CHECKING:
    from sasrec_tasks.tables.retention import Keep

RECOMMENDATIONS = pa.schema(
    [
        pa.field("USER_ID", pa.string(), nullable=False),
        pa.field("RANK", pa.int32(), nullable=False),  # from 1
        pa.field("ITEM_ID", pa.string(), nullable=False),
        pa.field("SCORE", pa.float32(), nullable=False),  # falls with RANK; comparable within a user only
        pa.field("ORIGIN", pa.string(), nullable=False),  # "model", "popular" or "new"
        pa.field("RUN_ID", pa.string(), nullable=False),
        pa.field("AS_OF", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

POPULAR = pa.schema([column for column in RECOMMENDATIONS if column.name != "USER_ID"])
"""The popular items, for users the model has never seen: SCORE is an item's share of the events."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One version of the table that holds a run's rows."""

    version: int
    run_id: str
    as_of: datetime
    metadata: dict[str, Any] = field(default_factory=dict)  # of the publish; empty if not known
    at: datetime | None = None  # when the version was made, if that is known


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was, or in a dry run would be, removed from one table."""

    url: str
    kept: dict[str, str]  # run id → why, the newest first
    removed: tuple[Published, ...]  # the newest first
    leftovers: int  # files of publishes that never came to an end
    bytes: int  # freed, of all that was removed


FORGOTTEN = "forgotten"
"""Key in the metadata of a version that serves a run's rows again without users who were forgotten."""

FORGOTTEN_LIST = "forgotten_list"
"""Key in the metadata of a version that was made with a list of forgotten users: which one (`named_list`)."""


@dataclass(frozen=True, kw_only=True)
class Forgot:
    """What became of one table from which users were taken out."""

    url: str
    version: int | None  # what serves the rows without them now; None where no table is
    removed: tuple[int, ...] = ()  # versions whose rows are gone, the newest first


class Superseded(Exception):  # noqa: N818 - it says what is the case
    """Rows of a later `as_of` are published: they are not replaced by older ones."""

    def __init__(self, newest: Published) -> None:
        super().__init__(f"run {newest.run_id} of {newest.as_of.isoformat()} is published")
        self.newest = newest


class OtherList(BadSettings):
    """The newest version names a list of forgotten users that whoever would replace it does not have."""


class Tables(Protocol):
    """The recommendations and the popular items beside them.

    A version is a whole: those who read see all rows of one or all rows of another, at any moment.
    """

    url: str
    folder: str | None
    """Folder or fsspec URL of what is kept in files, for what is put beside it; None of a database."""

    def published(self) -> Iterator[Published]:
        """What is published, newest first, without what was rolled back; nothing where no table is.

        Publishes whose rows were pruned are still listed: what they said of themselves outlives their rows.
        """
        ...

    def kept(self) -> Iterator[Published]:
        """All versions that can be served again, newest first, with those that were rolled back."""
        ...

    def rolled_back(self) -> set[str]:
        """The runs that were published, and rolled back since; nothing where no table is."""
        ...

    def publish(
        self,
        rows: Iterator[pa.RecordBatch],
        popular: pa.Table,
        *,
        run_id: str,
        as_of: datetime,
        metadata: dict[str, Any],
        may_replace: Callable[[Published], None] | None = None,
    ) -> Published:
        """Replace both tables by a run's rows, in one atomic version, or popular items first.

        A run that is already published is not published again: what is there is returned.

        Args:
            may_replace: called with the version that is to be replaced, before anything is written; what it raises
                ends the publish.

        Raises:
            Superseded: rows of a later `as_of` are published; nothing is written.
            OSError: another run was published meanwhile, or the place can't be written to. Trying
                again is safe.
        """
        ...

    def rollback(self, to: Published, *, instead_of: Published | None = None) -> Published:
        """Serve an earlier version again, both tables; a new version says so.

        Args:
            to: one of `kept`; nothing is done if its run is served already.
            instead_of: what is served as far as the caller knows; None: whatever is.

        Raises:
            NotKept: the version is not kept any more.
            OSError: another run was published meanwhile, and stays, or the place can't be written to. Trying
                again is safe.
        """
        ...

    def prune(self, keep: Keep, *, dry_run: bool = False) -> list[Pruned]:
        """Remove the rows of old publishes, popular items too, and what killed publishes left behind.

        What is served is always kept. A kill half way does no harm: a version that misses something is not one of
        `kept`, and the next time goes on.

        Args:
            keep: which publishes.
            dry_run: remove nothing.

        Returns:
            One for each table; nothing where no table is.

        Raises:
            OSError: the table was written to meanwhile, or can't be. Trying again is safe.
        """
        ...

    def forget(self, users: Collection[str], told: dict[str, Any] | None = None) -> list[Forgot]:
        """Serve the newest version's rows without some users, as a new version of the same run, and remove all others.

        The new version says so in its metadata. It is not made again where the newest one is such a version without
        these users, so that what was killed half way is gone on with. Popular items stay.

        Args:
            users: USER_IDs.
            told: what its metadata says besides.

        Returns:
            One for each table.

        Raises:
            OSError: the table was written to meanwhile, or can't be. Trying again is safe.
        """
        ...

    def search(self, mentions: Mentions) -> Searched:
        """Look for users in all that is kept of the table, its history, and what lies beside it.

        Raises:
            OSError: it can't be read.
        """
        ...

    def rows(self, version: int, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The recommendations of a version, to be read once; some columns, or all.

        Raises:
            NotKept: the version is not kept any more.
            OSError: it can't be read.
        """
        ...

    def for_users(self, users: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows of some users in order of user and rank; of no user, for those not in the table.

        Args:
            version: one that is kept; None is the newest.
        """
        ...

    def popular(self, version: int | None = None) -> pa.Table:
        """The popular items, best first, of a version or the newest."""
        ...


def require_replaceable(
    newest: Published | None, as_of: datetime, may_replace: Callable[[Published], None] | None
) -> None:
    """Refuse to replace rows of a later `as_of`, and what the publisher itself may not replace.

    Raises:
        Superseded: what is published is later.
    """
    if newest and newest.as_of > as_of:
        raise Superseded(newest)
    if newest and may_replace:
        may_replace(newest)


def require_served(newest: Published, known: Published | None, url: str) -> None:
    """Refuse to roll back a run that the caller has not known of.

    Args:
        known: what was served when it chose; None: whatever is served.

    Raises:
        OSError: another run is served by now.
    """
    if known and newest.run_id != known.run_id:
        raise meanwhile(url)


def served_again(earlier: Published, newest: Published) -> dict[str, Any]:
    """What a version's metadata says that serves an earlier one's rows again: that one's, and instead of what.

    The list of forgotten users is the newest one's: a way back leads to no shorter one.
    """
    content = {**earlier.metadata, "rolled_back": {"run_id": newest.run_id, "version": newest.version}}
    if FORGOTTEN_LIST in newest.metadata:
        content[FORGOTTEN_LIST] = newest.metadata[FORGOTTEN_LIST]
    return content


def forgotten(users: Collection[str], newest: Published, told: dict[str, Any] | None) -> dict[str, Any]:
    """What a version's metadata says that serves the newest one's rows without some users: how many, and since when.

    Args:
        told: and this.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {FORGOTTEN: {"users": len(users), "at": at, "instead_of": newest.version}, **(told or {})}


def is_without(rows: pa.Table, newest: Published, told: dict[str, Any] | None) -> bool:
    """Whether a version is already such a one.

    Args:
        rows: of the users, in it.
        told: what its metadata has to say besides.
    """
    return not len(rows) and FORGOTTEN in newest.metadata and (told or {}).items() <= newest.metadata.items()


def without(rows: Iterable[pa.RecordBatch], users: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Rows of the recommendations, without those of some users."""
    theirs = pa.array(sorted(users), pa.string())
    for batch in rows:
        kept = batch.filter(pc.invert(pc.is_in(batch.column("USER_ID"), theirs)))
        yield pa.RecordBatch.from_arrays(kept.columns, schema=RECOMMENDATIONS)


def meanwhile(url: str, error: Exception | None = None) -> OSError:
    """What to raise where another run has published since the table was looked at."""
    return OSError(
        f"{url}: was written to by another run meanwhile: try again{f' ({error})' if error else ''}"
    )


class Watched:
    """Keeps what goes wrong while rows are made: libraries that read them pass it on as text alone."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self.batches = batches
        self.error: BaseException | None = None

    def reader(self, schema: pa.Schema = RECOMMENDATIONS) -> pa.RecordBatchReader:
        """The rows, by default of the table's columns."""
        return pa.RecordBatchReader.from_batches(schema, self._rows())

    def _rows(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.batches
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise
