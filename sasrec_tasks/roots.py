"""Which places may be named from outside: an allow-list for source, store and table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sasrec_tasks.errors import BadSettings


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
    place = _resolve(url)
    if not any(
        place == _resolve(root) or place.startswith(_resolve(root).rstrip("/") + "/") for root in roots
    ):
        raise BadSettings(
            f"{name}={url!r}: outside the allowed roots ({', '.join(roots) or 'none is set'}): "
            "use a place under one of them, or have the operator add it to SASREC_ALLOWED_ROOTS"
        )


def without_pattern(url: str) -> str:
    """The folder that holds whatever a glob can match; a place without a pattern as it is."""
    fixed = re.split(r"[*?\[]", url, maxsplit=1)[0]
    return url if fixed == url else fixed.rpartition("/")[0] or "/"


def _resolve(url: str) -> str:
    """A comparable form: real path of what is local, scheme and normalised path of what is not."""
    if "::" in url:  # chained file systems can reach anywhere from anywhere
        return f"chained:{url}"
    parts = urlsplit(url)
    if parts.scheme in ("", "file", "local"):
        path = url.partition("://")[2] or url if parts.scheme else url
        return str(Path(os.path.realpath(Path(path).expanduser())))
    path = os.path.normpath("/" + unquote(parts.path)).lstrip("/")
    return f"{parts.scheme}://{parts.netloc}/{path}".rstrip("/")
