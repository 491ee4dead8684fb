"""Each setting beyond its bounds and of another type, read off `config.py` so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hostile.case import Case, bad_settings
from sasrec_tasks.config import GROUPS, Settings
from sasrec_tasks.naming import fields

WRONG: dict[str, tuple[Any, str]] = {
    "string": (5, "input should be a valid string"),
    "integer": ("many", "input should be a valid integer"),
    "number": ("much", "input should be a valid number"),
    "boolean": ("perhaps", "input should be a valid boolean"),
    "object": (["USER_ID"], "input should be a valid dictionary"),
    "array": (5, "input should be a valid tuple"),
    "date-time": ({"a": 1}, "input should be a valid datetime"),
}
"""Type → a value that is none, and what is said of it."""

BOUNDS = {
    "minimum": (-1, "greater than or equal to"),
    "exclusiveMinimum": (0, "greater than"),
    "maximum": (1, "less than or equal to"),
    "exclusiveMaximum": (0, "less than"),
}
"""Of JSON schema: which way out, and in words."""


GROUPED = {
    "a word that is none of those allowed": "input should be 'ONE', 'ANOTHER' or …",
    "a value of another type": "input should be a valid TYPE",
    "a fraction for a whole number": "input should be a valid integer, got a number with a fractional part",
    "NaN or infinite": "input should be a finite number",
    "true for a number": "is not what the setting takes",
    "less than the least allowed": "input should be greater than, or equal to, BOUND",
    "more than the most allowed": "input should be less than, or equal to, BOUND",
}
"""What the document says of all cases of a group."""


def cases() -> Iterator[Case]:
    """All of this kind."""
    schemas = {"": Settings.model_json_schema()} | {
        n: group.model_json_schema() for n, group in GROUPS.items()
    }
    for name, _ in fields():
        group, _, key = name.rpartition(".")
        schema = schemas[group]["properties"][key]
        (kind,) = (each for each in schema.get("anyOf", [schema]) if each.get("type") != "null")
        if "enum" in kind:
            yield _refused(name, "no such", "input should be '", "a word that is none of those allowed")
            continue
        yield from _beyond(name, kind)
        value, said = WRONG[kind.get("format", kind["type"])]
        yield _refused(name, value, said, "a value of another type")
        if kind["type"] == "integer":
            yield _refused(name, 1.5, "input should be a valid integer, got a number with a fractional part",
                           "a fraction for a whole number")  # fmt: skip
        if kind["type"] == "number":
            for value in (float("nan"), float("inf"), float("-inf")):
                yield _refused(name, value, "input should be a finite number", "NaN or infinite")
        if kind["type"] in ("integer", "number"):
            yield _refused(name, True, "is not what the setting takes", "true for a number")


def _beyond(name: str, kind: dict[str, Any]) -> Iterator[Case]:
    for key, (step, words) in BOUNDS.items():
        if key in kind:
            least = key.lower().endswith("minimum")
            what = "less than the least allowed" if least else "more than the most allowed"
            bound = kind[key]
            outside = bound + step if step == 0 or kind["type"] == "integer" else _next(bound, step)
            yield _refused(name, outside, f"input should be {words} {_plain(bound)}", what)


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else repr(bound)


def _next(bound: float, step: int) -> float:
    """The nearest number on the way out that is not lost in rounding."""
    return bound + step * 1e-9 * max(abs(bound), 1)


def _refused(name: str, value: Any, said: str, group: str) -> Case:
    return Case(
        what=f"`{name}={value!r}`",
        make=lambda place: {name: value},
        gets=bad_settings(f"{name}={value!r}: {said}"),
        group=group,
        shown=f"`BadSettings` in `start`: NAME=VALUE: {GROUPED[group]}",
    )
