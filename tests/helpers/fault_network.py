"""Nights whose source, store and table lie behind a proxy, which cuts their connections."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fault_state
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from adbc_driver_postgresql import dbapi
from fault_bucket import Bucket
from fault_database import Database
from fault_harness import Outcome, Processes
from fault_night import PRUNE, SETTINGS, Night
from fault_proxy import Http, Postgres, Proxy, Request

from sasrec_tasks.s3 import S3FileSystem

LONGEST = 240.0
"""Seconds that a step may take whose connections are cut: far more than all tries together."""

QUERY = 'SELECT "USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP" FROM events ORDER BY "TIMESTAMP", "USER_ID", "ITEM_ID"'


class NetworkNight(Night):
    """Nights that talk through a proxy; `requests` are those of each step when nothing is cut."""

    proxy: Proxy
    environment: dict[str, str]
    requests: dict[str, list[Request]]

    def call(self, call: str, *arguments: Any, processes: Processes | None = None, **faults: Any) -> Outcome:
        """Make a call in a process of its own, which is killed if it does not come to an end."""
        own = {"TMPDIR": f"{self.folder}/tmp", **self.environment}
        faults = {"kill_after": LONGEST, "environment": own} | faults | {"watch": None}
        return super().call(call, *arguments, processes=processes, **faults)

    def well(self, step: str, run_id: str = "tonight", **faults: Any) -> Outcome:
        """Do a step, which must end well, and keep what it asks for."""
        self.proxy.mend()
        outcome = super().well(step, run_id, **faults)
        self.requests[step] = self.proxy.seen
        return outcome

    def state(self, *, last: bool = False) -> fault_state.State:
        """See `Night`."""
        kept = dict(self.requests)
        try:
            return self._state(last=last)
        finally:
            self.requests = kept  # not those of what is pruned to compare

    def _state(self, *, last: bool) -> fault_state.State:
        return super().state(last=last)


class DatabaseNight(NetworkNight):
    """Nights that read from PostgreSQL and publish to it."""

    def __init__(self, folder: Path, processes: Processes, server: str, proxy: Proxy) -> None:
        self.proxy, self.environment, self.requests = proxy, {}, {}
        self.database = Database(server, "cut")
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{self.database.name}"
        super().__init__(
            folder,
            processes,
            [f"{url}?table=recommendations"],
            elsewhere=self.database,
            settings={"source": url, "ingest.query": QUERY},
        )

    def write(self, events: pa.Table) -> None:
        """See `Night`."""
        with dbapi.connect(self.database.url) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("events", events)
            connection.commit()


class BucketNight(NetworkNight):
    """Nights that have all on S3. What is pruned is pruned as if it were three days later: the server's clock can't be
    set."""

    def __init__(
        self, folder: Path, processes: Processes, server: str, proxy: Proxy, name: str = "night"
    ) -> None:
        self.proxy, self.requests = proxy, {}
        self.environment = aws(f"http://127.0.0.1:{proxy.port}")
        self.bucket = Bucket(server, name)
        url = self.bucket.url
        super().__init__(
            folder,
            processes,
            [f"{url}/table"],
            elsewhere=self.bucket,
            settings={"source": f"{url}/source.parquet", "store": f"{url}/runs"},
        )

    def run_url(self, run_id: str) -> str:
        """See `Night`."""
        return f"{self.bucket.url}/runs/{run_id}"

    def write(self, events: pa.Table) -> None:
        """See `Night`."""
        out = pa.BufferOutputStream()
        pq.write_table(events, out)
        self.bucket.client.put_object(
            Bucket=self.bucket.name, Key="source.parquet", Body=out.getvalue().to_pybytes()
        )

    def step(self, step: str, run_id: str = "tonight", **faults: Any) -> Outcome:
        """See `Night`."""
        if step != PRUNE:
            return super().step(step, run_id, **faults)
        later = datetime.now(UTC) + timedelta(days=3)
        prune = {
            name.removeprefix("prune."): value
            for name, value in SETTINGS.items()
            if name.startswith("prune.")
        }
        table, store = self.settings["table"], self.settings["store"]
        return self.call("fault_calls:prune_at", table, store, prune, later.isoformat(), run_id, **faults)

    def _state(self, *, last: bool) -> fault_state.State:
        """Of the table of runs, how many files it has is not compared."""
        found: fault_state.State = {"artifacts": self._artifacts(), "served": self.served()}
        before = [] if last else self.keep()
        self.well(PRUNE)
        found["files"] = fault_state.listing(self.folder)
        found["elsewhere"] = [name for name in self.bucket.listing() if not re.match("table_runs/", name)]
        for kept in before:
            kept.restore()
            kept.forget()
        return found

    def _artifacts(self) -> dict[str, Any]:
        """Of each run."""
        with tempfile.TemporaryDirectory() as name:
            for key, content in self.bucket.contents().items():
                if key.startswith("runs/"):
                    file = Path(name) / key
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
            runs = sorted((Path(name) / "runs").glob("[a-z]*"))
            return {run.name: fault_state.artifacts(run) for run in runs}


def aws(endpoint: str) -> dict[str, str]:
    """The environment that S3 is found by."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def behind_a_proxy(server: str) -> Iterator[tuple[Bucket, Proxy]]:
    """A bucket of its own that this process reaches by way of a proxy."""
    with pytest.MonkeyPatch.context() as patch, before_s3(server) as proxy:
        for name, value in aws(f"http://127.0.0.1:{proxy.port}").items():
            patch.setenv(name, value)
        _forget_connections()
        yield Bucket(server, f"bucket-{proxy.port}"), proxy
        _forget_connections()


def _forget_connections() -> None:
    """File systems are kept, and connect where the environment had said when they were made."""
    for kind in (S3FileSystem, s3fs.S3FileSystem):
        kind.clear_instance_cache()


def before_postgres(server: str) -> Proxy:
    """A proxy that is reached by TCP, before a server that is reached by its socket in a folder."""
    folder = parse_qs(urlsplit(server).query)["host"][0]

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(f"{folder}/.s.PGSQL.5432")
        return made

    return Proxy(connect, Postgres)


def before_s3(server: str) -> Proxy:
    """A proxy before a server of S3."""
    place = urlsplit(server)
    return Proxy(lambda: socket.create_connection((str(place.hostname), int(place.port or 80))), Http)


def unclear(outcome: Outcome) -> Iterator[str]:
    """What is wrong with how a process ended whose connections were cut."""
    if outcome.killed:
        yield f"had not come to an end after {LONGEST:g} s"
    elif outcome.status != 0:
        yield f"ended with {outcome.status}: {outcome.log[-1500:]}"
    elif outcome.error:
        if "OSError" not in outcome.kinds or "RetryCannotHelp" in outcome.kinds:
            yield f"is of the kinds {outcome.kinds}: {outcome.error[:300]}"
        if not re.search(r"S3|s3://|postgresql://|night/", outcome.error):
            yield f"names no place: {outcome.error[:300]}"
