"""What an estimator's arguments may be: refused by name before anything is trained."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch

from sasrec_tasks.sasrec.checks import (
    BELOW_ONE,
    POSITIVE,
    flag,
    number_in,
    one_of,
    whole_number,
)
from sasrec_tasks.sasrec.fit_config import CHECKS as OF_TRAINING
from sasrec_tasks.sasrec.fit_config import OPTIONAL as OPTIONAL_IN_TRAINING
from sasrec_tasks.sasrec.model_config import Blocks, Positions

Check = Callable[[str, Any], Any]

SIZES = ("hidden_units", "num_blocks", "num_heads", "max_len")
"""What may be "auto"."""

OPTIONAL = (*OPTIONAL_IN_TRAINING, "temperature", "device")
"""What may be None."""


def checked(name: str, value: Any) -> Any:
    """The value of an estimator's argument as plain Python, so that JSON can hold it.

    Raises:
        ValueError: of another type or out of bounds; it names argument, value and what is allowed.
    """
    return None if value is None and name in OPTIONAL else CHECKS[name](name, value)


def size(name: str, value: Any) -> int | Literal["auto"]:
    """A whole number from 1, or "auto"."""
    if isinstance(value, str) and value == "auto":
        return "auto"
    return whole_number(name, value, other=' or "auto"')


def seed(name: str, value: Any) -> int:
    """A seed; one is drawn for None."""
    if value is None:
        return secrets.randbelow(2**31)
    return whole_number(name, value, at_least=0, below=2**63, other=" or None, which draws one")


def device(name: str, value: Any) -> str:
    """The name of a device that torch can compute on here."""
    try:
        torch.ones(1, device=value).item()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:  # assertion: built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'{name} must be one that torch can compute on here, "cpu" or "cuda" for instance, or None for a '
            f"GPU if there is one, not {value!r}: {reason}"
        ) from None
    return str(torch.device(value))


def _verbose(name: str, value: Any) -> int:
    return whole_number(name, int(value) if isinstance(value, bool) else value, at_least=0)


CHECKS: dict[str, Check] = {
    **{name: check for name, check in OF_TRAINING.items() if name != "implicit"},
    **dict.fromkeys(SIZES, size),
    "conv_width": whole_number,
    "blocks": partial(one_of, get_args(Blocks)),
    "positions": partial(one_of, get_args(Positions)),
    "dropout_rate": partial(number_in, BELOW_ONE),
    "attention_dropout": flag,
    "temperature": partial(number_in, POSITIVE, other=" or None"),
    "learning_rate": partial(number_in, POSITIVE),
    "max_minutes": partial(number_in, POSITIVE, other=" or None"),
    "device": device,
    "random_state": seed,
    "verbose": _verbose,
}
"""Argument → what refuses a bad value, and gives a good one as plain Python."""
