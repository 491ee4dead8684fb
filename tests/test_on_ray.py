"""What a job tells of an error."""

from __future__ import annotations

import pytest

from sasrec_tasks.errors import BadData

main = pytest.importorskip(
    "sasrec_tasks.on_ray.__main__", reason="needs Ray: pip install 'sasrec-tasks[ray]'"
)


class RayTaskError(Exception):
    """Ray's has what was raised as `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback as text")
        self.cause = cause


def from_(error: Exception, other: Exception) -> Exception:
    error.__cause__ = other
    return error


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (OSError("the disk"), "the disk"),
        (RayTaskError(OSError("the disk")), "the disk"),
        (from_(OSError("why, and what to do"), KeyError("bare")), "why, and what to do"),
        (RayTaskError(from_(OSError("why, and what to do"), KeyError("bare"))), "why, and what to do"),
        (RayTaskError(from_(RuntimeError("a step"), BadData("the rows"))), "the rows"),
    ],
)
def test_what_the_work_has_raised_is_told(raised: Exception, told: str) -> None:
    assert str(main.cause(raised)) == told


def test_an_error_that_hangs_on_itself_is_told() -> None:
    error = OSError("again")
    assert main.cause(from_(error, error)) is error
