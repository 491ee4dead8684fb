"""Read reports of `results/`, and draw Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"

Report = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def reports(suffix: str, folder: Path = RESULTS) -> Iterator[Report]:
    """The reports whose file is named `<data>.<suffix>.json`, by name."""
    for file in sorted(folder.glob(f"*.{suffix}.json")):
        yield json.loads(file.read_text(encoding="utf-8"))


def read_report(file: Path) -> Report:
    """A report; empty if it has not been made."""
    found: Report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def read_rows(file: Path) -> list[dict[str, Any]]:
    """What a benchmark has measured so far."""
    rows: list[dict[str, Any]] = read_report(file).get("rows", [])
    return rows


def in_seconds(value: float) -> str:
    """Seconds with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
