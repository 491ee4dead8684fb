"""What `make test-airflow` needs is there, or it fails: nothing is skipped in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parent / "helpers"
MAKEFILE = Path(__file__).parents[1] / "Makefile"

ARGUMENTS = (
    "-p",
    "no_skips",
    "-p",
    "no:cacheprovider",
    "--continue-on-collection-errors",
    "-rA",
    "--tb=short",
)
TESTS = {
    "test_a_skip.py": "import pytest\ndef test(): pytest.skip('no Chromium')",
    "test_a_fixture.py": "import pytest\n@pytest.fixture\ndef it(): pytest.skip('no Redis')\ndef test(it): pass",
    "test_a_mark.py": "import pytest\n@pytest.mark.skipif(True, reason='no GPU')\ndef test(): pass",
    "test_a_module.py": "import pytest\npytest.importorskip('there_is_none', reason='no Playwright')\ndef test(): pass",
    "test_nothing.py": "import pytest\n@pytest.mark.skip(reason='nothing to do: all others do it')\ndef test(): pass",
    "test_xfail.py": "import pytest\n@pytest.mark.xfail\ndef test(): assert False",
    "test_passes.py": "def test(): pass",
}


def outcomes(folder: Path, **environment: str) -> dict[str, str]:
    """Test → what pytest says of it."""
    kept = {name: value for name, value in os.environ.items() if name != "SASREC_NO_SKIPS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *ARGUMENTS],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(HELPERS), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines() if "test_" in line]
    found = {}
    for outcome, *where in (
        line for line in lines if line[0] in ("PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL")
    ):
        (file,) = [file for file in TESTS if file in " ".join(where)]
        found[file] = outcome
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skips")
    for name, text in TESTS.items():
        (folder / name).write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return folder


def test_skips_fail_where_nothing_may_be_skipped(folder: Path) -> None:
    assert outcomes(folder, SASREC_NO_SKIPS="1") == {
        "test_a_skip.py": "FAILED",
        "test_a_fixture.py": "ERROR",
        "test_a_mark.py": "ERROR",
        "test_a_module.py": "ERROR",
        "test_nothing.py": "SKIPPED",
        "test_xfail.py": "XFAIL",
        "test_passes.py": "PASSED",
    }


def test_skips_are_skips_elsewhere(folder: Path) -> None:
    found = outcomes(folder)
    assert {name for name, outcome in found.items() if outcome == "SKIPPED"} == {
        *("test_a_skip.py", "test_a_fixture.py", "test_a_mark.py", "test_a_module.py", "test_nothing.py")
    }


def test_make_test_airflow_skips_nothing_unless_it_is_told_to() -> None:
    lines = MAKEFILE.read_text().splitlines()
    (recipe,) = [line for line in lines if "pytest -m stack" in line]
    assert "SASREC_NO_SKIPS=$(NO_SKIPS)" in recipe
    assert "NO_SKIPS ?= 1" in lines
