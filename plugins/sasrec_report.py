"""The report in Airflow's UI: a tab on each run of the DAG, and one on the DAG for its nights.

Only wiring: who may read, and which folder a run recorded. `sasrec_tasks.report` reads it and makes the pages. They
are for people who may read the DAG, hold no script, and say by their headers that none may run.

A run's page opens one folder, that which the run's first task recorded (XCom `run` of `ingest`). It must be named as
the run and lie in a store of this deployment: `sasrec_store`, under `sasrec_allowed_roots`, or one of
`sasrec_report_stores` (more stores, with commas between). Each is an Airflow Variable, or SASREC_… in the API
server's environment.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI
    from sqlalchemy.orm import Session

    from sasrec_tasks.artifacts import RunStore
    from sasrec_tasks.report.nights import NightsReport
    from sasrec_tasks.report.status import Scheduled

log = logging.getLogger(__name__)

PREFIX = "/reports"
FIRST = "ingest"
OWN_TASKS = {FIRST, "train", "export"}
"""By which a run of this pipeline is known, whatever its DAG is called."""

NEWEST = 100
"""DAG runs that the page of the nights looks at."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


def deployment(name: str) -> str:
    """What the operator has set: the Variable `sasrec_<name>`, else the environment's `SASREC_<NAME>`."""
    from airflow.models import Variable

    return Variable.get(f"sasrec_{name}", default_var=None) or os.environ.get(f"SASREC_{name.upper()}", "")


def connection(name: str) -> str:
    """The address of an Airflow Connection."""
    from airflow.models import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return str(Connection.get_connection_from_secrets(name).get_uri())
    except AirflowNotFoundException as error:
        raise KeyError(name) from error


def stores() -> list[str]:
    """Where runs may be read from."""
    from sasrec_tasks.roots import places

    return [
        place for name in ("store", "allowed_roots", "report_stores") for place in places(deployment(name))
    ]


