"""A consumer that reads the table over and over, and holds each read against the last: `simulate.py` starts it.

    python benchmarks/reader.py TABLE STOP

Reads until the file STOP exists; then prints JSON: reads, errors, torn (not one whole run, or other rows than before
of the same version), stale (an older version than one seen before, or a new one of an older night that is no
rollback), versions seen with their `as_of` and rows.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Recommendations

PAUSE = 0.2  # seconds


@dataclass
class Watch:
    """What a consumer met so far."""

    reads: int = 0
    before_the_first: int = 0
    errors: list[str] = field(default_factory=list)
    torn: list[int] = field(default_factory=list)
    stale: list[tuple[int, str]] = field(default_factory=list)
    versions: list[tuple[int, str, int]] = field(default_factory=list)

    def read(self, url: str) -> None:
        """Read the whole table once."""
        try:
            newest = Recommendations(url)
            rows = newest.to_pandas()
        except BadSettings:
            if self.versions:
                self.errors.append("nothing is published any more")
            self.before_the_first += 1
        except Exception as error:  # whatever it is, a consumer must not see it
            self.errors.append(repr(error))
        else:
            is_back = "rolled_back" in newest.metadata
            self.saw(newest.version, newest.as_of.isoformat(), newest.run_id, rows, is_back=is_back)

    def saw(
        self, version: int, as_of: str, run_id: str, rows: pd.DataFrame, *, is_back: bool = False
    ) -> None:
        """Hold a read against what a table must be, and against the one before.

        Args:
            is_back: the version is a rollback, which may serve an older night.
        """
        self.reads += 1
        ranks = rows.groupby("USER_ID")["RANK"]
        one_run = (rows["RUN_ID"] == run_id).all()
        found = (version, as_of, len(rows))
        before = self.versions[-1] if self.versions else None
        is_other = before is not None and before[:2] == found[:2] and before != found
        if not len(rows) or not one_run or not (ranks.max() == ranks.size()).all() or is_other:
            self.torn.append(version)
        if before and (version < before[0] or (as_of < before[1] and not is_back)):
            self.stale.append((version, as_of))
        if found != before:
            self.versions.append(found)


def main(url: str, stop: Path) -> None:
    """Read until told to stop."""
    watch = Watch()
    while not stop.exists():
        watch.read(url)
        time.sleep(PAUSE)
    print(json.dumps(asdict(watch)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
