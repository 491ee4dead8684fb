"""Tells people of a night that went wrong, through Airflow's notifiers; no DAG of its own.

Whom is said by Airflow Variables, or by the environment: `sasrec_alert_emails` (`SASREC_ALERT_EMAILS`), addresses with
commas between, sent by the connection `sasrec_alert_smtp` (by default `smtp_default`), and `sasrec_alert_webhook`,
the connection of a Slack webhook, or of one that takes the same messages. Nobody, if neither is set.
"""

from __future__ import annotations

from sasrec_tasks.airflow_files import made_for

made_for("0.1.0")

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier, Connection, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from sasrec_tasks.alerts import Alert

log = logging.getLogger(__name__)

EXTRA = "the package of the notifier is missing where tasks run: pip install 'sasrec-tasks[alerts]'"


def deployment(name: str) -> str:
    """What the operator has set: the Variable `sasrec_<name>`, else the environment's `SASREC_<NAME>`."""
    value = None
    try:
        value = Variable.get(f"sasrec_{name}", default=None)
    except Exception as error:  # Airflow 3.3.2 refuses Variables to what it calls for a deadline
        log.info("%s: only the environment is asked: %s", name, error)
    return value or os.environ.get(f"SASREC_{name.upper()}", "")


def report(dag_id: str, run_id: str) -> str:
    """Address of a run's report in Airflow's UI."""
    base = conf.get("api", "base_url", fallback="http://localhost:8080/").rstrip("/")
    return f"{base}/dags/{dag_id}/runs/{quote(run_id)}/plugin/report"


def send(alert: Alert, context: Any) -> bool:
    """Send an alert by all ways that are set; False if there is none.

    Each is tried, whatever becomes of the others. Notifiers are not called as Airflow calls them, which would take
    text out of the data for a template.

    Raises:
        RuntimeError: it could not be sent by any way; trying again may help.
        AirflowFailException: it was sent, but not by all ways; trying again would send it twice.
    """
    sent, failures = 0, []
    chosen = {
        "sasrec_alert_emails": (deployment("alert_emails"), _emails),
        "sasrec_alert_webhook": (deployment("alert_webhook"), _webhook),
    }
    for name, (value, notifier) in chosen.items():
        if value:
            try:
                notifier(alert, value).notify(context)
                sent += 1
            except Exception as error:
                shown = "…" if "://" in value else repr(value)  # an address of a webhook is a secret
                failures.append(f"{name}={shown}: {EXTRA if isinstance(error, ImportError) else error}")
    if failures:
        said = f"could not be sent: {'; '.join(failures)}"
        raise AirflowFailException(said) if sent else RuntimeError(said)
    return bool(sent)


def _emails(alert: Alert, addresses: str) -> BaseNotifier:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    notifier: BaseNotifier = SmtpNotifier(
        to=[address for part in addresses.split(",") if (address := part.strip())],
        subject=alert.subject,
        html_content=alert.as_html(),
        smtp_conn_id=deployment("alert_smtp") or "smtp_default",
    )
    return notifier


def _webhook(alert: Alert, connection: str) -> BaseNotifier:
    from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

    if "://" in connection:
        raise ValueError(
            "is the address of the webhook, which is a secret: make a connection of it, and name that one here"
        )
    notifier: BaseNotifier = SlackWebhookNotifier(
        slack_webhook_conn_id=connection,
        text=alert.as_text(),
        retry_handlers=[],  # they log the address, which is a secret; the task is tried again
    )
    return notifier


def failed(dag_id: str, run_id: str, reasons: Mapping[str, str], table: str, context: Any) -> bool:
    """Tell of a run that ended without a publish; False if there is nobody to tell."""
    from sasrec_tasks import alerts, connections

    with connections.use(lambda name: Connection.get(name).get_uri()):
        alert = alerts.failed(dag_id, run_id, reasons, table=table, report=report(dag_id, run_id))
    log.warning("%s", alert.as_text())
    return send(alert, context)


def missed_deadline(context: Mapping[str, Any], hours: float, table: str = "") -> None:
    """Tell of a run that has not ended in time; called by `sasrec_deadline`, in the triggerer.

    Args:
        context: what Airflow knows of the run.
        hours: after which it is late.
        table: the pipeline's own, if it has one; by default the deployment's.
    """
    from sasrec_tasks import alerts, connections

    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    with connections.use(lambda name: Connection.get(name).get_uri()):
        alert = alerts.late(
            dag_id,
            run_id,
            run["state"],
            timedelta(hours=hours),
            table=(run.get("conf") or {}).get("table") or table or deployment("table"),
            report=report(dag_id, run_id),
        )
    log.warning("%s", alert.as_text())
    send(alert, context)
