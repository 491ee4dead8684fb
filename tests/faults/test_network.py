"""Connections to PostgreSQL and S3 that are cut at any request, or answered no more: a step is retried or fails whole,
the table is that of before or that of after, and the step done again ends as unbroken."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import fault_state
import pyarrow as pa
import pytest
from fault_bucket import Bucket
from fault_checks import done_again, listed, not_whole
from fault_figures import EVERY, Figures
from fault_harness import Outcome, Processes
from fault_network import (
    LONGEST,
    BucketNight,
    DatabaseNight,
    NetworkNight,
    aws,
    before_postgres,
    before_s3,
    unclear,
)
from fault_night import NIGHTS, PRUNE, ROLLBACK
from fault_proxy import Fault, Kind, Proxy, Request

BROKEN = ("ingest", "gate", "export", PRUNE, ROLLBACK)

FIXED_SEED = 20260102
RANDOM_SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="session")
def database_night(
    tmp_path_factory: pytest.TempPathFactory,
    processes: Processes,
    chains: Callable[..., pa.Table],
    postgres: str,
) -> Iterator[DatabaseNight]:
    """Nights that read from PostgreSQL, and publish to it."""
    with before_postgres(postgres) as proxy:
        night = DatabaseNight(tmp_path_factory.mktemp("database") / "night", processes, postgres, proxy)
        night.prepare(chains(users=30, items=40), of=BROKEN)
        yield night


@pytest.fixture(scope="session")
def bucket_night(
    tmp_path_factory: pytest.TempPathFactory,
    processes: Processes,
    chains: Callable[..., pa.Table],
    s3_server: str,
) -> Iterator[BucketNight]:
    """Nights that have source, store and tables on S3."""
    with pytest.MonkeyPatch.context() as patch, before_s3(s3_server) as proxy:
        for name, value in aws(s3_server).items():  # of what is read here, beside the proxy
            patch.setenv(name, value)
        night = BucketNight(tmp_path_factory.mktemp("bucket") / "night", processes, s3_server, proxy)
        night.prepare(chains(users=30, items=40), of=BROKEN)
        yield night


def of_postgres(requests: list[Request]) -> list[tuple[int, Kind]]:
    """What to try: each message that is none of many alike, cut before, in its middle, and its answer."""
    chosen: list[tuple[int, Kind]] = []
    for label, group in groupby(enumerate(requests), key=lambda each: each[1].label):
        row = [number for number, _ in group]
        for number in sorted({row[0], row[len(row) // 2], row[-1]}):
            kinds: list[Kind] = ["before", "half"]
            if label[0] in "SQcs":  # that are answered at once: Sync, Query, CopyDone, the start
                kinds += ["unanswered", "half answered"]
            chosen += [(number, kind) for kind in kinds]
    return chosen


def of_s3(requests: list[Request]) -> list[tuple[int, Kind]]:
    """What to try: of each request that changes something all kinds, of others those that differ."""
    chosen: list[tuple[int, Kind]] = []
    for number, request in enumerate(requests):
        method = request.label.partition(" ")[0]
        kinds: list[Kind] = ["before", "half answered"] if method == "GET" else ["before"]
        if method not in ("GET", "HEAD"):
            kinds = ["before", "half", "unanswered", "half answered"]
        chosen += [(number, kind) for kind in kinds]
    return chosen


def some(points: list[tuple[int, Kind]], at_most: int, seed: int = FIXED_SEED) -> list[tuple[int, Kind]]:
    """So many of them, drawn at random, from the first to the last."""
    at_most = max(1, at_most // int(os.environ.get(EVERY, "1")))
    chosen = random.Random(seed).sample(range(len(points)), min(at_most, len(points)))
    return [points[place] for place in sorted(chosen)]


def cut(night: NetworkNight, step: str, fault: Fault, figures: Figures) -> list[str]:
    """Cut a connection in a step, do the step again over a whole one: what is wrong then."""
    night.restore(step)
    night.proxy.mend()
    before = night.served()
    night.proxy.arm(fault)
    broken = night.step(step)
    struck = night.proxy.struck
    night.proxy.mend()
    if struck is None:
        return []  # it has asked for less this time
    figures.cut[f"{step}, {'PostgreSQL' if isinstance(night, DatabaseNight) else 'S3'}"] += 1
    wrong = [*unclear(broken), *not_whole(night, before, night.after[step]["served"])]
    if broken.status == 0 and not broken.error and night.served() != night.after[step]["served"]:
        wrong.append("ended well, and other rows are served")
    wrong += done_again(night, step)
    figures.made_good += not wrong
    lasting = ", for good" * fault.lasting
    return [f"{fault.kind} {fault.number} ({struck.label}){lasting}: {problem}" for problem in wrong]


@pytest.mark.faults
@pytest.mark.parametrize(("step", "at_most"), [("ingest", 16), ("export", 30), (PRUNE, 8), (ROLLBACK, 12)])
def test_a_connection_to_postgresql_that_is_cut_leaves_the_table_whole(
    database_night: DatabaseNight, step: str, at_most: int, figures: Figures
) -> None:
    points = some(of_postgres(database_night.requests[step]), at_most)
    assert points
    problems = []
    for place, (number, kind) in enumerate(points):
        fault = Fault(number, kind, lasting=place % 3 == 2)
        problems += cut(database_night, step, fault, figures)
    assert not problems, listed(problems, len(points))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("step", "at_most"),
    [("ingest", 12), ("export", 24), (PRUNE, 8), (ROLLBACK, 8)],
)
def test_a_connection_to_s3_that_is_cut_leaves_the_table_whole(
    bucket_night: BucketNight, step: str, at_most: int, figures: Figures
) -> None:
    points = some(of_s3(bucket_night.requests[step]), at_most)
    assert points
    problems = []
    for number, kind in points:
        problems += cut(bucket_night, step, Fault(number, kind), figures)
    assert not problems, listed(problems, len(points))


@pytest.mark.faults
@pytest.mark.parametrize("where", ["PostgreSQL", "S3"])
def test_a_gate_whose_connection_is_cut_does_not_take_what_is_published_for_nothing(
    where: str, request: pytest.FixtureRequest, figures: Figures
) -> None:
    """Where `gate.force_publish` is off: forced, it gets past a table that can't be read."""
    night: NetworkNight = request.getfixturevalue(
        "database_night" if where == "PostgreSQL" else "bucket_night"
    )
    night.restore("gate")
    values = night.settings | {"as_of": NIGHTS["tonight"], "gate.force_publish": False}
    night.call("fault_calls:start", values | {"train.random_state": list(NIGHTS).index("tonight")}, "tonight")
    begun = night.keep()
    night.proxy.mend()
    expected = ended(night.step("gate"))
    requests, problems = night.proxy.seen, []
    points = some((of_postgres if where == "PostgreSQL" else of_s3)(requests), 8)
    for number, kind in points:
        for kept in begun:
            kept.restore()
        night.proxy.arm(Fault(number, kind))
        broken = night.step("gate")
        night.proxy.mend()
        figures.cut[f"gate, {where}"] += 1
        wrong = [] if ended(broken) == expected else list(unclear(broken))
        if ended(broken) != expected and not broken.error:
            wrong.append(f"decides {broken.value}, not {expected}")
        if (again := ended(night.step("gate"))) != expected:
            wrong.append(f"again: {again}, not {expected}")
        figures.made_good += not wrong
        problems += [f"{kind} {number} ({requests[number].label}): {problem}" for problem in wrong]
    assert not problems, listed(problems, len(points))


