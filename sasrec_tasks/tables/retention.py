"""Which publishes a table keeps: one rule for every kind of table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sasrec_tasks.tables.protocol import Published

UNFINISHED = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """The newest publishes by number, and all of the last days.

    Args:
        versions: so many publishes, at least 2: who reads one that has just been replaced can go on.
        days: and all that were served in so many days before `now`; None: all there are.
        now: by default the present.
    """

    versions: int
    days: float | None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if self.versions < 2:
            raise ValueError(f"versions={self.versions}: must be at least 2")

    @property
    def unfinished_since(self) -> datetime:
        """A publish may still be at work on what no version names, if it has changed after this moment."""
        return self.now - UNFINISHED

    def runs(self, versions: Sequence[Published]) -> dict[str, str]:
        """The runs whose rows are kept, all versions of them, and why.

        Args:
            versions: all whose rows are there, the newest first.

        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> versions = [Published(version=n, run_id=run, as_of=at, at=at) for n, run in ((3, "a"), (2, "c"), (1, "b"))]
        >>> Keep(versions=2, days=0, now=at).runs(versions)
        {'a': 'it is served', 'c': 'one of the newest 2 publishes'}
        """
        runs: dict[str, str] = {}
        seen: set[str] = set()
        replaced_at = self.now  # of the version at hand, by the one after it
        for version in versions:
            seen.add(version.run_id)
            if not runs:
                runs[version.run_id] = "it is served"
            elif version.run_id not in runs:
                if len(seen) <= self.versions:
                    runs[version.run_id] = f"one of the newest {self.versions} publishes"
                elif self.days is None:
                    runs[version.run_id] = "prune.keep_days is null"
                elif replaced_at > self.now - timedelta(days=self.days):
                    runs[version.run_id] = f"served in the last {self.days:g} days"
            replaced_at = version.at or version.as_of
        return runs


class NotKept(OSError):  # noqa: N818 - it says what is the case
    """A version whose rows are gone, or that there never was: trying again doesn't bring them back."""


def not_kept(url: str, version: int) -> NotKept:
    """What to raise where the rows of a version are gone."""
    return NotKept(
        f"{url}: version {version} is not kept any more: its rows were pruned "
        "(settings prune.keep_versions and prune.keep_days), or removed with those of a user who was forgotten: "
        "choose one that is kept"
    )
