"""## Recommendations digest

An example of a consumer: runs whenever `sasrec_nightly` has published, reads the new version of the
table and writes how it differs from what was served before as `<table>_digest/<version>.json`; after a
rollback, from what was rolled back. Re-running writes the same file again.
"""

from __future__ import annotations

from sasrec_tasks.airflow_files import made_for

made_for("0.1.0")

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, dag, get_current_context, task

RECOMMENDATIONS = Asset(name="sasrec_recommendations", uri="sasrec://recommendations")


@task(execution_timeout=timedelta(minutes=30), retries=2, inlets=[RECOMMENDATIONS])
def digest() -> dict[str, Any]:
    """Describe the version that was published; of a manual run, the newest."""
    import sasrec_shared  # beside this file

    from sasrec_tasks.digest import write

    events = get_current_context()["triggering_asset_events"].get(RECOMMENDATIONS, [])
    with sasrec_shared.at_work():
        if events:
            extra = events[-1].extra
            return write(extra["table"], extra["version"], extra["previous_version"])
        return write(sasrec_shared.table())


@dag(schedule=[RECOMMENDATIONS], catchup=False, max_active_runs=1, doc_md=__doc__, tags=["recommendations"])
def recommendations_digest() -> None:
    """Table to digest."""
    digest()


recommendations_digest()