def ended(outcome: Outcome) -> tuple[Any, str]:
    """What a step has given, or why it failed."""
    return outcome.value, outcome.error


@pytest.mark.faults
@pytest.mark.parametrize("where", ["PostgreSQL", "S3"])
def test_a_connection_that_is_cut_anywhere_else(
    where: str, request: pytest.FixtureRequest, figures: Figures
) -> None:
    """At requests of any step, drawn by a seed that is another each time."""
    figures.seeds.append(RANDOM_SEED)
    night: NetworkNight = request.getfixturevalue(
        "database_night" if where == "PostgreSQL" else "bucket_night"
    )
    of = of_postgres if where == "PostgreSQL" else of_s3
    problems = []
    for place, step in enumerate(("ingest", "export", PRUNE, ROLLBACK)):
        for number, kind in some(of(night.requests[step]), 2, RANDOM_SEED + place):
            problems += cut(night, step, Fault(number, kind), figures)
    assert not problems, f"seed {RANDOM_SEED}: {listed(problems, 8)}"


@pytest.mark.faults
def test_s3_that_is_gone_for_good_in_mid_publish_leaves_the_table_whole(
    bucket_night: BucketNight, figures: Figures
) -> None:
    """From the first file of rows on, and from the commit on, nothing is reached any more, tries of the libraries and
    all: the step fails whole."""
    requests = bucket_night.requests["export"]
    wanted = (r"PUT /night/table/part-", r"PUT /night/table/_delta_log/")
    problems = []
    for pattern in wanted:
        number = next(n for n, request in enumerate(requests) if re.match(pattern, request.label))
        problems += cut(bucket_night, "export", Fault(number, "before", lasting=True), figures)
    assert not problems, listed(problems, len(wanted))


