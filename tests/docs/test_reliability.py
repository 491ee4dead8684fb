"""The tests that docs/reliability.md names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\[(test_\w+)\]\((\S+?\.py)\)")


@pytest.mark.parametrize("document", ["reliability.md"])
def test_each_test_that_is_named_is_in_the_file_that_is_linked(document: str) -> None:
    named = LINK.findall((DOCS / document).read_text(encoding="utf-8"))
    assert named
    missing = [
        (test, file)
        for test, file in named
        if not re.search(rf"^ *def {test}\(", (DOCS / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert not missing


def test_each_promise_names_a_test() -> None:
    rows = re.findall(
        r"^\| (.+) \| (.+) \|$", (DOCS / "reliability.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    promises = [held for promise, held in rows if promise.endswith(".")]
    assert len(promises) > 15
    assert all(LINK.search(held) for held in promises)
