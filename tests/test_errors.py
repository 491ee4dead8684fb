from __future__ import annotations

import pytest

from sasrec_tasks.errors import BadData, BadSettings, GateRefused, RetryCannotHelp, exit_status


@pytest.mark.parametrize(
    ("error", "status"),
    [(BadData("x"), 1), (BadSettings("x"), 2), (GateRefused("x"), 3), (OSError("x"), 1), (KeyError("x"), 1)],
)
def test_exit_status_is_read_off_the_class(error: Exception, status: int) -> None:
    assert exit_status(error) == status


def test_bad_input_is_not_tried_again_and_a_passing_fault_is() -> None:
    assert all(issubclass(kind, RetryCannotHelp) for kind in (BadData, BadSettings, GateRefused))
    assert not issubclass(OSError, RetryCannotHelp)


@pytest.mark.parametrize("kind", [BadData, BadSettings])
def test_bad_input_is_a_value_error(kind: type[Exception]) -> None:
    with pytest.raises(ValueError, match="why"):
        raise kind("why")