@pytest.mark.faults
@pytest.mark.parametrize("step", ["ingest", "export"])
@pytest.mark.parametrize("where", ["PostgreSQL", "S3"])
def test_a_server_that_answers_no_more_is_given_up(
    where: str, step: str, request: pytest.FixtureRequest, figures: Figures
) -> None:
    """Connections stay open, and nothing comes back: at the first request, in the middle, and at the last."""
    night: NetworkNight = request.getfixturevalue(
        "database_night" if where == "PostgreSQL" else "bucket_night"
    )
    requests = night.requests[step]
    problems = []
    for number in sorted({0, len(requests) // 2, len(requests) - 2}):
        night.restore(step)
        before = night.served()
        night.proxy.arm(Fault(number, "silent"))
        run = "sasrec_tasks.pipeline:run_task"
        broken = night.call("fault_calls:impatient", run, step, night.run_url("tonight"))
        night.proxy.mend()
        figures.cut[f"{step}, {where}, silent"] += 1
        wrong = [*unclear(broken), *not_whole(night, before, night.after[step]["served"])]
        wrong += done_again(night, step)
        figures.made_good += not wrong
        problems += [f"silent from {number} ({requests[number].label}) on: {problem}" for problem in wrong]
    assert not problems, listed(problems, 3)


# Files that are sent in parts


MB = 18


@pytest.fixture
def uploads(processes: Processes, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket, a proxy before it, and what publishes a run of some megabytes there."""
    for name, value in aws(s3_server).items():
        monkeypatch.setenv(name, value)
    with before_s3(s3_server) as proxy:
        bucket = Bucket(s3_server, f"uploads-{proxy.port}")
        environment = {**aws(f"http://127.0.0.1:{proxy.port}"), "AWS_MAX_ATTEMPTS": "2"}

        def publish(table: str, run_id: str, as_of: str) -> Outcome:
            return processes.run(
                "fault_calls:publish_large",
                table,
                run_id,
                MB,
                as_of,
                environment=environment,
                kill_after=LONGEST,
            )

        yield bucket, proxy, publish


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_an_upload_in_parts_that_is_cut_leaves_nothing_that_stays(
    kind: str, uploads: tuple[Bucket, Proxy, Callable[..., Outcome]], processes: Processes, figures: Figures
) -> None:
    bucket, proxy, publish = uploads
    table = f"{'parquet+' * (kind == 'parquet')}{bucket.url}/table"
    proxy.mend()
    assert not publish(table, "yesterday", "2026-01-01").error
    before, served = bucket.keep(), fault_state.served(table)
    proxy.mend()
    assert not publish(table, "today", "2026-01-02").error
    requests = proxy.seen
    sent = [n for n, each in enumerate(requests) if re.search(r"\?uploads|uploadId=", each.label)]
    labels = [requests[number].label for number in sent]
    assert len([label for label in labels if "partNumber=" in label]) >= 3, labels
    later = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    kept = {"keep_versions": 2, "keep_days": 0}
    problems, left, expected = [], 0, None
    for number, label in zip(sent, labels, strict=True):
        for how, lasting in (("half", True), ("unanswered", False)):
            before.restore()
            proxy.arm(Fault(number, how, lasting))  # type: ignore[arg-type]
            broken = publish(table, "today", "2026-01-02")
            struck = proxy.struck
            proxy.mend()
            if struck is None:
                continue
            figures.cut[f"upload in parts, {kind}"] += 1
            wrong = [*unclear(broken)]
            if broken.error and fault_state.served(table) != served:
                wrong.append("failed, and other rows are served")
            left += len(bucket.uploads())
            if again := publish(table, "today", "2026-01-02").error:
                wrong.append(f"again: {again}")
            environment = aws(bucket.server)
            processes.run("fault_calls:prune_at", table, "", kept, later, environment=environment)
            found = (
                fault_state.served(table),
                sorted(re.sub(r"\d{6}-[0-9a-f]{8}", "", n) for n in bucket.listing()),
            )
            expected = expected or found  # all end alike
            if bucket.uploads():
                wrong.append(f"uploads are left: {bucket.uploads()}")
            if found != expected:
                wrong.append(f"ends otherwise: {set(found[1]) ^ set(expected[1])}")
            figures.made_good += not wrong
            problems += [f"{how} {label}{', for good' * lasting}: {problem}" for problem in wrong]
    assert not problems, listed(problems, 2 * len(sent))
    assert left  # or what is pruned was not tried
