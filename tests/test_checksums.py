"""JSON with its own checksum: what is read is what was written, or an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.checksums import KEY, checked, with_checksum

values = st.dictionaries(
    st.text().filter(lambda name: name != KEY),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    ),
)


@given(values, st.sampled_from([None, 1]))
def test_what_was_written_is_read(written: dict[str, Any], indent: int | None) -> None:
    content = json.dumps(with_checksum(written), indent=indent).encode()
    assert checked(content) == json.loads(json.dumps(written))


@given(values, st.integers(0), st.integers(0, 7))
def test_a_flipped_bit_changes_nothing_or_is_an_error(written: dict[str, Any], place: int, bit: int) -> None:
    content = bytearray(json.dumps(with_checksum(written)).encode())
    content[place % len(content)] ^= 1 << bit
    try:
        found = checked(bytes(content))
    except ValueError:
        return
    as_written = json.loads(json.dumps(written))
    for name in found.keys() - as_written.keys():  # the checksum's own name was hit
        del found[name]
    assert found == as_written


@pytest.mark.parametrize("content", [b"", b"[]", b"1", b"\xff", b'{"a": 1, "sha256": "of another"}'])
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of JSON, of UTF-8, or our own
        checked(content)


def test_where_there_is_no_checksum_none_is_asked_for() -> None:
    assert checked(b'{"a": 1}') == {"a": 1}
