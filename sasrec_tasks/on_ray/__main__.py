"""`python -m sasrec_tasks.on_ray RUN TASK FINGERPRINT VERSION`: a job, on the cluster (see `jobs`)."""

from __future__ import annotations

import importlib
import logging
import os
import sys

os.environ["RAY_DEDUP_LOGS"] = "0"  # read when Ray is imported: each line is told once as it is
# A node that has just been lost counts as there for some seconds: workers are waited for on it for so long.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")

from ray.data.exceptions import ExecutionTimeoutError

from sasrec_tasks import __version__, errors, shards
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.jobs import SEPARATOR
from sasrec_tasks.on_ray import cluster

log = logging.getLogger("sasrec_tasks.on_ray")


def main(run: str, task: str, fingerprint: str, version: str) -> int:
    """Do a task's work; exit status."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(levelname)s{SEPARATOR}%(message)s", stream=sys.stdout, force=True
    )
    store = RunStore(run)
    parts = shards.Shards(store, task, fingerprint)
    try:
        if version != __version__:
            raise BadSettings(
                f"ray.address: the cluster has sasrec-tasks {__version__}, but this task is of {version}: install the "
                "same on both"
            )
        settings = store.settings()
        with cluster.joined(settings.ray):
            importlib.import_module(f"sasrec_tasks.on_ray.{task}").run(parts, settings)
    except Exception as raised:
        log.exception("%s: failed", task)
        told = parts.failure()  # by a worker, that it may not have reached this process
        error = told or cause(raised)
        if isinstance(error, ExecutionTimeoutError):  # whose advice is for who writes such jobs
            error = OSError(
                f"{task}: nothing came of the work for ray.wait_minutes: raise it, or look at the nodes"
            )
        if not told:
            parts.fail(error)
        return errors.exit_status(error)
    return 0


def cause(error: Exception) -> Exception:
    """What the work itself has raised, which Ray wraps; before it, what retries can't help."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        of_workers = next(iter(getattr(found, "worker_failures", {}).values()), None)
        found = getattr(found, "cause", None) or of_workers or found.__cause__
    raised = [each for each in chain if isinstance(each, Exception)]
    for each in raised:
        if isinstance(each, errors.RetryCannotHelp):
            return each
    wrapped = (
        "RayTaskError",
        "RayActorError",
        "ActorDiedError",
        "UserCodeException",
        "WorkerGroupError",
        "ControllerError",
    )
    return next((each for each in raised if not type(each).__name__.startswith(wrapped)), error)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
