"""## SASRec nightly

Takes the interactions of `source` to a fresh, checked top-k `table`, one row per user and rank.
It runs every night at 02:00 UTC; trigger it by hand to change a setting for one run.

| task | what it does |
| --- | --- |
| `ingest` | copies the events before `as_of` into the run's folder |
| `validate` | sets bad rows aside; fails if there are too many, or if the data are not what they were |
| `split` | sorts each user's events by time; last = test, second to last = validation |
| `train` | trains SASRec with early stopping |
| `evaluate` | measures it, and popularity, on the test items |
| `gate` | refuses a model that is worse than popularity or the published one, or would change too much |
| `approve` | asks a person, where the verdict of `gate` does; otherwise skipped |
| `refit` | where `refit.enabled` is set, trains the gated model on all events, held-out ones too; otherwise skipped |
| `export` | publishes every user's top k as one version of the table |
| `prune` | removes versions and runs' folders that are old and not needed any more |

**Re-running is safe.** A task that has done its work with the same inputs and settings finds that
out and leaves. A cleared run goes on where it stopped, `train` at its next epoch. Nothing is
published twice, and until `export` commits, and after any failure, the last good table is served.

**Bad data and bad settings fail at once**, with a message that names file, column and value or the
setting; other errors are tried again. If `gate` refused, read its log: to publish nevertheless,
trigger a run with `gate.force_publish`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import (
    DAG,
    Asset,
    Connection,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    Variable,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSkipException

from sasrec_tasks import resources
from sasrec_tasks.airflow_files import made_for
from sasrec_tasks.errors import RetryCannotHelp
from sasrec_tasks.instances import Instance

made_for("0.1.0")

PUBLISH, LEAVE = "Publish", "Leave the table as it is"

RECOMMENDATIONS = Asset(name="sasrec_recommendations", uri="sasrec://recommendations")

INSTANCES: dict[str, Instance] = {}
"""By the DAG's name. A worker parses the DAG file, too, and finds its own here."""

HELP = {
    "ingest": """
Freezes the run's settings and copies the events before `as_of` into `ingest/`.

**If it fails:** the message names the source, file or column.
**Re-running** reads the source again only if it or a setting has changed; `as_of` stays.
""",
    "validate": """
Checks every row against the contract in `schemas/`. Bad rows go to `validate/rejected.parquet` with
their reason. Rows, users, items and the like are held against the last published nights.

**If it fails:** a column has the wrong type, more than `validate.max_rejected_share` of the rows is
bad, or the data are far from what they were (`validate.drift_fail`). Mend the source and clear from
`ingest`; if the change is wanted, trigger a run with a higher limit.
**Re-running** on the same snapshot gives the same answer.
""",
    "split": """
Sorts each user's events by time, within `split.memory_limit`: last event = test, second to last =
validation, the rest = training.

**Re-running** gives the same files.
""",
    "train": """
Trains SASRec, on a GPU if there is one, at most `train.max_minutes` over all tries. The log has
loss, rate and time left.

**Re-running** after a kill resumes at the next epoch and ends with the same weights.
""",
    "evaluate": """
Writes `evaluate/metrics.json`: each test item ranked among 100 random ones and among all, beside two
popularity baselines.

**Re-running** gives the same figures.
""",
    "gate": """
Compares with popularity and, on the same test items, with the published model.

**If it fails:** the model was refused, and yesterday's table stays. The log and `gate/verdict.json`
say which rule. To publish nevertheless, trigger a run with `gate.force_publish`.
**Re-running** decides anew only if something has changed.
""",
    "ask": """
Goes to `approve` if the verdict of `gate` asks a person (settings `gate.ask_…`) who has not approved yet, else to
`refit`.

**Re-running** of a run that was approved asks nobody again.
""",
    "approve": """
Waits for a person: **Required Actions** in the menu. What is asked stands there. Who answered, and
when, is kept in the run's folder.

Without an answer within 20 hours the table is left as it is.

**Re-running** asks again, unless these weights were approved.
""",
    "refit": """
Skipped unless `refit.enabled` is set. Then trains the gated model further on all events, those included that were held
out to measure it, for as many epochs as its best one, at most `train.max_minutes`. The table is made with what comes
out; metrics, warm starts and the next night's comparison stay with the gated weights.

**If it fails:** nothing was published; the last good table is served. To publish with the gated weights, trigger a run
without `refit.enabled`.
**Re-running** after a kill resumes at the next epoch and ends with the same weights.
""",
    "export": """
Publishes every user's top k as one version of the table, and tells the consumers.

**If it fails:** nothing was published; the last good table is served. If a table of what may be recommended
(`sasrec_eligible_items`, `sasrec_excluded_pairs`) can't be used, the message names it and the row.
**Re-running** publishes nothing twice. After a rollback of the table it publishes the run again.
Skipped where a run of a newer `as_of` is published.
""",
    "prune": """
Removes the rows of old publishes and old runs' folders, as the settings `prune.…` say; with `prune.dry_run` its log
only says which. It runs whatever became of the night, as soon as that has begun.

**If it fails:** the night's state is that of the tasks before; nothing that is served or can be rolled back to is
touched, and the next night goes on.
**Re-running** decides anew by what is there.
""",
}
"""Of each task: what it does, what a failure means, what re-running does."""


