"""Whose fault it is that a file can't be read."""

from __future__ import annotations

import pyarrow as pa

from sasrec_tasks.errors import BadData


class Blaming:
    """Turns what pyarrow says about a damaged file into an error that names it."""

    def __init__(self, path: str, *, local: bool) -> None:
        self.path, self.local = path, local

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BadData):
            return
        if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError) or (
            self.local and isinstance(error, OSError)
        ):
            raise BadData(
                f"{self.path}: can't be read as parquet, it is empty, truncated or damaged: write it again ({error})"
            ) from error
        if isinstance(error, OSError):  # remote: the network's fault, or the file's
            raise OSError(f"{self.path}: can't be read: {error}") from error
