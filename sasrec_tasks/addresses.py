"""What no setting that names a place may hold: a secret, which would be kept in the run's folder, or no address."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import PASSWORD, SECRET, masked, shown

CHAIN = re.compile(r"::(?![^\[]*\])")
"""Where fsspec chains URLs, and not in an IPv6 address."""


def check(name: str, place: str) -> None:
    """Refuse what is no address, and one with a secret in it: settings are kept, and shown.

    Args:
        name: the setting that names the place, for the message.
        place: a path, glob or URL.

    Raises:
        BadSettings: the message holds no secret.
    """
    if "\0" in place:
        raise BadSettings(f"{name}={shown(place)}: holds a NUL character, which no place has: take it out")
    for url in CHAIN.split(place):
        try:
            secret = _secret(url)
        except ValueError as error:
            why = "" if PASSWORD.search(url) else f": {error}"  # which repeats a part of it
            raise BadSettings(f"{name}={shown(place)}: is no URL{why}") from None
        if secret:
            raise BadSettings(
                f"{name}: holds a {secret}, which would be kept in the run's settings: name a connection instead "
                "(connection:ID), or leave it to the environment (PGPASSWORD, ~/.pgpass, AWS_SECRET_ACCESS_KEY)"
            )


def check_triggered(conf: Mapping[str, Any]) -> None:
    """Refuse a trigger with a secret in an address, whichever setting it stands in.

    Airflow has kept what a run is triggered with by then, and shows it: all that is left is to say so.

    Raises:
        BadSettings: the message holds no secret.
    """
    for name, value in conf.items():
        for text in _texts(value):
            if _is_secret(text):
                raise BadSettings(
                    f"conf: {shown(name)}: holds an address with a password or another secret, which Airflow keeps "
                    "with the run and shows in its UI: have it changed where it is good for something, and name a "
                    "connection instead (connection:ID)"
                )


def _secret(url: str) -> str:
    """What secret a URL holds; "" if none."""
    parts = urlsplit(url)
    keys = [key for key, _ in parse_qsl(parts.query) if SECRET.search(key)]
    if parts.password or PASSWORD.search(url) or (keys and "passw" in keys[0].lower()):
        return "password"
    return f"secret ({keys[0]})" if keys else ""


def _is_secret(text: str) -> bool:
    try:
        return any(_secret(url) for url in CHAIN.split(text))
    except ValueError:  # no URL
        return masked(text) != text


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in (*value.keys(), *value.values()):
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
