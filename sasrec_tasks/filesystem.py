"""The file system that a folder or URL lies on."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import Any

import fsspec

from sasrec_tasks import files
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.extras import needs

log = logging.getLogger(__name__)

HTTP = re.compile(r"(?:^|::)(https?)://")
"""Where a URL, or one that it is chained to, is of HTTP."""


def opened(place: str, setting: str) -> tuple[Any, str]:
    """The file system of a place and its path there, with no listing remembered from before; its errors are OSErrors.

    Args:
        setting: what names the place, for the message.

    Raises:
        BadSettings: a URL of no known kind, or of one whose package is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(place, **_clients(place))
    except (ImportError, ValueError) as error:
        told = needs("s3fs") if place.startswith(("s3://", "s3a://")) else error
        raise BadSettings(f"{setting}={place!r}: {told}") from error
    if files.is_s3(fs):
        from sasrec_tasks import s3  # needs the package s3fs

        fs = s3.S3FileSystem(*fs.storage_args, **fs.storage_options)
    elif place.startswith(("http://", "https://")):
        from sasrec_tasks import http

        fs = http.HTTPFileSystem(*fs.storage_args, **fs.storage_options)
    fs.invalidate_cache()  # others write there too
    return fs, path


def _clients(place: str) -> dict[str, dict[str, Any]]:
    """What fsspec is to ask servers by, of each kind of HTTP in a place."""
    kinds = HTTP.findall(place)
    if not kinds:
        return {}
    from sasrec_tasks import http  # needs the package aiohttp

    return {kind: {"get_client": http.client} for kind in kinds}


def abort_uploads(folder: str, before: datetime, *, dry_run: bool = False) -> int:
    """Abort uploads in parts below a folder on S3 that were begun before a moment, and were cut off; elsewhere none.

    What the account may not do, or a server doesn't know, is a warning.

    Returns:
        How many there were.
    """
    fs, path = opened(folder, "table")
    if not files.is_s3(fs):
        return 0
    try:
        number: int = fs.abort_uploads(path, before, dry_run=dry_run)
    except OSError as error:
        log.warning(
            "%s: uploads that were cut off can't be looked for: have a lifecycle rule of the bucket abort them (%s)",
            folder,
            error,
        )
        return 0
    if number:
        log.info(
            "%s: %d uploads that were cut off %s aborted", folder, number, "would be" if dry_run else "were"
        )
    return number
