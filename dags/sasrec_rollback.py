"""## SASRec rollback

Serves an earlier publish of the table again: recommendations, popular items and champion go back together, as a
new version, and whoever waits for the table is told. Trigger it by hand; without `version` and `run_id` it goes back
to the publish before the one that is served. The next night compares itself with what is served then.

**Re-running** with a version or a run does nothing if that is served already, and tells nobody twice; without, it goes
back once more. Undo it by the run that was rolled back: trigger with its `run_id`, or clear its `export`.
"""

from __future__ import annotations

from sasrec_tasks.airflow_files import made_for

made_for("0.1.0")

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag, get_current_context, task

RECOMMENDATIONS = Asset(name="sasrec_recommendations", uri="sasrec://recommendations")


@task(execution_timeout=timedelta(minutes=30), retries=0, outlets=[RECOMMENDATIONS])
def rollback() -> dict[str, Any]:
    """Go back, and tell those who wait for the table."""
    import sasrec_shared  # beside this file

    from sasrec_tasks.rollback import roll_back

    params = get_current_context()["params"]
    with sasrec_shared.at_work():
        done = roll_back(sasrec_shared.table(), version=params["version"], run_id=params["run_id"] or "")
    sasrec_shared.tell(done)
    return done


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params={
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Version",
            description="Of the table, to serve again.",
        ),
        "run_id": Param(
            None,
            type=["null", "string"],
            title="Run",
            description="Whose rows to serve again, instead of a version.",
        ),
    },
    doc_md=__doc__,
    tags=["recommendations"],
)
def sasrec_rollback() -> None:
    """Back to an earlier publish."""
    rollback()


sasrec_rollback()
