"""A process that is killed at any point of any step: the table is whole, and the step done again ends as unbroken."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from fault_checks import differences, killed, listed, not_whole, numbers
from fault_database import Database
from fault_figures import Figures
from fault_harness import Processes
from fault_night import FORGET, PRUNE, ROLLBACK, START, Night

TASKS = ("ingest", "validate", "split", "train", "evaluate", "gate", "refit", "export")
FIXED_SEED = 20260101
RANDOM_SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.mark.faults
@pytest.mark.parametrize("step", [START, *TASKS, PRUNE, ROLLBACK, FORGET])
def test_a_kill_at_any_point_is_made_good_by_the_next_try(night: Night, step: str, figures: Figures) -> None:
    chosen = numbers(night.points[step])[:: 4 if step == FORGET else 1]  # which changes every file there is
    assert chosen
    problems = [problem for number in chosen for problem in killed(night, step, number, figures)]
    assert not problems, listed(problems, len(chosen))


@pytest.fixture(scope="session")
def first_night(
    tmp_path_factory: pytest.TempPathFactory, processes: Processes, chains: Callable[..., pa.Table]
) -> Night:
    """A night before which nothing was published, to Delta Lake."""
    folder = tmp_path_factory.mktemp("first") / "night"
    night = Night(folder, processes, ["{folder}/table"], earlier=())
    night.prepare(chains(users=30, items=40), upto="export")
    return night


def test_some_kills_of_the_first_night_are_made_good(first_night: Night, figures: Figures) -> None:
    """A few of those above, so that the harness stays in order: `make test` runs this one alone."""
    chosen = [
        (step, number)
        for step, how_many in (("ingest", 2), ("train", 2), ("export", 6))
        for number in spread(first_night.points[step], how_many)
    ]
    problems = [
        problem
        for step, number in chosen
        for problem in killed(first_night, step, number, figures, kind=" of a first night")
    ]
    assert not problems, listed(problems, len(chosen))
    assert figures.tried["export of a first night"] >= 5


@pytest.mark.faults
def test_a_kill_at_any_point_of_the_first_publish_is_made_good(first_night: Night, figures: Figures) -> None:
    chosen = numbers(first_night.points["export"])
    problems = [
        problem
        for number in chosen
        for problem in killed(first_night, "export", number, figures, kind=" of a first night")
    ]
    assert not problems, listed(problems, len(chosen))


def spread(points: tuple[Any, ...], how_many: int) -> list[int]:
    """Numbers of points, from the first third to the last."""
    return [len(points) * (2 * number + 1) // (2 * how_many) for number in range(how_many)]


@pytest.mark.faults
@pytest.mark.parametrize("seed", [FIXED_SEED, RANDOM_SEED], ids=["fixed", "random"])
def test_a_kill_at_any_moment_of_a_night_is_made_good(night: Night, seed: int, figures: Figures) -> None:
    figures.seeds.append(seed)
    moments, run = random.Random(seed), str(night.run_folder())
    problems = []
    night.restore("ingest")
    started = time.perf_counter()
    night.call("fault_calls:run_all", run, watch=None)
    whole = time.perf_counter() - started
    for _ in range(12):
        night.restore("ingest")
        before = night.served()
        after = moments.uniform(0, whole)
        broken = night.call("fault_calls:run_all", run, watch=None, kill_after=after)
        if not broken.killed:  # it was faster this time
            continue
        figures.tried["at a random moment"] += 1
        wrong = list(not_whole(night, before, night.after["export"]["served"]))
        figures.wrong_tables += len(wrong)
        again = night.call("fault_calls:run_all", run, watch=None)
        if again.error or again.status != 0:
            wrong.append(f"again: {again.status} {again.error or again.log[-2000:]}")
        else:
            wrong += differences(night.state(last=True), night.after[PRUNE])
        figures.survived += not wrong
        problems += [f"killed after {after:.2f} s: {problem}" for problem in wrong]
    assert not problems, f"seed {seed}: {listed(problems, 12)}"


@pytest.fixture(scope="session")
def database_night(
    tmp_path_factory: pytest.TempPathFactory,
    processes: Processes,
    chains: Callable[..., pa.Table],
    postgres: str,
) -> Night:
    """Nights that publish to PostgreSQL; what is said to it is a point, too."""
    database = Database(postgres)
    url = (
        f"{database.url}&table=recommendations"
        if "?" in database.url
        else f"{database.url}?table=recommendations"
    )
    folder = tmp_path_factory.mktemp("database") / "night"
    night = Night(folder, processes, [url], elsewhere=database)
    night.prepare(chains(users=30, items=40))
    return night


@pytest.mark.faults
@pytest.mark.parametrize("step", ["export", PRUNE, ROLLBACK, FORGET])
def test_a_kill_at_any_point_leaves_a_database_whole(
    database_night: Night, step: str, figures: Figures
) -> None:
    chosen = numbers(database_night.points[step])
    problems = [
        problem
        for number in chosen
        for problem in killed(database_night, step, number, figures, kind=" to PostgreSQL")
    ]
    assert not problems, listed(problems, len(chosen))


@pytest.mark.faults
def test_rows_are_on_the_disk_before_a_version_names_them(night: Night) -> None:
    """What SIGKILL does not show, and a power cut would: each file of rows is synced before the commit."""
    written: set[str] = set()
    synced: set[str] = set()
    commits = 0
    for point in night.points["export"]:
        if point.path.endswith(".parquet") and "_runs/" not in point.path:
            (synced if point.name == "sync" else written).add(point.path)
        elif point.name in ("link", "rename") and point.path.endswith(("1.json", "2.json", "CURRENT.json")):
            commits += "_runs/" not in point.path
            assert written <= synced
    assert commits == 3
    assert len(written) == 4
