"""Which places may be named from outside: an allow-list for source, store and table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import unquote

from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from sasrec_tasks.errors import BadSettings

NOT_PLAIN = re.compile(r"%[0-9A-Fa-f]{2}|[?#\\\[\]^|]")
"""What an address means something else by, or has no place for where deltalake makes a host's name of a path."""


def check(name: str, url: str, roots: Iterable[str] | None) -> None:
    """Refuse a place outside the allowed roots; links and `..` are followed first.

    Args:
        name: the setting that names the place, for the message.
        url: a path, glob or URL.
        roots: folders and URLs; None allows everything.

    Raises:
        BadSettings: the place lies under none of the roots.
    """
    if roots is None:
        return
    roots = list(roots)
    if not any(_is_under(_where(url), _where(root)) for root in roots):
        raise BadSettings(
            f"{name}={url!r}: outside the allowed roots ({', '.join(roots) or 'none is set'}): "
            "use a place under one of them, or have the operator add it to SASREC_ALLOWED_ROOTS"
        )


def require_plain(name: str, place: str) -> None:
    """Refuse a folder that Delta Lake, which takes every place as a URL, would look for elsewhere.

    Args:
        name: the setting that names the place, for the message.
        place: a folder or URL; an address of a database is left to what reads it.

    Raises:
        BadSettings: it holds an escape like `%20`, or one of `? # [ ] ^ |` and the backslash.
    """
    if place.startswith(("connection:", "postgresql://", "postgres://")):
        return
    if found := NOT_PLAIN.search(place):
        raise BadSettings(
            f"{name}={place!r}: holds {found[0]!r}: Delta Lake takes a folder as a URL, and this for something "
            "else: name a folder without ? # [ ] ^ | \\ and %20 and the like"
        )


def places(value: str) -> list[str]:
    """The places that a setting names, with commas between."""
    return [place for part in value.split(",") if (place := part.strip())]


def without_pattern(url: str) -> str:
    """The folder that holds whatever a glob or a template can stand for; a place without a pattern as it is."""
    fixed = re.split(r"[*?\[{]", url, maxsplit=1)[0]
    return url if fixed == url else fixed.rpartition("/")[0] or "/"


def _where(url: str) -> str:
    """A place without the kind of its table."""
    return url.removeprefix("parquet+")


def _is_under(url: str, root: str) -> bool:
    """Whether a place lies under a root, whether or not its reader decodes `%2e%2e`."""
    return _is_below(url, root) and any(_is_below(unquote(url), form) for form in (root, unquote(root)))


def _is_below(url: str, root: str) -> bool:
    try:
        place, top = _resolve(url), _resolve(root)
    except ValueError:  # NUL, which no path holds
        return False
    if place == top:
        return True
    top = top if top.endswith("/") else f"{top}/"
    inside = place.removeprefix(top)
    # a chain (`simplecache::file://…`) can reach anywhere, and so can `..` where there are no links
    return inside != place and "::" not in inside and ".." not in inside.split("/")


def _resolve(url: str) -> str:
    """A comparable form: the real path of what is local, the URL of what is not."""
    if "::" not in url and split_protocol(url)[0] in (None, "file", "local"):
        return str(os.path.realpath(str(LocalFileSystem._strip_protocol(url))))
    return url if url.endswith("://") else url.rstrip("/")
