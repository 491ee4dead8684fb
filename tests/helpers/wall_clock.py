"""A wall clock that is wrong, or jumps, for all of the package; what measures durations goes on as it was."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

import sasrec_tasks

HOUR = 3600.0


class _IsDatetime(type):
    def __instancecheck__(cls, other: object) -> bool:
        return isinstance(other, datetime)


@contextmanager
def shifted(by: Callable[[], float]) -> Iterator[None]:
    """Within this context the wall clock is wrong.

    Args:
        by: seconds that it is ahead, asked at each look at it.
    """
    real_time = time.time

    class Shifted(metaclass=_IsDatetime):
        """`datetime.datetime`, but for what it says of now."""

        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            return datetime(*arguments, **named)

        @staticmethod
        def now(tz: tzinfo | None = None) -> datetime:
            return datetime.fromtimestamp(real_time() + by(), UTC).astimezone(tz)

    for name in ("fromisoformat", "fromtimestamp", "strptime", "combine", "min", "max"):
        setattr(Shifted, name, getattr(datetime, name))
    with pytest.MonkeyPatch.context() as patch:
        for module in _modules():
            if vars(module).get("datetime") is datetime:
                patch.setattr(module, "datetime", Shifted)
        patch.setattr(time, "time", lambda: real_time() + by())
        yield


def jumping(*seconds: float) -> Callable[[], float]:
    """A clock that is ahead by another of these at each look at it, in turn."""
    looks = 0

    def by() -> float:
        nonlocal looks
        looks += 1
        return seconds[looks % len(seconds)]

    return by


def day_ahead() -> float:
    """A clock that is a day ahead."""
    return timedelta(days=1).total_seconds()


def hour_behind() -> float:
    """A clock that was put back by an hour."""
    return -HOUR


def _modules() -> list[Any]:
    for found in pkgutil.walk_packages(sasrec_tasks.__path__, "sasrec_tasks."):
        if ".shipped" not in found.name:
            importlib.import_module(found.name)
    return [module for name, module in sys.modules.items() if name.startswith("sasrec_tasks") and module]
