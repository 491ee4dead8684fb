"""The versions of a table whose kind keeps no history by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables.protocol import Published, meanwhile, served_again
from sasrec_tasks.tables.retention import NotKept


@dataclass(frozen=True, kw_only=True)
class Version(Published):
    """One version: whose rows are served, and what was served before."""

    place: str  # of the rows, shared by versions that serve the same publish
    follows: int | None  # the version before, without those that were rolled back


class Versions:
    """All that were published, in order; the rows of old ones may have been pruned since."""

    def __init__(self, recorded: Iterable[Version] = ()) -> None:
        self.recorded = {
            version.version: version for version in sorted(recorded, key=lambda each: each.version)
        }

    @property
    def newest(self) -> Version | None:
        """The one that is served."""
        return next(reversed(self.recorded.values()), None)

    @property
    def next(self) -> int:
        """Number of the next version."""
        return self.newest.version + 1 if self.newest else 0

    def served(self) -> Iterator[Version]:
        """The newest, the one before it, and so on, without those that were rolled back."""
        version = self.newest
        while version:
            yield version
            version = None if version.follows is None else self.recorded.get(version.follows)

    def at(self, version: int | None, url: str) -> Version:
        """One that was published, or the newest.

        Args:
            url: of the table, for messages.

        Raises:
            BadSettings: nothing is published there.
            NotKept: there is no such version.
        """
        if self.newest is None:
            raise BadSettings(f"table={url!r}: no table there: check the setting, or publish a run first")
        if version is None:
            return self.newest
        if version not in self.recorded:
            raise NotKept(f"{url}: version {version} is not kept: there was none of that number")
        return self.recorded[version]

    def kept(self, there: Collection[str]) -> Iterator[Version]:
        """Those that can be served again, newest first.

        Args:
            there: the places that hold all rows of their publish.
        """
        return (version for version in reversed(self.recorded.values()) if version.place in there)

    def rolled_back(self) -> set[str]:
        """Runs that were published, and are not what is served, nor what was before it."""
        return {version.run_id for version in self.recorded.values()} - {
            version.run_id for version in self.served()
        }

    def of_run(self, run_id: str) -> Version | None:
        """A run's version, if it has not been rolled back."""
        return next((version for version in self.served() if version.run_id == run_id), None)

    def after(
        self,
        before: Versions,
        url: str,
        *,
        place: str,
        run_id: str,
        as_of: datetime,
        metadata: dict[str, Any],
    ) -> Version:
        """The next version, with a run's rows, if nothing else was published since ``before``.

        Raises:
            OSError: something was.
        """
        if self.newest != before.newest:
            raise meanwhile(url)
        return Version(
            version=self.next,
            place=place,
            follows=self.newest.version if self.newest else None,
            run_id=run_id,
            as_of=as_of,
            metadata={**metadata, "run_id": run_id, "as_of": as_of.isoformat()},
            at=datetime.now(UTC),
        )

    def renewed(self, place: str, told: dict[str, Any]) -> Version:
        """The next version, which serves the newest one's run from another place and tells something more."""
        newest = self.newest
        assert newest is not None
        return replace(
            newest,
            version=self.next,
            place=place,
            metadata={**newest.metadata, **told},
            at=datetime.now(UTC),
        )

    def back_to(self, version: int, url: str) -> Version:
        """The next version, which serves an earlier one again; raises as `at`."""
        earlier, newest = self.at(version, url), self.at(None, url)
        return replace(
            earlier, version=self.next, metadata=served_again(earlier, newest), at=datetime.now(UTC)
        )
