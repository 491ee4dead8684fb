"""Where an id is meant, and where the same characters are something else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.mentions import INSTEAD, Mentions
from sasrec_tasks.naming import shown


@pytest.mark.parametrize(
    ("user", "text", "after"),
    [
        ("42", 'USER_ID is odd (42 rows, for instance "42")', f'USER_ID is odd (42 rows, for instance "{INSTEAD}")'),
        ("42", "of 42 users '42'", f"of 42 users '{INSTEAD}'"),
        ("42", "runs/42/model: 42.5", None),
        ("u", "a user u", None),
        ("u", "a user 'u'", f"a user '{INSTEAD}'"),
        ("user-1", "user-1, user-10, xuser-1, user-1.", f"{INSTEAD}, user-10, xuser-1, {INSTEAD}."),
        ("user-1", "user-1", INSTEAD),
        ('a"b\nc', json.dumps('a"b\nc'), f'"{INSTEAD}"'),
        ("é" * 4, json.dumps("é" * 4), f'"{INSTEAD}"'),
    ],
)  # fmt: skip
def test_an_id_is_meant_in_quotation_marks_and_if_it_is_long_as_a_word(
    user: str, text: str, after: str | None
) -> None:
    mentions = Mentions([user])
    assert mentions.without(text) == (text if after is None else after)
    assert mentions.in_text(text) == (after is not None)


def test_an_item_or_a_number_of_the_same_name_is_not_meant() -> None:
    mentions = Mentions(["42", "thing-42"])
    others = {
        "version": "42",
        "ITEM_ID": "thing-42",
        "recent": ["thing-42", "42"],
        "served": [{"item": "thing-42"}],
        "stats": json.dumps({"minValues": {"ITEM_ID": "42"}, "maxValues": {"ITEM_ID": "thing-42"}}),
        "examples": [{"column": "ITEM_ID", "value": "thing-42"}, {"column": "OUTCOME", "value": "42"}],
        "number": 42,
    }
    assert list(mentions.in_json(others)) == []
    assert mentions.without_in_json(others) == others


def test_json_within_json_is_looked_into() -> None:
    mentions = Mentions(["42"])
    line = {"add": {"stats": json.dumps({"numRecords": 42, "minValues": {"USER_ID": "42"}})}}
    assert list(mentions.in_json(line)) == ["USER_ID"]
    assert list(mentions.in_json({"examples": [{"column": "USER_ID", "value": "42"}]})) == ["USER_ID"]
    report = {"examples": [{"column": "USER_ID", "value": "42", "row": 42}], "user": "42"}
    assert mentions.without_in_json(report) == {
        "examples": [{"column": "USER_ID", "value": INSTEAD, "row": 42}], "user": INSTEAD
    }  # fmt: skip


@given(st.text(min_size=1), st.text(), st.text())
def test_whatever_the_id_it_is_found_as_messages_write_it(user: str, before: str, after: str) -> None:
    mentions = Mentions([user])
    for written in (json.dumps(user, ensure_ascii=False), json.dumps(user), repr(user), shown(user)):
        assert mentions.in_text(f"{before}{written}{after}")
        assert not mentions.in_text(mentions.without(written)) or user in INSTEAD
    assert list(mentions.in_json({"user": user})) == ["user"]


def test_a_long_id_is_found_where_it_is_cut_off() -> None:
    user = "x" * 500
    mentions = Mentions([user])
    text = json.dumps(user)
    assert mentions.without(f"for instance {text[:77]}…") == f"for instance {INSTEAD}"
    assert mentions.without(f"for instance {shown(user)}") == f"for instance {INSTEAD}"
