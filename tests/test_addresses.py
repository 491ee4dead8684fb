"""No address with a secret in it gets as far as the run's settings; others do."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks import addresses
from sasrec_tasks.config import PLACES
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import form, masked, shown

SECRET = "hunter2"

PLAIN = (
    "/data/x.parquet", "data/*.parquet", "/data/a[1]*.parquet", "/data/{date:%Y/%m/%d}/x::y", "s3://bucket/x",
    "postgresql://user@host/db?table=tokens", "connection:db?table=secrets", "parquet+s3://bucket/passwords",
    "http://[::1]:8000/x.parquet", "simplecache::s3://bucket/x", "memory://x", "C:\\data\\x.parquet", "",
    "abfs://container@account.dfs.core.windows.net/x", "/data/user:password@host/x.parquet",
)  # fmt: skip
WITH_A_SECRET = (
    f"postgresql://u:{SECRET}@host/db", f"postgresql://host/db?password={SECRET}", f"s3://k:{SECRET}@bucket/x",
    f"simplecache::s3://k:{SECRET}@bucket/x", f"https://host/x?X-Amz-Signature={SECRET}",
    f"https://host/x?a=1&sig={SECRET}", f"connection:db?passwd={SECRET}", f"https://[::1]/x?apikey={SECRET}",
    f"postgresql://u:{SECRET}@[::1/db", f"postgresql://u:{SECRET}@host/\0",
)  # fmt: skip


@pytest.mark.parametrize("place", PLAIN)
def test_places_without_a_secret_pass(place: str) -> None:
    addresses.check("source", place)


@pytest.mark.parametrize("place", WITH_A_SECRET)
def test_a_secret_is_refused_and_not_said(place: str) -> None:
    with pytest.raises(BadSettings, match=r"^source") as raised:
        addresses.check("source", place)
    assert SECRET not in str(raised.value)


@given(st.text())
def test_any_text_is_a_place_or_a_bad_setting(place: str) -> None:
    said = "source"
    try:
        addresses.check("source", place)
    except BadSettings as error:
        said = str(error)
    assert said.startswith("source")


@given(st.recursive(st.none() | st.text() | st.floats() | st.integers(), st.lists))
def test_a_value_is_shown_short(value: object) -> None:
    assert len(shown(value)) < 5000


def test_a_short_value_is_shown_as_it_is() -> None:
    for value in ("it's", 1.5, float("nan"), None, ["a", 1], {"a": "b"}):
        assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://u:{SECRET}/x@host/db", f"s3://AKIA:a/{SECRET}+=@bucket/x",
        f"postgresql://u:a@b@{SECRET}@host/db", f"could not reach 'postgresql://u:{SECRET}@host/db?x=1' at all",
        f"https://host/x?X-Amz-Signature={SECRET}&a=1", f"postgresql://host/db?a=1&sslpassword={SECRET}",
    ],
)  # fmt: skip
def test_a_secret_is_masked_whether_or_not_it_is_escaped(text: str) -> None:
    assert SECRET not in masked(text)
    assert SECRET not in shown([text])
    assert SECRET not in shown({"a": text * 50})
    assert "host" in masked(text) or "bucket" in masked(text)
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "/data/x", "http://host:8000/x@y", "http://[::1]:8000/a@b", "s3://bucket/a@b", "postgresql://u@host:5432/db",
        "see https://host/x?page=2", "12:30 a@b", "postgresql://postgres:@/db?host=/tmp/x",
    ],
)  # fmt: skip
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert masked(text) == text
    addresses.check_triggered({"source": text, "ingest": {"columns": {text: [text]}}})


def test_what_is_no_url_is_told_without_what_it_repeats() -> None:
    for place in (f"postgresql://u:[{SECRET}]@host/db", f"http://u:{SECRET}@[::1/x"):
        with pytest.raises(BadSettings, match=r"is no URL|holds a password") as raised:
            addresses.check("table", place)
        assert SECRET not in str(raised.value)


def test_an_unescaped_password_does_not_pass_for_a_port() -> None:
    with pytest.raises(BadSettings, match="holds a password") as raised:
        addresses.check("table", f"postgresql://u:{SECRET}/x@host/db")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "conf",
    [
        {"source": f"postgresql://u:{SECRET}@host/db"},
        {"ingest.columns": {f"s3://k:{SECRET}@b/x": "USER_ID"}},
        {"train": {"epochs": [1, {"a": (f"https://h/x?token={SECRET}",)}]}},
        {f"http://u:{SECRET}@[::1": f"http://u:{SECRET}@[::1"},
    ],
)
def test_a_trigger_with_a_secret_anywhere_is_refused_and_not_said(conf: dict[str, object]) -> None:
    with pytest.raises(BadSettings, match="Airflow keeps") as raised:
        addresses.check_triggered(conf)
    assert SECRET not in str(raised.value)


# The trigger form, by which Airflow refuses a run before it keeps what it was to be triggered with


def is_taken(place: str) -> bool:
    patterns = {schema["pattern"] for name, _, schema in form() if name in PLACES}
    (pattern,) = patterns
    return re.search(pattern, place) is not None


@pytest.mark.parametrize("place", WITH_A_SECRET)
def test_the_form_takes_no_place_with_a_secret(place: str) -> None:
    assert not is_taken(place)
    assert not is_taken(f"/data/table, {place}")
    assert not is_taken(place.upper())


PARTS = (
    "://",
    "::",
    ":",
    "@",
    "/",
    "?",
    "&",
    "#",
    "=",
    "token",
    "PWD",
    "x",
    "80",
    " ",
    "'",
    ",",
    "[",
    "]",
    "\n",
)


@given(st.lists(st.sampled_from(PARTS)).map("".join) | st.text() | st.sampled_from(PLAIN))
def test_the_form_takes_each_place_that_is_no_secret(place: str) -> None:
    if not is_taken(place):
        with pytest.raises(BadSettings, match="Airflow keeps"):
            addresses.check_triggered({"source": place})


@pytest.mark.parametrize("part", ["://x:", "?token", "&token=", "://x:x", "token"])
def test_no_text_takes_the_form_long(part: str) -> None:
    assert is_taken(part * 20_000)
