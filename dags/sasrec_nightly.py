"""The DAG `sasrec_nightly`, and further pipelines of its kind by `make_dag`. Only wiring: the work is the package's."""

from __future__ import annotations

from sasrec_tasks.airflow_files import made_for

made_for("0.1.0")  # before an older Airflow is asked for what it does not have

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import (
    DAG,
    Asset,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.definitions.callback import AsyncCallback  # airflow.sdk has them, too, but its stubs don't
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowSkipException

from sasrec_tasks import dag_docs, deadline, resources
from sasrec_tasks.errors import RetryCannotHelp
from sasrec_tasks.instances import Instance, check_arguments

PUBLISH, LEAVE = "Publish", "Leave the table as it is"

log = logging.getLogger(__name__)

INTERACTIONS = Asset(name="sasrec_interactions", uri="sasrec://interactions")
RECOMMENDATIONS = Asset(name="sasrec_recommendations", uri="sasrec://recommendations")

FAILURE = "failure"
"""XCom of what went wrong in a task."""

INSTANCES: dict[str, Instance] = {}
"""By the DAG's name. A worker parses the DAG file, too, and finds its own here."""


def as_of(dag_run: Any) -> datetime:
    """The end of the run's data interval; of a manual run, the moment it was triggered for."""
    moment: datetime = (dag_run.run_type != "manual" and dag_run.data_interval_end) or dag_run.run_after
    return moment.astimezone(UTC)


def data_interval(dag_run: Any) -> timedelta:
    """How long before `as_of` the run's data interval starts: a day, where the schedule gives it no length."""
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    length: timedelta = end - start if start and end else timedelta()
    return length or timedelta(days=1)


def deadline_of(own: Instance) -> DeadlineAlert | None:
    """Tells of a run that has not ended so many hours after it was queued; the run goes on.

    The triggerer tells, which it can do for every executor. A `SyncCallback` would be the executor's to call: that of
    Kubernetes can't, and takes the scheduler down (Airflow 3.3.2, `BaseExecutor.queue_workload`).

    The hours are SASREC_DEADLINE_HOURS of the environment in which DAGs are parsed. There is none by default, as
    `airflow dags test` fails at the end of a DAG that has one (https://github.com/apache/airflow/issues/73428).
    """
    hours = deadline.hours(os.environ.get("SASREC_DEADLINE_HOURS", ""))
    if not hours:
        return None
    return DeadlineAlert(
        name="ended in time",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=hours),
        callback=AsyncCallback(
            "sasrec_deadline.missed_deadline", kwargs={"hours": hours, "table": own.settings.get("table", "")}
        ),
    )


@contextmanager
def at_work() -> Iterator[None]:
    """While a task works: connections are Airflow's, SIGTERM ends it in order, `alert` will know what went wrong."""
    from sasrec_shared import connection  # beside this file

    from sasrec_tasks import connections, failures, terminated

    try:
        with connections.use(connection), terminated.in_order():
            yield
    except AirflowSkipException:
        raise
    except BaseException as error:  # a timeout and SIGTERM, too
        with suppress(Exception):
            get_current_context()["ti"].xcom_push(FAILURE, failures.said(error))
        raise


def step(name: str, minutes: int) -> Any:
    """A task that calls the plain function of its name, on the run that the task before worked on."""

    @task(
        task_id=name,
        doc_md=dag_docs.TASKS[name],
        execution_timeout=timedelta(minutes=minutes),
        # A machine's memory is for one training; see `refit`, too.
        max_active_tis_per_dag=1 if name == "train" else None,
    )
    def call(before: dict[str, Any]) -> dict[str, Any]:
        with at_work():
            return {"run": before["run"], **run_task(name, before["run"])}

    return call


def run_task(name: str, run: str) -> dict[str, Any]:
    """One task of a run."""
    from sasrec_tasks import pipeline

    return pipeline.run_task(name, run)


def record_answer(run: str) -> None:
    """Keep in the run's folder what a person answered in `approve`."""
    from sasrec_tasks import approval
    from sasrec_tasks.artifacts import RunStore

    answer = get_current_context()["ti"].xcom_pull(task_ids="approve")
    if answer:
        user = answer["responded_by_user"]
        approval.answer(
            RunStore(run),
            approved=answer["chosen_options"] == [PUBLISH],
            by=user["name"] if user else "nobody, in time",
            at=answer["responded_at"],
        )


