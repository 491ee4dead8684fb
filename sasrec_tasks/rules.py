"""A rule of the gate: a figure, what it is held against, and what follows.

Each has a limit beyond which the model is refused, and may have one before it beyond which a
person is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "asks", "refused"]

WORST_FIRST: tuple[Outcome, ...] = ("refused", "asks", "passed")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule, the figure it looked at, and what it found."""

    rule: str
    outcome: Outcome
    reason: str
    figure: float | None = None
    limit: float | None = None  # beyond it the model is refused
    ask: float | None = None  # beyond it a person is asked


def at_least(
    rule: str, what: str, figure: float, limit: float | None, ask: float | None = None, form: str = ".4f"
) -> Rule:
    """Whether a figure reaches its limits, of which either may be none.

    Args:
        what: names the figure for people.
        form: how its value and limits are written.
    """
    return _held(rule, what, figure, limit, ask, form, sign=1)


def at_most(
    rule: str, what: str, figure: float, limit: float | None, ask: float | None = None, form: str = ".4f"
) -> Rule:
    """As `at_least`, but the figure may not exceed its limits."""
    return _held(rule, what, figure, limit, ask, form, sign=-1)


def worst_first(rules: Iterable[Rule]) -> list[Rule]:
    """Those that refuse, then those that ask, then the passed; within each as they came."""
    return sorted(rules, key=lambda rule: WORST_FIRST.index(rule.outcome))


def _held(
    rule: str, what: str, figure: float, limit: float | None, ask: float | None, form: str, sign: int
) -> Rule:
    def is_beyond(bound: float | None) -> bool:
        return bound is not None and sign * figure < sign * bound

    outcome: Outcome = "refused" if is_beyond(limit) else "asks" if is_beyond(ask) else "passed"
    word = "least" if sign > 0 else "most"
    verb = "needed" if sign > 0 else "allowed"
    said = [f"at {word} {limit:{form}} is {verb}"] if limit is not None else []
    if ask is not None:
        said.append(f"at {word} {ask:{form}} without approval")
    reason = f"{rule}: {what} {figure:{form}}" + (f" ({', '.join(said)})" if said else "")
    return Rule(rule=rule, outcome=outcome, reason=reason, figure=figure, limit=limit, ask=ask)
