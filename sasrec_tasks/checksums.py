"""Small JSON files that carry the checksum of their own content, so that damage is seen when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sha256"


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and under `KEY` the SHA-256 of what JSON makes of them."""
    return {**values, KEY: _of(values)}


def checked(content: bytes) -> dict[str, Any]:
    """The values of a file that was made of `with_checksum`; where there is none, by an earlier version or by hand,
    they are taken as they are.

    Raises:
        ValueError: no JSON object, or not the one that was written.
    """
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    expected = values.pop(KEY, None)
    if expected is not None and expected != _of(values):
        raise ValueError(f"its checksum ({KEY}) is not that of its content")
    return values


def _of(values: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(values))  # keys are text, tuples are lists
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()