def deployment(name: str) -> str | None:
    """What the operator has set: the Variable `sasrec_<name>`, else the environment's `SASREC_<NAME>`."""
    return Variable.get(f"sasrec_{name}", default=None) or os.environ.get(f"SASREC_{name.upper()}")


def connection(name: str) -> str:
    """The address of an Airflow Connection, for `connection:<name>` as source or table; kept in memory only."""
    try:
        uri: str = Connection.get(name).get_uri()
    except AirflowNotFoundException as error:
        raise KeyError(name) from error
    return uri


def as_of(dag_run: Any) -> datetime:
    """The end of the run's data interval; of a manual run, the moment it was triggered for."""
    moment: datetime = (dag_run.run_type != "manual" and dag_run.data_interval_end) or dag_run.run_after
    return moment.astimezone(UTC)


def data_interval(dag_run: Any) -> timedelta:
    """How long before `as_of` the run's data interval starts: a day, where the schedule gives it no length."""
    start, end = dag_run.data_interval_start, dag_run.data_interval_end
    length: timedelta = end - start if start and end else timedelta()
    return length or timedelta(days=1)


def step(name: str, minutes: int) -> Any:
    """A task that calls the plain function of its name, on the run that the task before worked on."""

    @task(task_id=name, doc_md=HELP[name], execution_timeout=timedelta(minutes=minutes))
    def call(before: dict[str, Any]) -> dict[str, Any]:
        return {"run": before["run"], **run_task(name, before["run"])}

    return call


def run_task(name: str, run: str) -> dict[str, Any]:
    """One task of a run, which may look up connections."""
    from sasrec_tasks import connections, pipeline

    with connections.use(connection):
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


@task(doc_md=HELP["ingest"], execution_timeout=timedelta(hours=2))
def ingest() -> dict[str, Any]:
    """Start the run, then read the source."""
    from sasrec_tasks import connections, pipeline

    context = get_current_context()
    dag_run = context["dag_run"]
    own = INSTANCES[dag_run.dag_id]
    settings = pipeline.triggered_settings(
        own.params(context["params"]),
        dag_run.conf or {},
        own.deployment(deployment),
        as_of(dag_run),
        data_interval(dag_run),
    )
    with connections.use(connection):
        store = pipeline.start(settings, dag_run.run_id)
    return {"run": store.uri, **run_task("ingest", store.uri)}


@task.branch(doc_md=HELP["ask"], execution_timeout=timedelta(minutes=5))
def ask(before: dict[str, Any]) -> str:
    """Where a person must decide, to them."""
    from sasrec_tasks import approval
    from sasrec_tasks.artifacts import RunStore

    return "approve" if approval.waits(RunStore(before["run"])) else "refit"


def approve() -> HITLOperator:
    """Ask a person what the verdict asks."""
    return HITLOperator(
        task_id="approve",
        doc_md=HELP["approve"],
        subject="Publish the recommendations of {{ run_id }}?",
        body="{% for reason in ti.xcom_pull('gate')['asks'] %}- {{ reason }}\n{% endfor %}",
        options=[PUBLISH, LEAVE],
        defaults=[LEAVE],
        response_timeout=timedelta(hours=20),  # over before the next night
    )


