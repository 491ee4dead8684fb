"""A job is given to a cluster once, and no longer than one has time for."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sasrec_tasks import jobs
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.naming import from_names
from sasrec_tasks.shards import Shards

NOT_YET = RuntimeError(
    "Request failed with status code 500: No available agent to submit job, please try again later.."
)
REFUSED = RuntimeError("Request failed with status code 403: Forbidden.")


class Server:
    """Answers each submission in turn with an error, or takes it."""

    def __init__(self, *answers: RuntimeError | None, jobs: tuple[str, ...] = ()) -> None:
        self.answers, self.jobs, self.taken = list(answers), list(jobs), list[dict[str, Any]]()

    def submit_job(self, **job: Any) -> None:
        if answer := self.answers.pop(0):
            raise answer
        self.taken.append(job)

    def list_jobs(self) -> list[Any]:
        return [SimpleNamespace(submission_id=job) for job in self.jobs]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SECONDS_BETWEEN_TRIES", 0.0)


def submit(server: Any, minutes: float = 1.0) -> None:
    jobs.submit(server, "job-1", ["python", "-m", "a b"], minutes)


def test_a_cluster_that_is_just_starting_is_asked_again() -> None:
    server = Server(NOT_YET, NOT_YET, None)
    submit(server)
    (job,) = server.taken
    assert job["submission_id"] == "job-1"
    assert job["entrypoint"] == "python -m 'a b'"


def test_it_is_not_asked_for_ever() -> None:
    with pytest.raises(OSError, match=r"within ray\.wait_minutes=0: .*No available agent"):
        submit(Server(NOT_YET), minutes=0.0)


def test_what_asking_again_can_not_help_ends_at_once() -> None:
    with pytest.raises(OSError, match=r"does not take it: .*403"):
        submit(Server(REFUSED))


def test_a_job_that_another_try_has_started_is_not_started_again() -> None:
    server = Server(RuntimeError("already exists"), jobs=("job-1",))
    submit(server)
    assert not server.taken


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It takes the connection, and says nothing."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'sasrec-tasks[ray]'")
    monkeypatch.setattr(jobs, "SECONDS_OF_SILENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = from_names({"engine": "ray", "ray.address": address})
        with pytest.raises(OSError, match=r"no job server answers there: .*timed out"):
            jobs.done(Shards(RunStore(str(tmp_path)), "export", "fingerprint"), settings)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("INFO|train: 3 workers", ("INFO", "train: 3 workers")),
        ("\x1b[36m(RayTrainWorker pid=7, ip=10.0.0.2)\x1b[0m WARNING|a | b", ("WARNING", "a | b")),
        ("2026-01-01 INFO something of Ray's", ("DEBUG", "ray: 2026-01-01 INFO something of Ray's")),
        ("LOUD|no level", ("DEBUG", "ray: LOUD|no level")),
        ("  ", None),
    ],
)
def test_what_a_job_says_is_said_by_the_task(
    caplog: pytest.LogCaptureFixture, line: str, told: tuple[str, str] | None
) -> None:
    with caplog.at_level("DEBUG"):
        jobs._say(line)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == ([told] if told else [])
