"""The cases as the tables of docs/input.md."""

from __future__ import annotations

from itertools import groupby

from hostile.all_cases import KINDS
from hostile.case import Case


def tables() -> str:
    """A table for each kind, with the number of its cases: what comes in, and what it gets."""
    total = sum(map(len, KINDS.values()))
    parts = [f"{total:,} inputs:"]
    for kind, cases in KINDS.items():
        parts += [
            f"### {kind} ({len(cases)})",
            "\n".join(["| input | gets |", "| --- | --- |", *_rows(cases)]),
        ]
    return "\n\n".join(parts)


def _rows(cases: list[Case]) -> list[str]:
    single = [_row(case.what, case.gets.told()) for case in cases if not case.group]
    grouped = sorted((case for case in cases if case.group), key=lambda case: case.group)
    return single + [
        _row(f"{group} ({len(found)} inputs)", found[0].shown)
        for group, found in (
            (group, list(same)) for group, same in groupby(grouped, key=lambda case: case.group)
        )
    ]


def _row(what: str, gets: str) -> str:
    return f"| {_cell(what)} | {_cell(gets)} |"


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, on one line; what no one sees is spelt out."""
    shown = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)
    if "`" in shown:  # it marks code itself
        return shown.replace("|", "\\|")
    for sign in "\\*_<[|":
        shown = shown.replace(sign, f"\\{sign}")
    return shown
