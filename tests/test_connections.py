"""Connections: an address by its name, which is shown and kept nowhere."""

from __future__ import annotations

import pytest

from sasrec_tasks import connections
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import open_tables


def test_other_urls_are_left_alone() -> None:
    for url in ("/data/x", "s3://bucket/x", "postgresql://host/x", ""):
        assert connections.resolve(url) == url


def test_an_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASREC_CONNECTION_SHOP_EU", "postgresql://user:secret@host/shop?sslmode=require")
    expected = "postgresql://user:secret@host/shop?sslmode=require&table=top"
    assert connections.resolve("connection:shop-eu?table=top") == expected


def test_a_lookup_holds_within_its_context() -> None:
    with connections.use({"w": "postgresql://host/x"}.__getitem__):
        assert connections.resolve("connection:w") == "postgresql://host/x"
    with pytest.raises(BadSettings, match=r"no connection 'w'.*SASREC_CONNECTION_W"):
        connections.resolve("connection:w")


def test_a_bad_name_is_refused() -> None:
    with pytest.raises(BadSettings, match="letters"):
        connections.resolve("connection:../x")


def test_a_password_is_not_shown(postgres: str) -> None:
    secret = postgres.replace("postgres:@", "postgres:secret@")
    with connections.use({"w": secret}.__getitem__):
        assert open_tables("connection:w?table=x").url == "connection:w?table=x"
        assert list(open_tables("connection:w?table=x").published()) == []
    assert "secret" not in open_tables(secret).url
    unreachable = "postgresql://user:secret@127.0.0.1:1/x?password=secret&connect_timeout=1"
    with pytest.raises(OSError, match=r"127\.0\.0\.1") as raised:
        list(open_tables(unreachable).published())
    assert "secret" not in str(raised.value)


ODD = (
    "p/w-odd",
    "p@w-odd",
    "p#w-odd",
    "p?w-odd",
    "p:w-odd",
    "p%zz-odd",
    "[p-odd]",
    "p odd-w",
    "p%2Fodd",
    "p&w=odd",
)


@pytest.mark.parametrize("password", ODD)
@pytest.mark.parametrize(
    "form", ["postgresql://u:{}@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?password={}"]
)
def test_a_password_that_is_not_escaped_is_not_said_either(password: str, form: str) -> None:
    address = form.format(password) + ("&" if "?" in form else "?") + "connect_timeout=1"
    with connections.use({"w": address}.__getitem__), pytest.raises((OSError, BadSettings)) as raised:
        list(open_tables("connection:w?table=x").published())
    said = str(raised.value)
    assert "connection:w" in said
    assert "odd" not in said, said
    assert raised.value.__cause__ is None  # which a log would show
