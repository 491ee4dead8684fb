"""Places on file systems of any kind."""

from __future__ import annotations

import s3fs

from sasrec_tasks.filesystem import opened
from sasrec_tasks.sources.files import list_files


def test_what_others_have_written_since_is_seen(bucket: str) -> None:
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    for number in range(1, 3):
        other.pipe_file(f"{bucket}/events/{number}.parquet", b"")
        fs, path = opened(f"{bucket}/events", "source")
        assert len(fs.ls(path)) == number
        assert len(list_files(f"{bucket}/events")[1]) == number