@task(
    doc_md=HELP["refit"],
    execution_timeout=timedelta(hours=6),
    trigger_rule="none_failed_min_one_success",  # `approve` may be skipped
)
def refit(before: dict[str, Any]) -> dict[str, Any]:
    """Train on what was held out, too, if a person has not said no."""
    record_answer(before["run"])
    summary = run_task("refit", before["run"])
    if not summary["refitted"]:
        raise AirflowSkipException("refit.enabled is off: the table is made with the gated weights")
    return {"run": before["run"], **summary}


@task(
    doc_md=HELP["export"],
    execution_timeout=timedelta(hours=2),
    outlets=[RECOMMENDATIONS],
    trigger_rule="none_failed_min_one_success",  # `refit` may be skipped
)
def export(before: dict[str, Any]) -> dict[str, Any]:
    """Publish, and tell those who wait for the table."""
    record_answer(before["run"])
    summary = run_task("export", before["run"])
    if not summary["published"]:
        own = f"parquet+{before['run']}/export"
        raise AirflowSkipException(
            f"{summary['table']} holds a newer run: this run's rows are the table {own}"
        )
    names = ("table", "version", "previous_version", "as_of", "rows", "users", "metrics")
    facts = {name: summary[name] for name in names}
    context = get_current_context()
    (asset,) = context["ti"].task.outlets
    context["outlet_events"][asset].extra.update({**facts, "run_id": context["dag_run"].run_id})
    return {"run": before["run"], **summary}


@task(doc_md=HELP["prune"], execution_timeout=timedelta(hours=1))
def prune() -> dict[str, Any]:
    """Remove what is old, wherever the run has come to."""
    begun = get_current_context()["ti"].xcom_pull(task_ids="ingest")
    if not begun:
        raise AirflowSkipException("the run was not begun")
    return run_task("prune", begun["run"])


night = partial(
    dag,
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=30),
        "retry_policy": ExceptionRetryPolicy(
            rules=[RetryRule(exception=RetryCannotHelp, action=RetryAction.FAIL, reason="a retry can't help")]
        ),
    },
    doc_md=__doc__,
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
    published >> prune().as_teardown()  # a failure of it is seen, and fails no night


def make_dag(name: str = "sasrec_nightly", settings: dict[str, Any] | None = None, **arguments: Any) -> DAG:
    """The pipeline as a DAG; with another name, a further one from the same installation.

    Args:
        name: the DAG's id.
        settings: by their names, what differs from the deployment's places and from the defaults. A further pipeline
            needs a `store` and a `table` of its own.
        arguments: of Airflow's `dag`, for instance `schedule`.

    Raises:
        BadSettings: settings, or resources in `SASREC_RESOURCES`, that can't be used.
    """
    own = INSTANCES[name] = Instance(name, settings or {})
    params = {each: Param(default, **schema) for each, default, schema in own.form()}
    made: DAG = night(dag_id=name, params=params, **arguments)(sasrec_nightly)()
    if name != "sasrec_nightly":
        made.get_task("export").outlets = [
            Asset(name=f"{name}_recommendations", uri=f"sasrec://{name}/recommendations")
        ]
    # The environment, not a Variable: the file is parsed twice a minute, and a Variable is a query each time.
    for each, needed in resources.read(os.environ.get("SASREC_RESOURCES", ""), made.task_ids).items():
        place(made.get_task(each), needed)
    return made


def place(operator: Any, needed: resources.Resources) -> None:
    """Have a task run where it gets what it needs."""
    if needed.queue:
        operator.queue = needed.queue
    if pod := needed.pod():
        # (here, since it is slow, and not everybody has it)
        from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

        operator.executor_config = {"pod_override": PodGenerator.deserialize_model_dict(pod)}


if (
    __name__ != "sasrec_nightly"
):  # Airflow names it otherwise; a DAG file that imports it wants `make_dag` alone
    make_dag()
