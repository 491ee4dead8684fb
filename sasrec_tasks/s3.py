"""S3, whose errors are OSErrors as those of other file systems are."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError, HTTPClientError
from fsspec.asyn import sync_wrapper

LONGEST = 600.0
"""Seconds of a call, all its tries together, which sends 100 MB at most. The limits of botocore begin when all is sent,
and a server that takes no more, or does not say that it will, would be waited for without end."""


class Interrupted(OSError, HTTPClientError):  # type: ignore[misc]  # noqa: N818 - it says what is the case
    """An answer that broke off: s3fs tries again what is an HTTPClientError, and others know OSErrors."""

    def __init__(self, message: str) -> None:
        OSError.__init__(self, message)

    __str__ = OSError.__str__


class S3FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]
    """s3fs, which gives an OSError for what a server answers, but botocore's or aiohttp's errors where none does."""

    async def _call_s3(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            answer = await asyncio.wait_for(super()._call_s3(method, *arguments, **keywords), LONGEST)
        except TimeoutError as error:
            raise OSError(
                f"S3: {method} had not come to its end after {LONGEST:g} s: it is given up"
            ) from error
        except BotoCoreError as error:
            raise OSError(f"S3: {error} (see AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE)") from error
        if isinstance(answer, dict) and hasattr(answer.get("Body"), "read"):
            answer["Body"] = _Body(answer["Body"])
        return answer

    call_s3 = sync_wrapper(_call_s3)  # which files call that are being written: s3fs's own would call its own

    def abort_uploads(self, folder: str, before: datetime, *, dry_run: bool = False) -> int:
        """Abort the uploads in parts that were begun below a folder before a moment, and have not come to their end.

        S3 keeps their parts, which no listing shows, until somebody aborts them.

        Returns:
            How many there were. Of a whole bucket, which others may use too, none are looked for.
        """
        bucket, prefix, _ = self.split_path(folder)
        if not prefix.strip("/"):
            return 0
        number, after = 0, dict[str, str]()
        while True:
            listed = self.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix.strip('/')}/", **after
            )
            for upload in listed.get("Uploads", []):
                if upload["Initiated"] < before:
                    number += 1
                    if not dry_run:
                        with suppress(FileNotFoundError):  # it has ended meanwhile
                            self.abort_mpu(bucket, upload["Key"], upload["UploadId"])
            if not listed.get("IsTruncated"):
                return number
            after = {"KeyMarker": listed["NextKeyMarker"], "UploadIdMarker": listed["NextUploadIdMarker"]}


class _Body:
    """What an object holds, as it comes in."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def read(self, amount: int | None = None) -> bytes:
        try:
            content: bytes = await self._body.read(amount)
        except Exception as error:  # of botocore, of aiohttp or of sockets
            raise Interrupted(f"S3: an answer broke off: {error}") from error
        return content

    def close(self) -> None:
        self._body.close()
