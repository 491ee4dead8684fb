"""Nights and commands of an operator who has put a secret in every place there is, and in those where none belongs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from airflow_in_one_process import AirflowInOneProcess
from airflow_processes import AIRFLOW, RunningAirflow, answers, free_ports, log_in, running
from embedded_airflow import EmbeddedAirflow
from planted_secrets import Secrets

from sasrec_tasks.config import PLACES

NIGHT = "sasrec_nightly"
OWN = "planted"
"""A pipeline whose tasks are tried once, with settings of the environment's."""

OWN_DAG = f"""
import json, os
from sasrec_nightly import make_dag  # Airflow reads a DAG file only if these two words are in it

make_dag("{OWN}", json.loads(os.environ["PLANTED"]), default_args={{"retries": 0}})
"""
QUICK = {
    "train.epochs": 1,
    "train.max_len": 20,
    "train.hidden_units": 16,
    "evaluate.bootstrap_samples": 100,
    "gate.force_publish": True,
}
QUERY = 'SELECT "USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP" FROM events'


class Receiver:
    """A mail server that wants a login, and a webhook; what reaches them, and the secrets they were shown."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.shown: list[str] = []
        receiver = self

        class Webhook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.shown.append(self.path)
                receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        class Mails:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
                receiver.bodies.append(bytes(envelope.content))
                return "250 OK"

        def authenticated(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            receiver.shown.append(data.password.decode())
            return AuthResult(success=True)

        self.webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
        threading.Thread(target=self.webhook.serve_forever, daemon=True).start()
        (self.port,) = free_ports(1)
        self.mail = Controller(
            Mails(),
            hostname="127.0.0.1",
            port=self.port,
            authenticator=authenticated,
            auth_require_tls=False,
            auth_required=True,
        )
        self.mail.start()

    def close(self) -> None:
        self.mail.stop()
        self.webhook.shutdown()


@dataclass
class Deployment:
    """An Airflow whose operator has put a secret in every place there is, all that it printed, and triggers it refused.

    Args:
        password: of its user `ann`.
    """

    airflow: EmbeddedAirflow
    secrets: Secrets
    server: str
    bucket: str
    s3: Any
    receiver: Receiver
    password: str
    printed: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    refused: dict[str, httpx.Response] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.airflow.home

    @cached_property
    def inputs(self) -> Path:
        """Files of the operator's that hold secrets: not searched."""
        folder = self.home / "inputs"
        folder.mkdir(exist_ok=True)
        return folder

    def keep(self, what: str, done: subprocess.CompletedProcess[str]) -> None:
        assert what not in self.printed, what
        self.printed[what], self.status[what] = done.stdout + done.stderr, done.returncode

    @cached_property
    def process(self) -> AirflowInOneProcess:
        """Where nights run: an import of Airflow takes longer than most of them."""
        folder = self.home / "process"
        folder.mkdir()
        return AirflowInOneProcess(folder, self.airflow.environment)

    def night(
        self, what: str, dag: str = NIGHT, conf: Any = None, *, anew: bool = False, **environment: str
    ) -> None:
        """Run a DAG, whatever becomes of it; `anew` in a process of its own."""
        if anew:
            self.keep(what, self.airflow.test_run(conf or {}, dag, **environment))
            return
        command = ("dags", "test", dag, "--conf", json.dumps(conf or {}))
        self.keep(what, self.process.run(*command, environment={**self.airflow.environment, **environment}))

    def own_night(self, what: str, settings: dict[str, Any], **how: Any) -> None:
        """Run the pipeline whose tasks are tried once."""
        folder = self.home / "own" / str(len(self.printed))
        places = {"store": str(folder / "runs"), "table": str(folder / "table")}
        self.night(what, OWN, PLANTED=json.dumps({**QUICK, **places, **settings}), **how)

    def command(self, what: str, *arguments: str, **environment: str) -> None:
        """Run the command line, whatever becomes of it."""
        done = subprocess.run(
            [Path(sys.executable).with_name("sasrec-tasks"), *arguments],
            env={**self.airflow.environment, **environment},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        self.keep(what, done)

    def set_variable(self, name: str, value: str) -> None:
        """An Airflow Variable; from a file, as a command line is kept in Airflow's log of events."""
        file = self.inputs / "variables.json"
        file.write_text(json.dumps({name: value}))
        self.airflow.command("variables", "import", str(file))


def address(server: str, user: str, password: str = "", host: str = "", **query: str) -> str:
    """Of the shop's database, or of a host that is none."""
    given = {} if host else {"host": parse_qs(urlsplit(server).query)["host"][0]}
    login = f"{user}:{password}@" if password else f"{user}@"
    return f"postgresql://{login}{host}/shop?" + "&".join(
        f"{k}={quote(v, safe='')}" for k, v in {**given, **query}.items()
    )


def with_password(own: Deployment, where: str) -> str:
    """An address with a new secret in it."""
    return f"postgresql://u:{own.secrets.new(where)}@127.0.0.1:1/db?table=t"


def go_well(own: Deployment) -> None:
    """Nights with all that asks for a secret, one that the gate refuses, and what comes after."""
    by_libpq = address(own.server, "of_libpq", table="by_libpq")
    tables = f"s3://{own.bucket}/table, connection:stock?table=top, {by_libpq}"
    night: dict[str, Any] = {
        "SASREC_SOURCE": "connection:warehouse",
        "SASREC_STORE": f"s3://{own.bucket}/runs",
        "SASREC_TABLE": tables,
        "SASREC_SETTINGS": json.dumps({**QUICK, "ingest.query": QUERY}),
    }
    own.night("a night that publishes", **night)
    own.night("a night that publishes again", **night)
    own.night(
        "a night that is refused", conf={"gate.force_publish": False, "train.learning_rate": 1e-9}, **night
    )
    own.night("a rollback", "sasrec_rollback", **night)
    own.night("a digest", "recommendations_digest", **night)
    own.night("an upsert", "recommendations_upsert", **night)


def meet_what_is_wrong(own: Deployment) -> None:
    """Nights that can't reach what they need, or may not."""
    wrong = address(own.server, "of_airflow", own.secrets.new("a password that is wrong"))
    nobody = address(
        own.server, "u", own.secrets.new("the password for a host that is not there"), "127.0.0.1:1"
    )
    own.own_night(
        "a table with a wrong password", {"table": "connection:wrong?table=t"}, AIRFLOW_CONN_WRONG=wrong
    )
    own.own_night(
        "a source with a wrong password",
        {"source": "connection:wrong", "ingest.query": QUERY},
        AIRFLOW_CONN_WRONG=wrong,
    )
    own.own_night(
        "a table at a host that is not there",
        {"table": "connection:nobody?table=t"},
        AIRFLOW_CONN_NOBODY=nobody,
    )
    own.own_night(
        "a source at a host that is not there",
        {"source": "connection:nobody", "ingest.query": QUERY},
        AIRFLOW_CONN_NOBODY=nobody,
    )
    own.own_night(
        "a query that is wrong", {"source": "connection:warehouse", "ingest.query": "SELECT x FROM nowhere"}
    )
    own.own_night(
        "a store at a server that is not there",
        {"store": f"s3://{own.bucket}/runs"},
        anew=True,
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
    )
    own.own_night(
        "a table at a server that is not there",
        {"table": f"s3://{own.bucket}/unreached"},
        anew=True,
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
    )
    (closed,) = free_ports(1)
    unheard = {"conn_type": "smtp", "host": "127.0.0.1", "port": closed, "login": "ann"}
    unheard |= {"password": own.secrets.new("the password for a mail server that is not there")}
    own.night(
        "a mail server that is not there", conf={"epochs": 1}, AIRFLOW_CONN_SMTP_DEFAULT=json.dumps(unheard)
    )
    silent = {"conn_type": "slackwebhook", "host": f"http://127.0.0.1:{closed}/services"}
    silent |= {"password": f"T00/{own.secrets.new('the token for a webhook that is not there')}"}
    own.night("a webhook that is not there", conf={"epochs": 1}, AIRFLOW_CONN_CHAT=json.dumps(silent))


def are_told_secrets(own: Deployment) -> None:
    """Nights whose operator, or who triggers them, writes a secret where none belongs."""
    new = own.secrets.new

    def postgres(where: str) -> str:
        return with_password(own, where)

    own.night("a source with a password", SASREC_SOURCE=postgres("a password in SASREC_SOURCE"))
    own.night(
        "a store with a key", SASREC_STORE=f"s3://AKIA:{new('a key in SASREC_STORE')}@{own.bucket}/runs"
    )
    own.night("a table with a password", SASREC_TABLE=postgres("a password in SASREC_TABLE"))
    own.night(
        "a presigned source",
        SASREC_SOURCE=f"https://127.0.0.1:9/x.parquet?X-Amz-Signature={new('a signature in SASREC_SOURCE')}",
    )
    own.night(
        "eligible items with a password",
        SASREC_ELIGIBLE_ITEMS=postgres("a password in SASREC_ELIGIBLE_ITEMS"),
    )
    unescaped = new("a password in SASREC_TABLE with what should be escaped", "{}/{}%zz{}@{}")
    own.night(
        "a table with a password that is not escaped", SASREC_TABLE=f"postgresql://u:{unescaped}@h/db?table=t"
    )
    for dag in ("sasrec_rollback", "recommendations_digest"):
        own.night(
            f"{dag} of a table with a password",
            dag,
            SASREC_TABLE=postgres(f"a password in the table of {dag}"),
        )
    own.set_variable("sasrec_table", postgres("a password in the Variable sasrec_table"))
    own.night("a table with a password in a Variable")
    own.airflow.command("variables", "delete", "sasrec_table")
    own.night(
        "a webhook's address in the place of its connection",
        conf={"epochs": 1},
        SASREC_ALERT_WEBHOOK=f"http://127.0.0.1:9/services/{new('the token in SASREC_ALERT_WEBHOOK')}",
    )
    own.night(
        "settings of the deployment with a password",
        SASREC_SETTINGS=json.dumps({"table": postgres("a password in SASREC_SETTINGS")}),
    )
    own.night(
        "settings of the deployment that are no JSON",
        SASREC_SETTINGS="{'table': '" + postgres("a password in SASREC_SETTINGS that are no JSON"),
    )
    own.own_night("settings of a pipeline with a password", {"table": postgres("a password in make_dag")})
    own.night(
        "a conf with a password deep in it",
        conf={"ingest": {"columns": {postgres("a password deep in a conf"): "USER_ID"}}},
    )
    own.night(
        "a conf with a password of another type",
        conf={"more": [postgres("a password in a list in a conf")]},
    )
    own.night("a conf with a password that is no setting", conf={"password": new("a setting that is none")})


def are_refused_by_airflow(own: Deployment) -> None:
    """Triggers by REST, as the UI sends them too, that no run is made of."""
    environment = own.airflow.environment
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{environment['AIRFLOW__API__PORT']}", timeout=60) as api,
        running([AIRFLOW, "api-server"], own.home / "api-server.log", environment),
    ):
        airflow = RunningAirflow(own.home, own.home / "logs", environment, api)
        airflow.wait("the API server", lambda: answers(api))
        log_in(api, "ann", own.password)
        for name in PLACES:
            conf = {name: with_password(own, f"a password in the {name} of a trigger by REST")}
            trigger = {"logical_date": None, "conf": conf}
            own.refused[name] = api.post(f"/api/v2/dags/{NIGHT}/dagRuns", json=trigger)


