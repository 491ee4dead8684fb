"""The file system that a folder or URL lies on."""

from __future__ import annotations

from typing import Any

import fsspec

from sasrec_tasks import files
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.extras import needs


def opened(place: str, setting: str) -> tuple[Any, str]:
    """The file system of a place and its path there, with no listing remembered from before; its errors are OSErrors.

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
    if files.is_s3(fs):
        from sasrec_tasks import s3  # needs the package s3fs

        fs = s3.S3FileSystem(*fs.storage_args, **fs.storage_options)
    fs.invalidate_cache()  # others write there too
    return fs, path
