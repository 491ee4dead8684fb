"""What the README shows is what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"\*\*(\w+)\*\*\n\n```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table that has two versions, so that stale rows lie about."""
    folder = tmp_path_factory.mktemp("consumer")
    for run, item in (("run-1", "stale-item"), ("run-2", "fresh-item")):
        open_tables(str(folder / "recommendations")).publish(
            rows(run, item),
            pa.Table.from_batches(rows(run, item)).select(POPULAR.names),
            run_id=run,
            as_of=datetime.now(UTC),
            metadata={},
        )
    return folder


def rows(run: str, item: str) -> Iterator[pa.RecordBatch]:
    users = ["user-000001", "user-000001", "user-000002"]
    columns = [users, [1, 2, 1], [item, f"{item}-2", item], [0.9, 0.8, 0.7], ["model"] * 3, [run] * 3]
    yield pa.RecordBatch.from_arrays(
        [
            pa.array(values, field.type)
            for values, field in zip([*columns, [datetime.now(UTC)] * 3], RECOMMENDATIONS, strict=True)
        ],
        schema=RECOMMENDATIONS,
    )


def test_the_packages_own_reader(published: Path) -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
        if "Recommendations(" in block
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(changed)"],
        cwd=published,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fresh-item" in done.stdout
    assert "changed" in done.stdout
    assert "stale-item" not in done.stdout


def test_every_promised_engine_has_a_snippet() -> None:
    assert [name for name, _ in SNIPPETS] == ["DuckDB", "Polars", "pandas", "Spark"]


INSTALLED = [
    (name, code)
    for name, code in SNIPPETS
    if name != "Spark"
    or importlib.util.find_spec("pyspark") is not None  # needs Java and its own environment
]

AT_EXIT = "terminate called without an active exception"
"""What a thread of a library says, rarely, that is not joined when Python ends: all has been read by then."""


@pytest.mark.parametrize(("name", "code"), INSTALLED, ids=[name for name, _ in INSTALLED])
def test_a_consumer_reads_the_newest_version(name: str, code: str, published: Path) -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=published,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if AT_EXIT not in done.stderr:
            break
    assert done.returncode == 0, f"{name}: {done.stderr}"
    assert "fresh-item" in done.stdout
    assert "stale-item" not in done.stdout


def test_picture_and_settings_are_those_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "render.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        "README.md or docs/quality.md is out of date: run `make docs`\n" + done.stderr
    )


def test_commands_that_the_readme_names_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", README)) - {"and"}
    assert named
    assert named <= targets
