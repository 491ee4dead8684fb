"""Where users' ids stand in texts, and the texts without them.

A user "42" is not meant wherever a 42 stands, and "user 1" not by "user 10". So a text that is a user's id counts, an
id in quotation marks, as messages have values, and, where it is long and no number, an id that stands as a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sasrec_tasks.naming import shown

INSTEAD = "[forgotten]"

SHORT = 6
"""Characters of an id below which it may be a word, or bytes of a number."""

OF_USERS = {"USER_ID", "user"}
OF_ITEMS = {"ITEM_ID", "item", "recent"}
"""Names of columns and keys: an item may have the id of a user."""

QUOTE = "[\"'`]"
CUT = 77
"""Characters of a value that messages of `validate` show before an ellipsis."""


class Mentions:
    """The ids of some users.

    >>> Mentions(["42"]).without('rejected: USER_ID fails (for instance "42"), 42 rows')
    'rejected: USER_ID fails (for instance "[forgotten]"), 42 rows'
    >>> Mentions(["user-1"]).without("user-1, not user-10")
    '[forgotten], not user-10'
    """

    def __init__(self, users: Iterable[str]) -> None:
        self.users = frozenset(users)
        patterns = sorted(
            (pattern for user in self.users for pattern in _patterns(user)), key=len, reverse=True
        )
        self._pattern = re.compile("|".join(patterns)) if patterns else re.compile(r"(?!)")
        self.in_bytes = [user.encode() for user in sorted(self.users) if _is_distinctive(user)]
        """What can be looked for among bytes that are no text; shorter ids stand there by chance."""

    def in_text(self, text: str) -> bool:
        """Whether a text names one of them."""
        return text in self.users or self._pattern.search(text) is not None

    def without(self, text: str) -> str:
        """The text with `INSTEAD` in their place."""
        return INSTEAD if text in self.users else self._pattern.sub(INSTEAD, text)

    def meant(self, text: str, name: str) -> bool:
        """Whether a value of a column, or at a key, names one of them.

        Args:
            name: of the column or key.
        """
        if name in OF_ITEMS:
            return False
        if text in self.users:
            return name in OF_USERS or _is_distinctive(text)
        if name in OF_USERS:
            return False  # another user
        return self._pattern.search(text) is not None

    def meant_in(self, name: str) -> bool:
        """Whether a column or key holds ids of users, and nothing else."""
        return name in OF_USERS

    def in_json(self, value: Any, name: str = "") -> Iterator[str]:
        """The keys at which what JSON holds names one of them; JSON within its texts is looked into."""
        if isinstance(value, dict):
            for key, found in _named(value):
                if self.meant(key, ""):
                    yield key
                yield from self.in_json(found, key)
        elif isinstance(value, list):
            for each in value:
                yield from self.in_json(each, name)
        elif isinstance(value, str):
            inner = _json_in(value)
            if inner is not None:
                yield from self.in_json(inner, name)
            elif self.meant(value, name):
                yield name

    def named_in(self, value: Any, name: str = "") -> bool:
        """Whether what JSON holds names one of them anywhere."""
        return next(self.in_json(value, name), None) is not None

    def without_in_json(self, value: Any, name: str = "") -> Any:
        """What JSON holds, with `INSTEAD` in the place of ids in its texts."""
        if isinstance(value, dict):
            names = dict(_named(value))
            return {
                key: self.without_in_json(found, name)
                for (key, found), name in zip(value.items(), names, strict=True)
            }
        if isinstance(value, list):
            return [self.without_in_json(each, name) for each in value]
        if not isinstance(value, str):
            return value
        inner = _json_in(value)
        if inner is not None:
            after = self.without_in_json(inner, name)
            return value if after == inner else json.dumps(after)
        return self.without(value) if self.meant(value, name) else value


def _named(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values; a value beside the name of its column is of that column."""
    for key, found in value.items():
        yield (value["column"] if key == "value" and isinstance(value.get("column"), str) else key), found


def _json_in(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_distinctive(user: str) -> bool:
    return len(user) >= SHORT and not user.isdecimal()


def _patterns(user: str) -> Iterator[str]:
    written = json.dumps(user, ensure_ascii=False)
    for form in {user, written[1:-1], json.dumps(user)[1:-1], repr(user)[1:-1]}:
        if form:
            literal = re.escape(form)
            yield rf"(?<={QUOTE}){literal}(?=\\?{QUOTE})"
            if _is_distinctive(user):
                yield rf"(?<![\w-]){literal}(?![\w-])"
    if len(written) > CUT:
        yield re.escape(f"{written[:CUT]}…")
    if (cut := shown(user)) != repr(user):
        yield re.escape(cut)
