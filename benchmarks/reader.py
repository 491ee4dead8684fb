"""A consumer that reads the table over and over, and holds each read against the last: `simulate.py` starts it.

    python benchmarks/reader.py TABLE STOP

Reads until the file STOP exists; then prints JSON: reads, errors, torn (not one whole run), stale (an older version
than one seen before; a rollback makes a new one), versions seen.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Recommendations

PAUSE = 0.2  # seconds


def main(url: str, stop: Path) -> None:
    """Read until told to stop."""
    found: dict[str, Any] = {"reads": 0, "before_the_first": 0, "errors": [], "torn": [], "stale": []}
    seen: list[tuple[int, str]] = []  # version, as_of
    while not stop.exists():
        try:
            newest = Recommendations(url)
            rows = newest.to_pandas()
        except BadSettings:
            if seen:
                found["errors"].append("nothing is published any more")
            found["before_the_first"] += 1
            time.sleep(PAUSE)
            continue
        except Exception as error:  # whatever it is, a consumer must not see it
            found["errors"].append(repr(error))
            time.sleep(PAUSE)
            continue
        found["reads"] += 1
        ranks = rows.groupby("USER_ID")["RANK"]
        whole = (rows["RUN_ID"] == newest.run_id).all() and (ranks.max() == ranks.size()).all()
        if not whole or not len(rows):
            found["torn"].append(newest.version)
        now = (newest.version, newest.as_of.isoformat())
        if seen and now[0] < seen[-1][0]:
            found["stale"].append(now)
        if not seen or now != seen[-1]:
            seen.append(now)
        time.sleep(PAUSE)
    print(json.dumps({**found, "versions": seen}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
