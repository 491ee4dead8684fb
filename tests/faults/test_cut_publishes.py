"""A publish whose connection is cut at some of its requests, and at all of them: retried or failed whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from fault_bucket import Bucket
from fault_checks import listed
from fault_figures import Figures, some
from fault_harness import Outcome, Processes
from fault_network import LONGEST, aws, before_postgres, before_s3, unclear
from fault_proxy import Fault, Kind, Proxy

from sasrec_tasks.tables import open_tables

KINDS: tuple[Kind, ...] = ("before", "half", "unanswered", "half answered")
USERS = 200  # of a small publish


@dataclass(frozen=True)
class Way:
    """By a proxy to tables that are not there yet."""

    kind: str
    proxy: Proxy
    table: Callable[[], str]
    processes: Processes
    environment: dict[str, str]

    def publish(self, url: str, run_id: str) -> Outcome:
        """Publish, in a process of its own: some of deltalake's calls hold up all threads, the proxy's too."""
        return self.processes.run(
            "fault_calls:publish_small", url, run_id, environment=self.environment, kill_after=LONGEST
        )

    def well(self, url: str, run_id: str) -> None:
        """Publish, which must end well."""
        outcome = self.publish(url, run_id)
        assert outcome.status == 0, outcome.log
        assert not outcome.error, outcome.log


@pytest.fixture(params=["postgres", "delta on S3", "parquet on S3"])
def way(
    request: pytest.FixtureRequest, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Way]:
    numbers = itertools.count()
    if request.param == "postgres":
        with before_postgres(request.getfixturevalue("postgres")) as proxy:
            place = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?table=cut_{proxy.port}"
            yield Way(request.param, proxy, lambda: f"{place}_{next(numbers)}", processes, {})
        return
    server = request.getfixturevalue("s3_server")
    for name, value in aws(server).items():
        monkeypatch.setenv(name, value)
    with before_s3(server) as proxy:
        place = f"{'parquet+' * request.param.startswith('parquet')}{Bucket(server, f'cut-{proxy.port}').url}"
        environment = aws(f"http://127.0.0.1:{proxy.port}")
        yield Way(request.param, proxy, lambda: f"{place}/table_{next(numbers)}", processes, environment)


def served(url: str) -> tuple[int, set[str], int]:
    """Version, runs and number of the rows that a consumer gets; of popular items too."""
    tables = open_tables(url)
    newest = next(tables.published())
    rows, popular = tables.rows(newest.version).read_all(), tables.popular()
    return newest.version, {*rows["RUN_ID"].to_pylist(), *popular["RUN_ID"].to_pylist()}, len(rows)


def cut(way: Way, fault: Fault) -> list[str] | None:
    """Cut a second publish: what is wrong then. None if it has come by fewer requests."""
    url = way.table()
    way.well(url, "yesterday")
    before, after = (0, {"yesterday"}, USERS), (1, {"today"}, USERS)
    way.proxy.arm(fault)
    broken = way.publish(url, "today")
    struck = way.proxy.struck
    way.proxy.mend()
    if struck is None:
        return None
    allowed = [before, after] if broken.error else [after]
    wrong = list(unclear(broken))
    wrong += [] if (found := served(url)) in allowed else [f"serves {found}, not one of {allowed}"]
    way.well(url, "today")
    if (found := served(url)) != after:
        wrong.append(f"serves {found} after another try")
    if (runs := [kept.run_id for kept in open_tables(url).kept()]) != ["today", "yesterday"]:
        wrong.append(f"keeps {runs}")
    return [f"{fault.kind} {fault.number} ({struck.label}): {problem}" for problem in wrong]


def tried(way: Way, faults: list[Fault], figures: Figures) -> int:
    """How many connections were cut, all without harm."""
    found = [wrong for fault in faults if (wrong := cut(way, fault)) is not None]
    figures.cut[f"a publish, {way.kind}"] += len(found)
    figures.made_good += sum(not wrong for wrong in found)
    problems = [problem for wrong in found for problem in wrong]
    assert not problems, listed(problems, len(found))
    return len(found)


def requests(way: Way) -> int:
    """Of a second publish."""
    url = way.table()
    way.well(url, "yesterday")
    way.proxy.mend()
    way.well(url, "today")
    return len(way.proxy.seen)


def test_a_publish_that_is_cut_is_whole_or_was_never_there(way: Way, figures: Figures) -> None:
    number = requests(way)
    assert tried(way, [Fault(number * (2 * n + 1) // 12, KINDS[n % 4]) for n in range(6)], figures) >= 5


@pytest.mark.faults
def test_a_publish_that_is_cut_at_any_request(way: Way, figures: Figures) -> None:
    """Each request in one way of four, and so each kind of request in all of them."""
    faults = [Fault(n, KINDS[turn % 4]) for turn, n in enumerate(some(range(requests(way))))]
    assert tried(way, faults, figures) >= 0.9 * len(faults)
