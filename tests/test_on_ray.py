"""What a job tells of an error, and how it shares out work."""

from __future__ import annotations

from typing import Any

import pytest

from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.shards import Shards

main = pytest.importorskip(
    "sasrec_tasks.on_ray.__main__", reason="needs Ray: pip install 'sasrec-tasks[ray]'"
)


def of_task(cause: Exception) -> Exception:
    """As Ray raises what a task or an actor's method has raised."""
    from ray.exceptions import RayTaskError

    raised: Exception = RayTaskError("work", "a traceback as text", cause).as_instanceof_cause()
    return raised


def of_workers(cause: Exception) -> Exception:
    """As Ray Train raises what its workers have raised."""
    from ray.train import WorkerGroupError

    raised: Exception = WorkerGroupError("a traceback as text", {0: cause})
    return raised


def from_(error: Exception, other: Exception) -> Exception:
    error.__cause__ = other
    return error


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (OSError("the disk"), "the disk"),
        (of_task(OSError("the disk")), "the disk"),
        (of_workers(of_task(OSError("the disk"))), "the disk"),
        (from_(OSError("why, and what to do"), KeyError("bare")), "why, and what to do"),
        (of_task(from_(OSError("why, and what to do"), KeyError("bare"))), "why, and what to do"),
        (of_task(from_(RuntimeError("a step"), BadData("the rows"))), "the rows"),
    ],
)
def test_what_the_work_has_raised_is_told(raised: Exception, told: str) -> None:
    assert str(main.cause(raised)) == told


def test_an_error_that_hangs_on_itself_is_told() -> None:
    error = OSError("again")
    assert main.cause(from_(error, error)) is error


def test_what_a_worker_can_not_load_is_told_as_it_is(place: Any) -> None:
    """Ray tells only that the actor has died."""
    from sasrec_tasks.on_ray import parts

    store = place.run("run", upto="ingest")

    def maker(shards: Shards, settings: Any) -> Any:
        raise BadSettings("train.device='cuda': no GPU")

    with pytest.raises(BadSettings):
        parts._Actor(maker, store.uri, "export", "fingerprint")
    failure = Shards(store, "export", "fingerprint").failure()
    assert isinstance(failure, BadSettings)
    assert str(failure) == "train.device='cuda': no GPU"


@pytest.mark.parametrize("users", [1, 943, 10**6, 10**9])
@pytest.mark.parametrize("items", [1, 1682, 10**6, 10**8, 10**12])
def test_a_part_is_neither_all_nor_more_than_some_minutes(users: int, items: int) -> None:
    from sasrec_tasks.on_ray import parts

    size = parts.users_of_part(users, items)
    assert 1 <= size <= max(1, -(-users // parts.PARTS))
    assert size == 1 or size * items <= parts.MOST_SCORES


@pytest.mark.parametrize("stuck", [0, 1, 4])
def test_work_that_is_stuck_is_begun_anew(stuck: int) -> None:
    from ray.data import DataContext
    from ray.data.exceptions import ExecutionTimeoutError

    from sasrec_tasks import config
    from sasrec_tasks.on_ray import cluster

    limits = []

    def work() -> str:
        limits.append(DataContext.get_current().execution_no_progress_timeout_s)
        if len(limits) <= stuck:
            raise ExecutionTimeoutError("nothing moves")
        return "done"

    assert cluster.unless_stuck(config.Ray(wait_minutes=10), work) == "done"
    assert limits == [120.0] * (stuck + 1)


def test_work_that_is_always_stuck_is_not_begun_for_ever() -> None:
    from ray.data.exceptions import ExecutionTimeoutError

    from sasrec_tasks import config
    from sasrec_tasks.on_ray import cluster

    tries = []

    def work() -> None:
        tries.append(1)
        raise ExecutionTimeoutError("nothing moves")

    with pytest.raises(ExecutionTimeoutError):
        cluster.unless_stuck(config.Ray(wait_minutes=10), work)
    assert len(tries) == cluster.TRIES
