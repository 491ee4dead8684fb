"""What can go wrong, and whether trying again helps.

The DAG's retry policy and the exit status of `sasrec-tasks` are read off the class: what derives
from `RetryCannotHelp` fails at once, anything else may be a passing fault and is tried again.
"""

from __future__ import annotations


class RetryCannotHelp(Exception):  # noqa: N818 - it says what the retry policy asks
    """The same input and settings give the same failure."""

    exit_status = 1


class BadData(RetryCannotHelp, ValueError):  # noqa: N818
    """The interactions can't be used. The message names file, column and value, and what to do."""


class BadSettings(RetryCannotHelp, ValueError):  # noqa: N818
    """A setting can't be used. The message names the setting, its value and what is allowed."""

    exit_status = 2


class GateRefused(RetryCannotHelp):
    """The new model is not good enough to replace what is published."""

    exit_status = 3


class NotFresh(RetryCannotHelp):
    """The table is older, or serves fewer users, than was asked for."""

    exit_status = 4


def exit_status(error: BaseException) -> int:
    """Exit status of the command line: 1 failed, 2 bad usage or settings, 3 gate refused, 4 not fresh."""
    return error.exit_status if isinstance(error, RetryCannotHelp) else 1