@task(doc_md=dag_docs.TASKS["ingest"], execution_timeout=timedelta(hours=2), inlets=[INTERACTIONS])
def ingest() -> dict[str, Any]:
    """Start the run, then read the source."""
    from sasrec_shared import add_lineage, deployment  # beside this file

    from sasrec_tasks import pipeline

    context = get_current_context()
    dag_run, instance = context["dag_run"], context["ti"]
    own = INSTANCES[dag_run.dag_id]
    with at_work():
        settings = pipeline.triggered_settings(
            own.params(context["params"]),
            dag_run.conf or {},
            own.deployment(deployment),
            as_of(dag_run),
            data_interval(dag_run),
        )
        store = pipeline.start(settings, dag_run.run_id)
        instance.xcom_push("run", store.uri)  # now: the run's page shows what is there so far
        add_lineage("input", settings.source)
        return {"run": store.uri, **run_task("ingest", store.uri)}


@task.branch(doc_md=dag_docs.TASKS["ask"], execution_timeout=timedelta(minutes=5))
def ask(before: dict[str, Any]) -> str:
    """Where a person must decide, to them."""
    from sasrec_tasks import approval
    from sasrec_tasks.artifacts import RunStore

    with at_work():
        return "approve" if approval.waits(RunStore(before["run"])) else "refit"


def approve() -> HITLOperator:
    """Ask a person what the verdict asks."""
    return HITLOperator(
        task_id="approve",
        doc_md=dag_docs.TASKS["approve"],
        subject="Publish the recommendations of {{ run_id }}?",
        body="{% for reason in ti.xcom_pull('gate')['asks'] %}- {{ reason }}\n{% endfor %}",
        options=[PUBLISH, LEAVE],
        defaults=[LEAVE],
        response_timeout=timedelta(hours=20),  # over before the next night
    )


@task(
    doc_md=dag_docs.TASKS["refit"],
    execution_timeout=timedelta(hours=6),
    max_active_tis_per_dag=1,  # beside a training of another run, if they are in no pool
    trigger_rule="none_failed_min_one_success",  # `approve` may be skipped
)
def refit(before: dict[str, Any]) -> dict[str, Any]:
    """Train on what was held out, too, if a person has not said no."""
    with at_work():
        record_answer(before["run"])
        summary = run_task("refit", before["run"])
    if not summary["refitted"]:
        raise AirflowSkipException("refit.enabled is off: the table is made with the gated weights")
    return {"run": before["run"], **summary}


@task(
    doc_md=dag_docs.TASKS["export"],
    execution_timeout=timedelta(hours=2),
    outlets=[RECOMMENDATIONS],
    trigger_rule="none_failed_min_one_success",  # `refit` may be skipped
)
def export(before: dict[str, Any]) -> dict[str, Any]:
    """Publish, and tell those who wait for the table."""
    import sasrec_shared

    from sasrec_tasks import announcement

    with at_work():
        record_answer(before["run"])
        summary = run_task("export", before["run"])
        sasrec_shared.add_lineage("output", summary["table"])
    if not summary["published"]:
        own = f"parquet+{before['run']}/export"
        raise AirflowSkipException(
            f"{summary['table']} holds a newer run: this run's rows are the table {own}"
        )
    sasrec_shared.tell(announcement.facts(summary, run_id=get_current_context()["dag_run"].run_id))
    return {"run": before["run"], **summary}


@task(doc_md=dag_docs.TASKS["prune"], execution_timeout=timedelta(hours=1))
def prune() -> dict[str, Any]:
    """Remove what is old, wherever the run has come to."""
    run = get_current_context()["ti"].xcom_pull(task_ids="ingest", key="run")
    if not run:
        raise AirflowSkipException("the run was not begun")
    with at_work():
        done = run_task("prune", run)
    removed = {what: len(done["runs"][what]) for what in ("removed", "kept")}  # the log names them
    return {"run": run, "dry_run": done["dry_run"], "bytes": done["bytes"], "runs": removed}


