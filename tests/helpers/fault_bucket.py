"""A bucket on S3 whose content can be kept and put back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import boto3

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Bucket:
    """A bucket of a server, made anew.

    Args:
        server: address of the server.
    """

    server: str
    name: str = "night"

    def __post_init__(self) -> None:
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.server,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.client.create_bucket(Bucket=self.name)
        self._known: dict[tuple[str, str], bytes] = {}

    @property
    def url(self) -> str:
        """Its URL."""
        return f"s3://{self.name}"

    def objects(self) -> dict[str, str]:
        """Name → ETag, of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {found["Key"]: found["ETag"] for page in pages for found in page.get("Contents", [])}

    def contents(self) -> dict[str, bytes]:
        """Name → content, of all objects; what is as it was is not fetched again."""
        found = self.objects().items()
        known = self._known
        self._known = {each: known[each] if each in known else self.read(each[0]) for each in found}
        return {name: content for (name, _), content in self._known.items()}

    def read(self, name: str) -> bytes:
        """What an object holds."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=name)["Body"].read()
        return content

    def uploads(self) -> list[tuple[str, str]]:
        """Name and id of the uploads in parts that have not ended."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [(upload["Key"], upload["UploadId"]) for upload in found]

    def keep(self) -> SavedBucket:
        """Keep it as it is now."""
        contents = self.contents()
        return SavedBucket(self, self.objects(), contents)

    def listing(self) -> list[str]:
        """Names of what there is, without what is drawn by lot; uploads that have not ended too."""
        unfinished = [f"upload of {name}" for name, _ in self.uploads()]
        return sorted(UUID.sub("UUID", name) for name in (*self.objects(), *unfinished))


@dataclass(frozen=True)
class SavedBucket:
    """Its content."""

    of: Bucket
    tags: dict[str, str]  # ETags
    contents: dict[str, bytes]

    def restore(self) -> None:
        """Make the bucket what it was."""
        bucket = self.of
        for name, upload in bucket.uploads():
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=name, UploadId=upload)
        found = bucket.objects()
        for name in found.keys() - self.contents.keys():
            bucket.client.delete_object(Bucket=bucket.name, Key=name)
        for name, content in self.contents.items():
            if found.get(name) != self.tags[name]:
                bucket.client.put_object(Bucket=bucket.name, Key=name, Body=content)

    def forget(self) -> None:
        """Keep it no longer."""
        self.contents.clear()
