"""What no setting that names a place may hold: a secret, which would be kept in the run's folder, or no address."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import shown

SECRET = re.compile(
    r"passw|passphrase|^pwd$|secret|token|signature|^sig$|account_?key|api_?key|credential", re.IGNORECASE
)
"""Names in an address's query that stand before a secret, as libpq, S3, Azure and others call them."""

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
            parts = urlsplit(url)
        except ValueError as error:
            raise BadSettings(f"{name}={shown(place)}: is no URL: {error}") from error
        keys = [key for key, _ in parse_qsl(parts.query) if SECRET.search(key)]
        if parts.password or keys:
            what = "password" if parts.password or "passw" in keys[0].lower() else f"secret ({keys[0]})"
            raise BadSettings(
                f"{name}: holds a {what}, which would be kept in the run's settings: name a connection instead "
                "(connection:ID), or leave it to the environment (PGPASSWORD, ~/.pgpass, AWS_SECRET_ACCESS_KEY)"
            )
