"""When a run is late: what the operator has set."""

from __future__ import annotations

import math

from sasrec_tasks.errors import BadSettings


def hours(text: str) -> float:
    """Hours after which a run that has not ended is late, from SASREC_DEADLINE_HOURS; 0: never, which is "" too.

    Raises:
        BadSettings: no such number.
    """
    try:
        found = float(text or 0)
    except ValueError:
        found = math.nan
    if not 0 <= found <= MOST:
        raise BadSettings(
            f"SASREC_DEADLINE_HOURS={text!r}: is no number of hours from 0, which is never, to {MOST:,}, for instance 6"
        )
    return found


MOST = 100_000
"""Hours; Airflow keeps the moment of a deadline as a date."""
