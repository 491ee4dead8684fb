"""Alerts through Airflow's notifiers, to a mail server and a webhook of the tests' own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published(airflow: Any) -> str:
    """A night that published, before those of which people are told."""
    done = airflow.test_run({"train.epochs": 2, "gate.force_publish": True})
    assert done.returncode == 0, done.stdout + done.stderr
    return last_run(airflow)


def last_run(airflow: Any) -> str:
    ((run_id,),) = airflow.query("SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1")
    return str(run_id)


def states(airflow: Any, run_id: str) -> dict[str, str]:
    return dict(airflow.query(f"SELECT task_id, state FROM task_instance WHERE run_id = '{run_id}'"))


def run(
    airflow: Any, ways: Any, conf: dict[str, Any], **environment: str
) -> subprocess.CompletedProcess[str]:
    ways.received.clear()
    done: subprocess.CompletedProcess[str] = airflow.run(
        "dags", "test", "sasrec_nightly", "--conf", json.dumps(conf), **{**ways.environment, **environment}
    )
    return done


def body(mail: Any) -> str:
    return str(mail.get_body(("html", "plain")).get_content())


def test_a_night_that_went_well_tells_nobody(airflow: Any, published: str) -> None:
    assert states(airflow, published)["alert"] == "skipped"


def test_a_refused_night_is_told_by_both_ways_with_reason_report_and_what_is_served(
    airflow: Any, ways: Any, published: str
) -> None:
    done = run(airflow, ways, {"train.epochs": 1, "train.learning_rate": 1e-9})
    assert done.returncode != 0
    run_id = last_run(airflow)
    assert states(airflow, run_id)["alert"] == "success", done.stdout + done.stderr
    (mail,), (post,) = ways.received.mails, ways.received.posts
    assert mail["subject"] == f"sasrec_nightly: refused, {run_id}"
    assert mail["from"] == "airflow@shop.example"
    assert mail["to"] == "ann@shop.example, bob@shop.example"
    assert post["path"] == "/services/T00/B00/s3cr3t"
    report = f"http://localhost:8080/dags/sasrec_nightly/runs/{quote(run_id)}/plugin/report"
    for text in (body(mail), post["text"]):
        assert "GateRefused: the table is left as it is" in text
        assert report in text
        assert f"{airflow.home}/recommendations: version 0 of run {published}" in text
    assert "s3cr3t" not in done.stdout + done.stderr


def test_bad_data_is_told_as_it_is_and_is_no_template(airflow: Any, ways: Any, published: str) -> None:
    source = airflow.home / "{{ 7 * 6 }}<b>.parquet"
    source.write_text("no parquet")
    done = run(airflow, ways, {}, SASREC_SOURCE=str(source))
    assert done.returncode != 0
    found = states(airflow, last_run(airflow))
    assert (found["ingest"], found["alert"]) == ("failed", "success")
    (mail,), (post,) = ways.received.mails, ways.received.posts
    assert "failed in ingest" in mail["subject"]
    assert "{{ 7 * 6 }}&lt;b&gt;.parquet" in body(mail)
    assert "{{ 7 * 6 }}&lt;b&gt;.parquet" in post["text"]


def test_a_run_that_could_not_even_begin_is_told(airflow: Any, ways: Any, published: str) -> None:
    run(airflow, ways, {"epochs": 3})
    (post,) = ways.received.posts
    assert "BadSettings: conf: epochs: no such setting, did you mean train.epochs?" in post["text"]
    assert f"version 0 of run {published}" in post["text"]


def test_a_way_that_is_closed_does_not_close_the_other(airflow: Any, ways: Any) -> None:
    done = run(airflow, ways, {"epochs": 3}, SASREC_ALERT_WEBHOOK="nowhere")
    assert len(ways.received.mails) == 1  # no retry would send it again
    assert states(airflow, last_run(airflow))["alert"] == "failed"
    assert "sasrec_alert_webhook='nowhere'" in done.stdout + done.stderr


LATE = """
import sys
from airflow.sdk.execution_time.callback_supervisor import execute_callback
import structlog
context = {"dag_run": {"dag_id": "sasrec_nightly", "dag_run_id": "late one", "state": "running"}}
kwargs = {"hours": 6, "context": context}
print(execute_callback("sasrec_alerts.missed_deadline", kwargs, "", None, structlog.get_logger()))
"""


def test_a_missed_deadline_is_told(airflow: Any, ways: Any, published: str) -> None:
    ways.received.clear()
    environment = {**airflow.environment, **ways.environment}
    environment["PYTHONPATH"] = f"{ROOT / 'dags'}:{environment.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", LATE], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "(True, None)" in done.stdout, done.stdout + done.stderr
    (mail,), (post,) = ways.received.mails, ways.received.posts
    assert mail["subject"] == "sasrec_nightly: late, late one"
    assert "has not ended 6 h after it was queued: it is running" in post["text"]
    assert f"version 0 of run {published}" in post["text"]


EXAMPLES = """
import os, sys
from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
from airflow.providers.smtp.hooks.smtp import SmtpHook

mail = SmtpHook()
mail.smtp_connection = mail.get_connection("smtp_default")
print(mail.host, mail.port, mail.smtp_user, mail.use_ssl, mail.smtp_starttls, mail.from_email)
print(SlackWebhookHook(slack_webhook_conn_id=sys.argv[1])._get_conn_params()["url"])
"""


@pytest.mark.parametrize("document", ["docs/operations.md", ".env.example"])
def test_the_connections_in_the_documents_are_what_the_notifiers_take(airflow: Any, document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    given = dict(re.findall(r"^(?:# )?(AIRFLOW_CONN_[A-Z_]+)='(\{.*?\})'$", text, re.MULTILINE | re.DOTALL))
    assert given.keys() == {"AIRFLOW_CONN_SMTP_DEFAULT", "AIRFLOW_CONN_ALERT_WEBHOOK"}
    assert "SASREC_ALERT_WEBHOOK=alert_webhook" in text
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES, "alert_webhook"],
        env={**airflow.environment, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-2:] == [
        "smtp.example.com 587 USER False True airflow@example.com",
        "https://hooks.slack.com/services/T00/B00/XXX",
    ], done.stderr
