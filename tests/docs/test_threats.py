"""The page of threats stands on tests that are there, and fits a page."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "threats.md").read_text(encoding="utf-8")


def anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 20
    for link in links:
        path, _, anchor = link.partition("#")
        file = (DOCS / path).resolve()
        assert file.is_file(), link
        assert not anchor or anchor in anchors(file), link
        assert file.suffix == ".md" or "def test_" in file.read_text(encoding="utf-8"), link


def test_each_threat_is_stopped_by_a_test_or_left_to_somebody() -> None:
    rows = [
        line
        for line in TEXT.splitlines()
        if line.startswith("| ") and not line.startswith(("| could", "| ---"))
    ]
    assert len(rows) > 15
    for row in rows:
        assert "](" in row or "left to the operator" in row.lower() or "`" in row, row


def test_it_is_one_page() -> None:
    assert len(TEXT.splitlines()) < 100
