"""## Recommendations upsert

An example of a consumer: whenever `sasrec_nightly` has published, brings a table in PostgreSQL up to
the new version, writing only users whose list has changed, in one transaction. Re-running changes
nothing.

Set the Variable `sasrec_upsert_to` (or `SASREC_UPSERT_TO`) to `connection:ID?table=name`; as long as
it is not set, runs are skipped.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, Connection, Variable, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

RECOMMENDATIONS = Asset(name="sasrec_recommendations", uri="sasrec://recommendations")


def deployment(name: str) -> str:
    """What the operator has set."""
    return Variable.get(f"sasrec_{name}", default=None) or os.environ.get(f"SASREC_{name.upper()}", "")


@task(execution_timeout=timedelta(hours=1), retries=2, inlets=[RECOMMENDATIONS])
def upsert() -> dict[str, Any]:
    """Load what has changed since the version that was loaded last."""
    from sasrec_tasks import connections
    from sasrec_tasks.upsert import upsert as load

    to = deployment("upsert_to")
    if not to:
        raise AirflowSkipException("sasrec_upsert_to is not set")
    events = get_current_context()["triggering_asset_events"].get(RECOMMENDATIONS, [])
    table = events[-1].extra["table"] if events else deployment("table")
    with connections.use(lambda name: Connection.get(name).get_uri()):
        return load(table, to)


@dag(schedule=[RECOMMENDATIONS], catchup=False, max_active_runs=1, doc_md=__doc__, tags=["recommendations"])
def recommendations_upsert() -> None:
    """Table to PostgreSQL."""
    upsert()


recommendations_upsert()
