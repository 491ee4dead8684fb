"""## Recommendations upsert

An example of a consumer: whenever `sasrec_nightly` has published, brings a table in PostgreSQL up to
the new version, writing only users whose list has changed, in one transaction. Re-running changes
nothing.

Set the Variable `sasrec_upsert_to` (or `SASREC_UPSERT_TO`) to `connection:ID?table=name`; as long as
it is not set, runs are skipped.
"""

from __future__ import annotations

from sasrec_tasks.airflow_files import made_for

made_for("0.1.0")

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

RECOMMENDATIONS = Asset(name="sasrec_recommendations", uri="sasrec://recommendations")


@task(execution_timeout=timedelta(hours=1), retries=2, inlets=[RECOMMENDATIONS])
def upsert() -> dict[str, Any]:
    """Load what has changed since the version that was loaded last."""
    import sasrec_shared  # beside this file

    from sasrec_tasks.upsert import upsert as load

    to = sasrec_shared.deployment("upsert_to")
    if not to:
        raise AirflowSkipException("sasrec_upsert_to is not set")
    events = get_current_context()["triggering_asset_events"].get(RECOMMENDATIONS, [])
    with sasrec_shared.at_work():
        return load(events[-1].extra["table"] if events else sasrec_shared.table(), to)


@dag(schedule=[RECOMMENDATIONS], catchup=False, max_active_runs=1, doc_md=__doc__, tags=["recommendations"])
def recommendations_upsert() -> None:
    """Table to PostgreSQL."""
    upsert()


recommendations_upsert()
