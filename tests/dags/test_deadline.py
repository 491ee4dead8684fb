"""A night that takes too long, at work: the triggerer tells people of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from airflow_processes import AIRFLOW, ROOT, running

from sasrec_tasks.generate import generate

HOURS = 1 / 3600


@pytest.fixture(scope="module")
def airflow_settings() -> dict[str, str]:
    return {
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "PYTHONPATH": str(ROOT),  # the DAG folder is not on it, as it is nowhere in production
        "SASREC_DEADLINE_HOURS": str(HOURS),
    }


def test_the_triggerer_tells_whom_variables_and_connections_name(real_airflow: Any, ways: Any) -> None:
    generate(
        real_airflow.home / "events" / "interactions.parquet", users=300, items=2000, events=9000, seed=1
    )
    triggerer = running([AIRFLOW, "triggerer"], real_airflow.home / "triggerer.log", real_airflow.environment)
    with real_airflow.at_work(), triggerer:
        variables = {"alert_webhook": "chat", "table": real_airflow.environment["SASREC_TABLE"]}
        for name, value in variables.items():
            real_airflow.ask("POST", "variables", {"key": f"sasrec_{name}", "value": value})
        real_airflow.ask("POST", "connections", {"connection_id": "chat", **ways.connections["chat"]})
        run = real_airflow.trigger({"train.epochs": 2, "gate.force_publish": True})
        real_airflow.wait("the message", lambda: ways.received.posts)
    (post,) = ways.received.posts
    assert post["text"].startswith(f"sasrec_nightly: late, {run}\n")
    assert f"has not ended {HOURS:g} h after it was queued" in post["text"]
    assert f"/dags/sasrec_nightly/runs/{quote(run)}/plugin/report" in post["text"]
    assert f"{variables['table']}: nothing, no run has published yet" in post["text"]
