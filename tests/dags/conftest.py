"""An Airflow of the tests' own, without its scheduler and with it."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from airflow_processes import AIRFLOW, RunningAirflow, airflow_at, answers, free_ports, log_in, running
from embedded_airflow import EmbeddedAirflow

PARTS = ("api-server", "dag-processor", "scheduler")  # a task that waits for a person needs no triggerer


LINEAGE = """
import json, os
from pathlib import Path

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.lineage import HookLineageReader, get_hook_lineage_collector


class Listener:
    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        found = get_hook_lineage_collector().collected_assets
        told = {kind: [each.asset.uri for each in getattr(found, kind)] for kind in ("inputs", "outputs")}
        (Path(os.environ["AIRFLOW_HOME"]) / "lineage.json").write_text(json.dumps(told))


class Plugin(AirflowPlugin):
    name = "lineage"
    hook_lineage_readers = [HookLineageReader]
    listeners = [Listener()]
"""
"""A plugin that reads lineage as OpenLineage's provider does, and writes down what a process has told so far."""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedAirflow:
    """An embedded Airflow, and somebody who reads lineage."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "plugins").mkdir()
    (home / "plugins" / "lineage.py").write_text(LINEAGE)
    return EmbeddedAirflow.at(home)


class RealAirflow(RunningAirflow):
    """An Airflow whose parts can be at work. No schedule starts a run."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """API server, DAG processor and scheduler run; the DAG is not paused."""
        with ExitStack() as stack:
            for part in PARTS:
                stack.enter_context(running([AIRFLOW, part], self.home / f"{part}.log", self.environment))
            self.wait("the API server", lambda: answers(self.api))
            log_in(self.api, "ann", "secret")
            self.ask("PATCH", f"dags/{self.dag}", {"is_paused": False})
            yield


@pytest.fixture(scope="module")
def airflow_settings() -> dict[str, str]:
    """What else stands in the environment of the real Airflow; for a module to override."""
    return {}


@pytest.fixture(scope="module")
def real_airflow(
    tmp_path_factory: pytest.TempPathFactory, airflow_settings: dict[str, str]
) -> Iterator[RealAirflow]:
    """An Airflow that knows the DAG and has places for source, store and table; nothing of it runs yet."""
    home = tmp_path_factory.mktemp("running")
    port, logs_port = free_ports(2)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({"ann": "secret"}))
    environment = {
        **airflow_at(home),
        "PYTHONWARNINGS": "ignore",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(logs_port),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # else last night's run would start by itself
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # a busy machine is no reason to try again in a minute
        "SASREC_SOURCE": str(home / "events"),
        "SASREC_STORE": str(home / "runs"),
        "SASREC_TABLE": str(home / "recommendations"),
        **airflow_settings,
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as api:
        airflow = RealAirflow(
            home, home / "logs", environment, api, asks=20
        )  # SQLite: another writer was there before
        airflow.command("db", "migrate")
        airflow.command("dags", "reserialize")
        yield airflow


@dataclass
class Received:
    """What people were told, by mail and by webhook."""

    mails: list[Any] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)

    def clear(self) -> None:
        self.mails.clear()
        self.posts.clear()


class Mails(Message):  # type: ignore[misc]
    def __init__(self, received: Received) -> None:
        super().__init__()
        self.received = received

    def prepare_message(self, session: Any, envelope: Any) -> Any:
        return email.message_from_bytes(envelope.content, policy=email.policy.default)

    def handle_message(self, message: Any) -> None:
        self.received.mails.append(message)


@dataclass(frozen=True)
class Ways:
    """Whom alerts reach, and the environment in which they do."""

    received: Received
    environment: dict[str, str]
    connections: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ways() -> Iterator[Ways]:
    """A mail server and a webhook, and the environment that has alerts sent there."""
    received = Received()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.posts.append({"path": self.path, **json.loads(body)})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (port,) = free_ports(1)
    mail = Controller(Mails(received), hostname="127.0.0.1", port=port)
    mail.start()
    smtp = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": port,
        "extra": {"from_email": "airflow@shop.example", "disable_ssl": True, "disable_tls": True},
    }
    webhook = {
        "conn_type": "slackwebhook",
        "host": f"http://127.0.0.1:{server.server_port}/services",
        "password": "T00/B00/s3cr3t",
    }
    yield Ways(
        received,
        {
            "SASREC_ALERT_EMAILS": "ann@shop.example, bob@shop.example",
            "SASREC_ALERT_WEBHOOK": "chat",
            "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(smtp),
            "AIRFLOW_CONN_CHAT": json.dumps(webhook),
        },
        {"smtp_default": smtp, "chat": webhook},
    )
    mail.stop()
    server.shutdown()