def have_the_command_line(own: Deployment) -> None:
    """What people type."""
    new = own.secrets.new
    places = ["--source", own.airflow.environment["SASREC_SOURCE"], "--store", str(own.home / "typed")]
    quick = [f"--set={name}={json.dumps(value)}" for name, value in QUICK.items()]
    table = f"{own.home}/typed-table, connection:warehouse?table=typed"
    own.command("a run", "run", *places, "--table", table, "--run-id", "typed", *quick)
    own.command(
        "its report", "report", "--store", str(own.home / "typed"), "--run-id", "typed", "--out", "typed.html"
    )
    for name in ("history", "check", "show", "recommend"):
        more = {"recommend": ["--user", "user-000001"], "show": ["--store", str(own.home / "typed")]}
        own.command(name, name, *more.get(name, []), *([] if name == "show" else ["--table", table]))
    for number, (run,) in enumerate(
        own.airflow.query("SELECT run_id FROM dag_run WHERE dag_id = ?", NIGHT)[:2]
    ):
        store = ["--store", f"s3://{own.bucket}/runs"]
        own.command(
            f"report {number} of Airflow's", "report", *store, "--run-id", run, "--out", f"{number}.html"
        )

    def written(name: str, text: str) -> str:
        (own.inputs / name).write_text(text)
        return str(own.inputs / name)

    secret = new("a password in a file of settings")
    file = written("settings.yaml", f"table: postgresql://u:{secret}@h/db?table=t\n")
    own.command("a file of settings with a password", "run", *places, "--config", file, SASREC_TABLE="")
    secret = new("a password in a file that is no YAML")
    file = written("broken.yaml", f"table: [postgresql://u:{secret}@h/db?table=t\n}}: x")
    own.command("a file with a password that is no YAML", "run", *places, "--config", file, SASREC_TABLE="")
    for number, form in enumerate(
        ("{}=postgresql://u:{}@h/db", "{}: postgresql://u:{}@h/db", "{}=[postgresql://u:{}@h/db")
    ):
        secret = new(f"a password on the command line, {number}")
        typed = form.format(("table", "table", "train.epochs")[number], secret)
        own.command(
            f"a password on the command line, {number}", "run", *places, f"--set={typed}", SASREC_TABLE=""
        )
    for number, pattern in enumerate(
        ("{}/{}", "{}%zz{}", "{}@{}", "{}#{}", "{}?{}", "[{}]", "{}:{}", "{} {}")
    ):
        secret = new(f"a password of a connection that is not escaped, {pattern}", pattern)
        own.command(
            f"a connection whose password is not escaped, {pattern}",
            *("run", *places, "--table", "connection:odd?table=t", "--run-id", f"odd-{number}"),
            SASREC_CONNECTION_ODD=f"postgresql://u:{secret}@127.0.0.1:1/db?connect_timeout=1",
        )
    secret = new("a wrong password of SASREC_CONNECTION_…")
    own.command(
        "a connection with a wrong password",
        *("run", *places, "--table", "connection:odd?table=t"),
        SASREC_CONNECTION_ODD=address(own.server, "of_command", secret),
    )
