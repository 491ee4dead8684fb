"""Connections to PostgreSQL come to an end, whatever becomes of the server."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest
from fault_network import before_postgres
from fault_proxy import Proxy

from sasrec_tasks import postgresql
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.postgresql import LIMITS, transaction, with_limits


@pytest.fixture
def proxy(postgres: str) -> Iterator[Proxy]:
    """Before the server of the tests."""
    with before_postgres(postgres) as proxy:
        yield proxy


@pytest.fixture
def uri(proxy: Proxy) -> str:
    """Of the server, by way of the proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"


def query(uri: str) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(urlsplit(uri).query).items()}


def test_a_connection_has_limits_and_those_of_the_address_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    assert query(with_limits("postgresql://host/shop")) == LIMITS
    own = "postgresql://ann@host:5433/shop?connect_timeout=3&sslmode=require"
    assert query(with_limits(own)) == {**LIMITS, "connect_timeout": "3", "sslmode": "require"}
    assert with_limits(own).startswith("postgresql://ann@host:5433/shop?")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    assert "connect_timeout" not in query(with_limits("postgresql://host/shop"))


def test_rows_and_commits_pass(uri: str) -> None:
    with transaction(uri, "shop") as cursor:
        cursor.adbc_ingest("numbers", pa.table({"n": list(range(1000))}), mode="replace")
        cursor.commit()
    with transaction(uri, "shop") as cursor:
        cursor.execute("DELETE FROM numbers")  # and no commit
    with transaction(uri, "shop") as cursor:
        cursor.execute("SELECT n FROM numbers")
        assert sum(len(batch) for batch in cursor.fetch_record_batch()) == 1000
        cursor.execute("SELECT count(*) FROM numbers WHERE n < $1::text::bigint", parameters=("10",))
        assert cursor.fetchone() == (10,)
        cursor.execute("SELECT n FROM numbers WHERE n = 3")
        assert cursor.fetch_arrow_table()["n"].to_pylist() == [3]


def test_what_goes_wrong_within_is_told_even_if_the_connection_is_gone(uri: str, proxy: Proxy) -> None:
    def fail() -> None:
        with transaction(uri, "shop") as cursor:
            cursor.execute("SELECT 1")
            proxy.mend()  # cuts it
            raise BadSettings("of my own")

    with pytest.raises(BadSettings, match="of my own"):
        fail()


def test_a_server_that_takes_connections_and_never_answers(uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with (
            pytest.raises(OSError, match=r"shop: .*timeout"),
            transaction(f"postgresql://postgres@127.0.0.1:{port}/postgres?connect_timeout=2", "shop"),
        ):
            pass


@pytest.mark.parametrize("call", ["execute", "ingest", "commit"])
def test_a_server_that_answers_no_more_is_given_up(
    uri: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(postgresql, "SILENCE", 0.5)
    monkeypatch.setattr(postgresql, "CANCELLED", 0.2)

    def ask() -> None:
        with transaction(uri, "shop") as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
            proxy.fall_silent()
            if call == "execute":
                cursor.execute("SELECT 2")
            elif call == "ingest":
                cursor.adbc_ingest("given_up", pa.table({"n": [1]}))
            else:
                cursor.commit()

    with pytest.raises(OSError, match=r"shop: the database has not answered for 0\.5 s"):
        ask()


def test_rows_that_keep_coming_are_not_silence(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "SILENCE", 0.5)
    schema = pa.schema([("n", pa.int64())])

    def slowly() -> Iterator[pa.RecordBatch]:
        for number in range(8):
            time.sleep(0.2)
            yield pa.record_batch({"n": [number]}, schema)

    with transaction(uri, "shop") as cursor:
        cursor.adbc_ingest("slow", pa.RecordBatchReader.from_batches(schema, slowly()), mode="replace")
        cursor.execute("SELECT count(*) FROM slow")
        assert cursor.fetchone() == (8,)


class OverError(Exception):
    pass


def test_a_signal_is_heeded_while_a_statement_runs(uri: str) -> None:
    """As Airflow's time limit is one; the statement is cancelled at the server, too."""

    def over(*_: Any) -> None:
        raise OverError

    def sleep() -> None:
        with transaction(uri, "shop") as cursor:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            cursor.execute("SELECT pg_sleep(1000000)")
            cursor.fetchone()

    before = signal.signal(signal.SIGALRM, over)
    try:
        with pytest.raises(OverError):
            sleep()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    asleep = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY (SELECT pg_sleep%'"
    )
    with transaction(uri, "shop") as cursor:
        cursor.execute(asleep)
        assert cursor.fetchone() == (0,)
