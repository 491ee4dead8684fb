"""Which places may be named from outside: an allow-list for source, store and table."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import shown

DATABASES = ("connection:", "postgresql://", "postgres://")
"""What an address of a database begins with: it is no path, and may name another host behind its `?`."""

OF_HOSTS = ("http", "https", "ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs", "webdav", "github", "jupyter")
"""Kinds of URLs in which a host stands after `://`, and no bucket."""

NOT_PLAIN = re.compile(r"%[0-9A-Fa-f]{2}|[?#\\\[\]^|]")
"""What an address means something else by, or has no place for where deltalake makes a host's name of a path."""


def check(name: str, url: str, roots: Iterable[str] | None) -> None:
    """Refuse a place outside the allowed roots; links and `..` are followed first.

    A database is allowed by its own address, or by that of the database without a table. A root that is a kind of
    URL alone (`https://`) allows no host of a private network: such a host has to be named.

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
            f"{name}={shown(url)}: outside the allowed roots ({', '.join(roots) or 'none is set'}): "
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
    if place.startswith(DATABASES):
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
    if url.startswith(DATABASES):  # whose `?` is none
        return url
    fixed = re.split(r"[*?\[{]", url, maxsplit=1)[0]
    if fixed == url:
        return url
    above, slash, _ = fixed.rpartition("/")
    return above or ("/" if slash else ".")


def lies_in(place: str, folder: str, *, itself: bool) -> bool:
    """Whether a place, or what its pattern begins with, lies in a folder.

    Args:
        itself: what is said of the folder itself.
    """
    if place.startswith(DATABASES) or folder.startswith(DATABASES):
        return False
    place, folder = without_pattern(_where(place)), without_pattern(_where(folder))
    if not any(_is_below(form, folder) for form in (place, unquote(place))):
        return False
    return itself or _resolve(place) != _resolve(folder)


def _where(url: str) -> str:
    """A place without the kind of its table."""
    bare = url.removeprefix("parquet+")
    return url if bare.startswith(DATABASES) else bare


def _is_under(url: str, root: str) -> bool:
    """Whether a place lies under a root, whether or not its reader decodes `%2e%2e`."""
    if url.startswith(DATABASES) or root.startswith(DATABASES):
        database, _, query = url.partition("?")
        return url == root or (database == root and bool(re.fullmatch(r"table=[A-Za-z0-9_.]+", query)))
    if root.endswith("://") and _is_private(url):
        return False
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


def _is_private(url: str) -> bool:
    """Whether a URL names a host that is no public one, or that nobody knows.

    Names are looked up, since `127.1` and `2130706433` are numbers of hosts, too.
    """
    for each in url.split("::"):
        try:
            parts = urlsplit(each)
            if parts.scheme.lower() not in OF_HOSTS:
                continue
            found = socket.getaddrinfo(parts.hostname or "", None)
        except (OSError, ValueError):
            return True
        if not all(
            ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found
        ):
            return True
    return False


def _resolve(url: str) -> str:
    """A comparable form: the real path of what is local, the URL of what is not."""
    if "::" not in url and split_protocol(url)[0] in (None, "file", "local"):
        return str(os.path.realpath(str(LocalFileSystem._strip_protocol(url))))
    return url if url.endswith("://") else url.rstrip("/")
