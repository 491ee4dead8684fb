"""A task's work as a job of a Ray cluster, from outside of it: started once, followed, stopped with the task.

The job gets the URL of the run's folder, and leaves its result there in parts (`shards`). What is given to it is
neither the source nor the table, so that no secret of theirs comes to the cluster.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sasrec_tasks import __version__
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.extras import needs
from sasrec_tasks.shards import Shards

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

log = logging.getLogger(__name__)

LEVELS = logging.getLevelNamesMapping()
SEPARATOR = "|"
"""Between the level and the text of a line in the log of a job."""

WORKER = re.compile(r"^\x1b\[\d+m\(.*? pid=\d+.*?\)\x1b\[0m ?")
"""What Ray puts before a line of a worker."""

SECONDS_BETWEEN_LOOKS = 1.0

NOBODY_YET = "No available agent"
"""What the job server says of a cluster that has just been started."""

SECONDS_BETWEEN_TRIES = 5.0

SECONDS_OF_SILENCE = 60.0
"""For which the server is waited for; where it says nothing of a job, it is asked anew."""


def done(shards: Shards, settings: Settings) -> None:
    """Have the cluster do a task's work, unless it has; a job that an earlier try has started is waited for.

    Raises:
        BadSettings: Ray is not installed, or what the job itself found.
        BadData: as the job found.
        OSError: the cluster can't be reached, or the job was lost or has not started in time. Trying again is safe, and
            goes on from what is there.
    """
    if shards.finished():
        log.info("%s: the cluster has done its work before: %s", shards.task, shards.uri)
        return
    client = _client(settings)
    minutes = settings.ray.wait_minutes
    job, was_started = _job_of(client, shards)
    try:
        if not was_started:
            _start(client, job, shards, minutes)
        _wait_until_it_runs(client, job, minutes)
        asyncio.run(_follow(client, job, minutes))
    except Exception:
        raise  # it goes on: the next try finds it
    except BaseException:  # the task is to end
        log.warning("%s: stopping job %s", shards.task, job)
        with suppress(OSError, RuntimeError):
            client.stop_job(job)
        raise
    if shards.finished():
        return
    if failure := shards.failure():
        raise failure
    with _answering(job):
        info = client.get_job_info(job)
    raise OSError(f"{shards.task}: job {job} of {settings.ray.address}: {info.status}: {info.message}")


def _client(settings: Settings) -> JobSubmissionClient:
    try:
        from ray.job_submission import JobSubmissionClient
    except ModuleNotFoundError as error:
        raise BadSettings(f"engine='ray': {needs('ray')}") from error
    # (it tells of each connection that ends)
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):  # type: ignore[misc]
        """Ray's waits for an answer without a limit."""

        def _do_request(self, *arguments: Any, **more: Any) -> Any:
            return super()._do_request(*arguments, **{"timeout": SECONDS_OF_SILENCE, **more})

    try:
        return Client(settings.ray.address)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"ray.address={settings.ray.address!r}: no job server answers there: {error}"
        ) from error


@contextmanager
def _answering(job: str) -> Iterator[None]:
    """While the server is asked: what it can't tell is an OSError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"job {job}: the cluster does not answer as it should: {error}") from error


def _job_of(client: JobSubmissionClient, shards: Shards) -> tuple[str, bool]:
    """Id of the job, and whether it is at work for these parts already; else it is to be started."""
    hangs_on = f"{shards.uri} {shards.fingerprint}"
    name = f"sasrec-{shards.task}-{hashlib.sha256(hangs_on.encode()).hexdigest()[:16]}"
    with _answering(name):
        before = {job.submission_id: job.status for job in client.list_jobs()}
    for job, status in before.items():
        if job and job.startswith(f"{name}-") and not status.is_terminal():
            log.info("%s: job %s was started before, and is at work", shards.task, job)
            return job, True
    return next(job for number in itertools.count(1) if (job := f"{name}-{number}") not in before), False


def _start(client: JobSubmissionClient, job: str, shards: Shards, minutes: float) -> None:
    run = (
        shards.store.root if shards.store.is_local else shards.store.uri
    )  # elsewhere, a relative path is another
    told = [run, shards.task, shards.fingerprint, __version__]
    command = ["python", "-m", "sasrec_tasks.on_ray", *told]
    shards.forget_failure()
    submit(client, job, command, minutes, metadata={"run": shards.store.uri, "task": shards.task})


def submit(
    client: JobSubmissionClient,
    job: str,
    command: list[str],
    minutes: float,
    *,
    metadata: dict[str, str] | None = None,
) -> None:
    """Start a job, unless it was started by another try; a server that has nobody yet to run it is asked again.

    Args:
        minutes: how long it is asked.

    Raises:
        OSError: it does not take the job, or has nobody to run it in time.
    """
    deadline = time.monotonic() + 60 * minutes
    while True:
        try:
            client.submit_job(entrypoint=shlex.join(command), submission_id=job, metadata=metadata)
        except RuntimeError as error:
            said = str(error).strip().rpartition("\n")[2]
            if _is_there(client, job):
                log.info("job %s was just started by another try", job)
                return
            if NOBODY_YET not in said:
                raise OSError(f"job {job}: the cluster does not take it: {said}") from error
            if time.monotonic() > deadline:
                raise OSError(
                    f"job {job}: the cluster has not taken it within ray.wait_minutes={minutes:g}: {said}"
                ) from error
            log.info("job %s: the cluster does not take it yet, trying again: %s", job, said)
            time.sleep(SECONDS_BETWEEN_TRIES)
        else:
            log.info("job %s was started", job)
            return


def _is_there(client: JobSubmissionClient, job: str) -> bool:
    with _answering(job):
        return job in {each.submission_id for each in client.list_jobs()}


def _wait_until_it_runs(client: JobSubmissionClient, job: str, minutes: float) -> None:
    deadline = time.monotonic() + 60 * minutes
    while True:
        try:
            info = client.get_job_info(job)
            if info.status != "PENDING":
                return
            said = info.message
        except (OSError, RuntimeError) as error:
            said = str(error)
        if time.monotonic() > deadline:
            with suppress(OSError, RuntimeError):
                client.stop_job(job)
            raise OSError(
                f"job {job} has not started within ray.wait_minutes={minutes:g}: the cluster says {said!r}"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


async def _follow(client: JobSubmissionClient, job: str, minutes: float) -> None:
    """Say what the job says, until it has ended."""
    import aiohttp  # comes with Ray

    shown, reached = 0, time.monotonic()
    while True:
        lines = 0
        try:
            chunks = client.tail_job_logs(job)
            while True:
                try:
                    chunk = await asyncio.wait_for(anext(chunks), SECONDS_OF_SILENCE)
                except (StopAsyncIteration, TimeoutError):
                    break
                reached = time.monotonic()
                for line in chunk.splitlines():
                    lines += 1
                    if lines > shown:  # after a cut connection it begins again
                        _say(line)
            if client.get_job_status(job).is_terminal():
                return
            reached = time.monotonic()
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            if time.monotonic() - reached > 60 * minutes:
                raise OSError(
                    f"job {job}: the cluster has not answered for ray.wait_minutes={minutes:g}: {error}"
                ) from error
        shown = max(shown, lines)
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


def _say(line: str) -> None:
    level, separator, text = WORKER.sub("", line).partition(SEPARATOR)
    if separator and level in LEVELS:
        log.log(LEVELS[level], "%s", text)
    elif line.strip():
        log.debug("ray: %s", line)