@task(doc_md=dag_docs.TASKS["alert"], execution_timeout=timedelta(minutes=10), retries=2)
def alert() -> None:
    """Write down what failed, if that could not do so itself, and tell people."""
    import sasrec_alerts  # beside this file

    from sasrec_tasks import pipeline
    from sasrec_tasks.artifacts import RunStore

    context = get_current_context()
    ti, run_id = context["ti"], context["dag_run"].run_id
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id]).get(run_id, {})
    reasons = {
        task: ti.xcom_pull(task_ids=task, key=FAILURE) or ""
        for task, state in states.items()
        if state == "failed"
    }
    if not reasons:
        raise AirflowSkipException("nothing failed")
    table = INSTANCES[ti.dag_id].deployment(sasrec_alerts.deployment)("table") or ""
    if run := ti.xcom_pull(task_ids="ingest", key="run"):
        try:
            with at_work():
                table = RunStore(run).settings().table
                pipeline.record_failed(run, reasons)
        except Exception as error:  # it may be the store that failed
            log.warning("%s could not be written down: %s", run, error)
    if not sasrec_alerts.failed(ti.dag_id, run_id, reasons, table, context):
        raise AirflowSkipException("nobody to tell: sasrec_alert_emails and sasrec_alert_webhook are not set")


DEFAULT_ARGS = {
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
    "retry_policy": ExceptionRetryPolicy(
        rules=[RetryRule(exception=RetryCannotHelp, action=RetryAction.FAIL, reason="a retry can't help")]
    ),
}

night = partial(
    dag,
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    doc_md=dag_docs.DAG,
    tags=["recommendations"],
)


def sasrec_nightly() -> None:
    """Interactions to recommendations."""
    done = ingest()
    done = step("validate", minutes=60)(done)
    done = step("split", minutes=120)(done)
    done = step("train", minutes=360)(done)
    done = step("evaluate", minutes=120)(done)
    done = step("gate", minutes=60)(done)
    asked, refitted, published = ask(done), refit(done), export(done)
    asked >> approve() >> refitted
    asked >> refitted >> published
    pruned, alerted = prune(), alert()  # a failure of theirs is seen, and fails no night
    published >> pruned.as_teardown() >> alerted.as_teardown()


def make_dag(name: str = "sasrec_nightly", settings: dict[str, Any] | None = None, **arguments: Any) -> DAG:
    """The pipeline as a DAG; with another name, a further one from the same installation.

    Args:
        name: the DAG's id.
        settings: by their names, what differs from the deployment's places and from the defaults. A further pipeline
            needs a `store` and a `table` of its own.
        arguments: of Airflow's `dag`, for instance `schedule`; `default_args` add to those that are there.

    Raises:
        BadSettings: settings, arguments, or what stands in `SASREC_RESOURCES` or `SASREC_DEADLINE_HOURS`, that can't be
            used.
    """
    check_arguments(name, settings or {}, arguments)
    own = INSTANCES[name] = Instance(name, settings or {})
    params = {each: Param(default, **schema) for each, default, schema in own.form()}
    default_args = {**DEFAULT_ARGS, **arguments.pop("default_args", {})}
    arguments = {"deadline": deadline_of(own), **arguments}
    made: DAG = night(dag_id=name, params=params, default_args=default_args, **arguments)(sasrec_nightly)()
    if name != "sasrec_nightly":
        made.get_task("export").outlets = [asset_of(name, "recommendations")]
        if own.settings.get("source"):
            made.get_task("ingest").inlets = [asset_of(name, "interactions")]
    # The environment, not a Variable: the file is parsed twice a minute, and a Variable is a query each time.
    needed = resources.read(os.environ.get("SASREC_RESOURCES", ""), made.task_ids)
    if own.settings.get("refit.enabled") and "train" in needed:  # off, it would wait for nothing
        needed.setdefault("refit", needed["train"])
    for each, its in needed.items():
        place(made.get_task(each), its)
    return made


def asset_of(name: str, what: str) -> Asset:
    """What goes into a further pipeline, or comes out of it."""
    return Asset(name=f"{name}_{what}", uri=f"sasrec://{name}/{what}")


def place(operator: Any, needed: resources.Resources) -> None:
    """Have a task run where it gets what it needs."""
    if needed.queue:
        operator.queue = needed.queue
    if needed.pool:
        operator.pool = needed.pool
    if pod := needed.pod():
        # (here, since it is slow, and not everybody has it)
        from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

        operator.executor_config = {"pod_override": PodGenerator.deserialize_model_dict(pod)}


# Airflow gives it another name; a DAG file that imports it wants `make_dag` alone.
if __name__ != "sasrec_nightly":
    make_dag()