def recorded(session: Session, dag_id: str, run_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """What the first task of runs wrote down: run id → `run` (its folder), `failure` (why it could not be started)."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    chosen = select(XComModel.run_id, XComModel.key, XComModel.value).where(
        XComModel.dag_id == dag_id,
        XComModel.task_id == FIRST,
        XComModel.run_id.in_(list(run_ids)),
        XComModel.key.in_(["run", "failure", "return_value"]),
    )
    found: dict[str, dict[str, str]] = {}
    for run_id, key, value in session.execute(chosen):
        with suppress(ValueError):  # a plain string is one that was not serialised
            value = json.loads(value) if isinstance(value, str) else value
        if key == "return_value":  # of a run from before `run` was written apart
            key, value = "run", value.get("run") if isinstance(value, dict) else None
        if isinstance(value, str):
            found.setdefault(run_id, {}).setdefault(key, value)
    return found


def opened(run_id: str, folder: str) -> RunStore:
    """A run's folder.

    Raises:
        BadSettings: it is named otherwise than the run, or lies in no store of this deployment.
    """
    from sasrec_tasks import roots
    from sasrec_tasks.artifacts import RunStore
    from sasrec_tasks.errors import BadSettings

    store, _, name = folder.rstrip("/").rpartition("/")
    if name != run_id:
        raise BadSettings(f"{folder}: is not named as the run that recorded it")
    try:  # before anything is opened: to make a file system may be to call a server
        roots.check("run", folder, stores())
    except BadSettings as error:
        raise BadSettings(
            f"{folder}: in no store that the API server knows: name its store in the Variable sasrec_store or "
            "sasrec_report_stores, or in SASREC_STORE or SASREC_REPORT_STORES of the API server's environment"
        ) from error
    return RunStore.of(f"{store}/", run_id)


def scheduled(session: Session, dag_id: str, run_id: str, failure: str) -> Scheduled | None:
    """What Airflow knows of a run; None if there is no such run, or if it is not one of this pipeline."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    from sasrec_tasks.report.status import Scheduled, TaskState

    state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    tasks = {
        task_id: TaskState(state=None if found is None else str(found), tries=tries or 0)
        for task_id, found, tries in session.execute(
            select(TaskInstance.task_id, TaskInstance.state, TaskInstance.try_number)
            .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
            .order_by(TaskInstance.start_date.is_(None), TaskInstance.start_date)
        )
    }
    if state is None or not tasks.keys() >= OWN_TASKS:
        return None
    return Scheduled(state=str(state), tasks=tasks, failure=failure)


def run_page(session: Session, dag_id: str, run_id: str) -> tuple[int, str]:
    """Status and HTML of a run's page."""
    from sasrec_tasks.report import content, page

    wrote = recorded(session, dag_id, [run_id]).get(run_id, {})
    known = scheduled(session, dag_id, run_id, wrote.get("failure", ""))
    if known is None:
        sentence = f"There is no run {run_id} of {dag_id}, or it is none of this pipeline."
        return 404, page.message_page("No report", sentence)
    nights_link = f"../../dag/{quote(dag_id, safe='')}"
    if "run" not in wrote:
        return 200, page.run_page(content.without_folder(run_id, known), nights_link)
    try:
        return 200, page.run_page(content.read(opened(run_id, wrote["run"]), known), nights_link)
    except Exception as error:  # whatever is wrong with what lies there, the page says so
        log.exception("report of %s", run_id)
        return 200, page.run_page(content.without_folder(run_id, known, str(error)), nights_link)


def nights(session: Session, dag_id: str) -> NightsReport | None:
    """The nights of the table that the DAG's newest run publishes to; None if it is none of this pipeline."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    from sasrec_tasks import connections
    from sasrec_tasks.report import nights as reports

    newest = session.execute(
        select(DagRun.run_id, DagRun.run_after, DagRun.state)
        .where(DagRun.dag_id == dag_id)
        .order_by(DagRun.run_after.desc())
        .limit(NEWEST)
    ).all()
    wrote = recorded(session, dag_id, [row.run_id for row in newest])
    if not newest or not (wrote or scheduled(session, dag_id, newest[0].run_id, "")):
        return None
    unfinished = [
        reports.Unfinished(run_id=row.run_id, at=row.run_after, state=str(row.state)) for row in newest
    ]
    problem = ""
    for run_id, each in ((row.run_id, wrote.get(row.run_id, {})) for row in newest):
        if "run" not in each:
            continue
        try:
            store = opened(run_id, each["run"])
            settings = json.loads(store.read_files(["settings.json"]).get("settings.json", b"{}"))
            if table := settings.get("table"):
                with connections.use(connection):
                    return reports.read(dag_id, table, store.store, unfinished)
        except Exception as error:
            log.exception("report of %s", dag_id)
            problem = problem or str(error)
    return reports.NightsReport(name=dag_id, table="", nights=(), unfinished=unfinished, problem=problem)


def nights_page(session: Session, dag_id: str) -> tuple[int, str]:
    """Status and HTML of the page of a DAG."""
    from sasrec_tasks.report import page

    report = nights(session, dag_id)
    if report is None:
        return 404, page.message_page(
            "No report", f"There is no run of {dag_id}, or it is none of this pipeline."
        )
    return 200, page.nights_page(report, run_link=f"../run/{quote(dag_id, safe='')}/")


@cache
def app() -> FastAPI:
    """The routes, each for those who may read the DAG it names."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from airflow.utils.session import create_session
    from fastapi import Depends, FastAPI
    from fastapi.responses import HTMLResponse

    from sasrec_tasks.report.page import POLICY

    made = FastAPI(title="SASRec report", docs_url=None, redoc_url=None, openapi_url=None)
    readers = [Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.RUN))]

    @made.get("/run/{dag_id}/{run_id}", dependencies=readers, response_model=None)
    def run(dag_id: str, run_id: str) -> Any:
        with create_session(scoped=False) as session:
            status, html = run_page(session, dag_id, run_id)
        return HTMLResponse(html, status)

    @made.get("/dag/{dag_id}", dependencies=readers, response_model=None)
    def dag(dag_id: str) -> Any:
        with create_session(scoped=False) as session:
            status, html = nights_page(session, dag_id)
        return HTMLResponse(html, status)

    @made.middleware("http")
    async def with_headers(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        answer = await call_next(request)
        answer.headers.update({**HEADERS, "Content-Security-Policy": f"{POLICY}; frame-ancestors 'self'"})
        return answer

    return made


async def serve(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """The app, made at its first request: this file is imported by every part of Airflow, tasks too."""
    await (await asyncio.to_thread(app))(scope, receive, send)


def address() -> str:
    """The path at which browsers find the app, behind a proxy too."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX


class SASRecReport(AirflowPlugin):
    """Two tabs and what stands in them. Airflow has no tab for some DAGs only: those of others say so."""

    name = "sasrec_report"

    @classmethod
    def on_load(cls, *_: Any, **__: Any) -> None:
        """In the API server, what pages are made with is loaded now, so that nobody waits for it.

        Only there: elsewhere the package need not be installed.

        Raises:
            BadSettings: another version of the package is installed than the plugin came with.
        """
        if "airflow.api_fastapi.app" in sys.modules:
            from sasrec_tasks.airflow_files import made_for
            from sasrec_tasks.report import page

            made_for("0.1.0")
            page.prepare()

    fastapi_apps = [{"app": serve, "url_prefix": PREFIX, "name": "SASRec report"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Report",
            "href": f"{address()}/run/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "report",
        },
        {
            "name": "Nights",
            "href": f"{address()}/dag/{{DAG_ID}}",
            "destination": "dag",
            "url_route": "nights",
        },
    ]
