"""S3, whose errors are OSErrors as those of other file systems are."""

from __future__ import annotations

from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError


class S3FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]
    """s3fs, which gives an OSError for what a server answers, but botocore's errors where none does."""

    async def _call_s3(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            return await super()._call_s3(method, *arguments, **keywords)
        except BotoCoreError as error:
            raise OSError(f"S3: {error} (see AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE)") from error
