"""What the DAG files share: what the operator has set, connections, lineage, telling those who wait; no DAG."""

from __future__ import annotations

from sasrec_tasks.airflow_files import made_for

made_for("0.1.0")

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.sdk import Connection, Variable, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.execution_time.context import InletEventsAccessor
from airflow.sdk.lineage import get_hook_lineage_collector

log = logging.getLogger(__name__)


def deployment(name: str) -> str | None:
    """What the operator has set: the Variable `sasrec_<name>`, else the environment's `SASREC_<NAME>`."""
    return Variable.get(f"sasrec_{name}", default=None) or os.environ.get(f"SASREC_{name.upper()}")


def table() -> str:
    """The table of the deployment.

    Raises:
        BadSettings: none is set, or one with a secret in its address.
    """
    from sasrec_tasks import addresses, roots
    from sasrec_tasks.errors import BadSettings

    found = deployment("table")
    if not found:
        raise BadSettings(
            "table: not set: name the folder or URL of the recommendations in the Variable sasrec_table, or in "
            "SASREC_TABLE where tasks run"
        )
    for place in roots.places(found):
        addresses.check("table", place)
    return found


def connection(name: str) -> str:
    """The address of an Airflow Connection, for `connection:<name>` as source or table; kept in memory only.

    Raises:
        KeyError: there is none of this name.
    """
    try:
        uri: str = Connection.get(name).get_uri()
    except AirflowNotFoundException as error:
        raise KeyError(name) from error
    return uri


@contextmanager
def at_work() -> Iterator[None]:
    """While a task works: connections are Airflow's; what a retry can't help is not tried again."""
    from sasrec_tasks import connections
    from sasrec_tasks.errors import RetryCannotHelp

    try:
        with connections.use(connection):
            yield
    except RetryCannotHelp as error:
        raise AirflowFailException(str(error)) from error


def add_lineage(kind: str, places: str) -> None:
    """Tell lineage tools, if there are any, what is read ("input") or written ("output")."""
    from sasrec_tasks import lineage

    add = getattr(get_hook_lineage_collector(), f"add_{kind}_asset")
    for address in lineage.addresses(places):
        try:
            add(get_current_context()["ti"].task, uri=address)
        except ValueError as error:  # a provider knows better what its addresses look like
            log.warning("%s: no lineage: %s", address, error)


def tell(facts: Mapping[str, Any]) -> bool:
    """Have the event of the task's Asset carry these facts, if no event has told of this version yet.

    Airflow's own events say so, as they are written in one transaction with the task's success: a task that is tried
    again because it was killed after the publish tells of it, one that is cleared after its success does not.

    Args:
        facts: `announcement.facts`.

    Returns:
        Whether there will be an event.
    """
    context = get_current_context()
    task = context["ti"].task
    (asset,) = task.outlets
    begun = context["dag_run"].run_after.isoformat()
    since = InletEventsAccessor(asset_name=asset.name, asset_uri=asset.uri).after(begun)
    version = {name: facts[name] for name in ("table", "version", "run_id")}
    if any(version.items() <= (event.extra or {}).items() for event in since):
        log.info("those who wait for %s know of version %s already", asset.name, facts["version"])
        task.outlets = []  # of each outlet that a task ends with, Airflow makes an event
        return False
    context["outlet_events"][asset].extra.update(facts)
    return True
