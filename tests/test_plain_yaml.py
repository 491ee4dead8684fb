"""YAML's plain values are read as ever, and what makes a text large or ambiguous is not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from sasrec_tasks import plain_yaml

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@given(values)
def test_what_is_written_plainly_is_read_as_by_yamls_own_loader(value: Any) -> None:
    written = yaml.dump(value, Dumper=_Plain, allow_unicode=True)
    assume(yaml.safe_load(written) == value)  # PyYAML writes U+0085 so that it reads a blank
    assert plain_yaml.load(written) == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: &a 1\nb: *a", r"alias \*a.*line 2"),
        ("a: 1\nb: {c: 1, c: 2}", r"'c' 2 times.*line 2"),
        ("a: !!python/name:os.system", "tag"),
        ("[" * 20_000, "nested too deeply"),
        ("a: 2026-02-30", "day is out of range"),
        ("9" * 5000, "digits"),
        ("a: b: c", "line 1"),
        ("a\0", "character"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_place(content: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){said}"):
        plain_yaml.load(content)


def test_anchors_that_nobody_refers_to_do_no_harm() -> None:
    assert plain_yaml.load("a: &a 1") == {"a": 1}
