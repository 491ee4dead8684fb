"""The file system that a folder or URL lies on."""

from __future__ import annotations

from typing import Any

import fsspec

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.extras import needs


def opened(place: str, setting: str) -> tuple[Any, str]:
    """The file system of a place and its path there, with no listing remembered from before.

    Args:
        setting: what names the place, for the message.

    Raises:
        BadSettings: a URL of no known kind, or of one whose package is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        told = needs("s3fs") if place.startswith(("s3://", "s3a://")) else error
        raise BadSettings(f"{setting}={place!r}: {told}") from error
    fs.invalidate_cache()  # others write there too
    return fs, path
