"""What a run has left, in a form that is the same for two runs that did the same: without times and random names."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.tables import Recommendations

OF_THE_MOMENT = {
    "seconds",
    "finished_at",
    "written_at",
    "at",
    "peak_rss_mb",
    "resumed_from_epoch",  # that it was killed is told
    # of files with times in them:
    "digest",
    "fingerprint",
    "files",
    "sha256",
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TRIED = re.compile(r"/tmp/[a-z0-9_]{8}$")
PLACE = re.compile(r"(?<=publishes/)(\d{6})-[0-9a-f]{8}")

State = dict[str, Any]


def artifacts(run: Path) -> State:
    """Path → content or its hash, of all files of a run's folder but locks."""
    return {
        str(file.relative_to(run)): _content(file)
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.suffix != ".lock"
    }


def listing(folder: Path) -> Counter[str]:
    """Names of all files and empty folders below a folder, how many of each; without that by which Python tries
    whether a folder for temporary files can be written to."""
    return Counter(
        PLACE.sub(r"\1-PLACE", UUID.sub("UUID", str(path.relative_to(folder))))
        for path in folder.rglob("*")
        if path != folder / "tmp"
        and not TRIED.search(str(path))
        and (path.is_file() or not any(path.iterdir()))
    )


def served(table: str) -> tuple[pa.Table, pa.Table] | None:
    """What a consumer reads: all rows of the newest version and its popular items; None if nothing is published.

    The version is what it is by its reader: `RUN_ID` of every row is that of the version.
    """
    try:
        recommendations = Recommendations(table)
    except BadSettings:
        return None
    rows, popular = recommendations.to_pandas(), recommendations.popular()
    assert set(rows["RUN_ID"]) | set(popular["RUN_ID"]) == {recommendations.run_id}, "rows of two runs"
    return pa.Table.from_pandas(rows), pa.Table.from_pandas(popular)


def age(folder: Path, days: float) -> None:
    """Make all files below a folder look so much older."""
    moment = time.time() - 86_400 * days
    for file in folder.rglob("*"):
        os.utime(file, (moment, moment), follow_symlinks=False)


def _content(file: Path) -> Any:
    try:
        return _parsed(file)
    except (ValueError, pa.ArrowException, SafetensorError):  # damaged
        return _hash(file.read_bytes())


def _parsed(file: Path) -> Any:
    if file.suffix == ".json" or file.name == "_SUCCESS":
        return _without_times(json.loads(file.read_text()))
    if file.name == "history.parquet":
        return pq.read_table(file).drop_columns(["seconds", "finished_at"]).to_pylist()
    if file.name == "state.safetensors":
        with safe_open(file, framework="np") as tensors:
            return {name: _hash(tensors.get_tensor(name).tobytes()) for name in sorted(tensors.keys())}
    if file.suffix == ".md":
        return re.sub(r"Written \S+", "Written", file.read_text())
    return _hash(file.read_bytes())


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(each) for name, each in value.items() if name not in OF_THE_MOMENT}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
