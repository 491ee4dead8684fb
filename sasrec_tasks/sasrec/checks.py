"""Values of settings: refused with their name where they can't be used, else as plain Python."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Finite numbers from `low` to `high`."""

    low: float = 0.0
    high: float = math.inf
    with_low: bool = True
    with_high: bool = False

    def __contains__(self, number: float) -> bool:
        """Whether a number lies in it; nan never does."""
        above = number >= self.low if self.with_low else number > self.low
        return above and (number <= self.high if self.with_high else number < self.high)

    def __str__(self) -> str:
        """How errors tell it: "a number in [0, 1)" for instance."""
        if math.isinf(self.high):
            return (
                f"a finite number of at least {self.low:g}"
                if self.with_low
                else f"a finite number above {self.low:g}"
            )
        brackets = "[" if self.with_low else "(", "]" if self.with_high else ")"
        return f"a number in {brackets[0]}{self.low:g}, {self.high:g}{brackets[1]}"


NOT_NEGATIVE = Interval()
POSITIVE = Interval(with_low=False)
SHARE = Interval(high=1.0, with_high=True)
BELOW_ONE = Interval(high=1.0)


def whole_number(
    name: str, value: Any, *, at_least: int = 1, below: int | None = None, other: str = ""
) -> int:
    """The value as an int; NumPy's integers are such, bools and floats are not.

    Args:
        other: what else the caller takes, for the error (' or "auto"').

    Raises:
        ValueError: not a whole number, or out of bounds.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < at_least or (below is not None and number >= below):
        bounds = f"of at least {at_least}" + ("" if below is None else f" and below {below}")
        raise ValueError(f"{name} must be a whole number {bounds}{other}, not {value!r}")
    return number


def number_in(interval: Interval, name: str, value: Any, *, other: str = "") -> float:
    """The value as a float; NumPy's numbers and integers are such, bools and texts are not.

    Raises:
        ValueError: not a number, or outside the interval.
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # of a very long int
        number = math.nan
    if number not in interval:
        raise ValueError(f"{name} must be {interval}{other}, not {value!r}")
    return number


def flag(name: str, value: Any) -> bool:
    """The value as a bool. ValueError unless it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def one_of(choices: Sequence[str], name: str, value: Any) -> str:
    """The value. ValueError unless it is one of the choices."""
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return str(value)
