"""Tells of a missed deadline, in the triggerer; no plugin of Airflow's UI.

Airflow calls it there for whatever executor; LocalExecutor and CeleryExecutor alone could call it where tasks run. The
triggerer finds modules of the plugins folder, but none of the DAG folder: this one looks for `sasrec_alerts` there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

ALERTS = "sasrec_alerts"


async def missed_deadline(context: Mapping[str, Any], **facts: Any) -> None:
    """Tell of a run that has not ended in time.

    Args:
        context: Airflow's, of the run.
        facts: the further arguments of `sasrec_alerts.missed_deadline`.

    Raises:
        BadSettings: another version of the package is installed than this file came with.
        ModuleNotFoundError: the package is not installed here, or no DAG bundle has `sasrec_alerts.py`.
    """
    # In a thread: other triggers go on meanwhile, and Variables and connections may be asked for as in a task.
    await asyncio.to_thread(lambda: alerts().missed_deadline(context=context, **facts))


def alerts() -> ModuleType:
    """The module `sasrec_alerts`, which lies beside the DAG file."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    from sasrec_tasks.airflow_files import made_for

    made_for("0.1.0")
    if ALERTS not in sys.modules:
        for bundle in DagBundlesManager().get_all_dag_bundles():  # type: ignore[no-untyped-call]
            bundle.initialize()
            if (bundle.path / f"{ALERTS}.py").exists():
                sys.path.append(str(bundle.path))
                break
    return import_module(ALERTS)
