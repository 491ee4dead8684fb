"""The users whom a store has forgotten, so that `ingest` and `export` leave them out however long a source has them.

`.forgotten.json` in the store has a key, drawn at random, and of each user the BLAKE2b hash of the id under that key.
Who can read it can find out whether a certain id is in it, and so which of a few ids that can be guessed are; the ids
themselves are nowhere in it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sasrec_tasks import checksums, claims, files, filesystem
from sasrec_tasks.errors import BadSettings

FILE = ".forgotten.json"


@dataclass(frozen=True)
class Forgotten:
    """Who is left out."""

    key: str  # hexadecimal; "" of an empty list
    hashes: dict[str, str]  # of a user → when they were forgotten, in that order

    def holds(self, user: str) -> bool:
        """Whether a user is forgotten."""
        return self._hash(user) in self.hashes

    def without(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows with a column USER_ID, without theirs; an integer is the same id as its text."""
        if not self.hashes or not len(batch):
            return batch
        return batch.filter(pc.invert(self._are(batch.column("USER_ID"))))

    def hash_of_first(self, users: int) -> str:
        """What tells so many of the first users from those of any other list; as lists only grow, it stays the same."""
        first = "".join(islice(self.hashes, users))
        return hashlib.blake2b(first.encode(), digest_size=8).hexdigest()

    def _are(self, ids: pa.Array) -> pa.Array:
        """Whether each is an id of theirs."""
        if pa.types.is_integer(ids.type):
            ids = ids.cast(pa.string())
        if not pa.types.is_string(ids.type) and not pa.types.is_large_string(ids.type):
            return pa.repeat(pa.scalar(False), len(ids))
        encoded = ids.dictionary_encode()  # each is hashed once
        found = pa.array([user is not None and self.holds(user) for user in encoded.dictionary.to_pylist()])
        return pc.fill_null(found.cast(pa.bool_()).take(encoded.indices), False)

    def _hash(self, user: str) -> str:
        return hashlib.blake2b(user.encode(), key=bytes.fromhex(self.key), digest_size=32).hexdigest()


def read(store: str) -> Forgotten:
    """The list of a store; an empty one if it has none.

    Raises:
        BadSettings: it is damaged.
    """
    fs, path = _place(store)
    return _of(_content(fs, path, store))


def unchanged(store: str, before: Forgotten) -> Callable[[], None]:
    """What to call before what was read is kept.

    Raises (when called):
        OSError: somebody was forgotten since. Trying again is safe.
    """

    def check() -> None:
        if read(store) != before:
            raise OSError(f"{store}: a user was forgotten since this task began: try again")

    return check


def add(store: str, users: Iterable[str]) -> int:
    """Have users left out from now on; how many were not so before.

    Raises:
        BadSettings: the list is damaged.
        OSError: it can't be written, or was changed by another at this moment. Trying again is safe.
    """
    fs, path = _place(store)
    if files.is_local(fs):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with claims.held(fs, f"{path}.lock"):
        tag = files.tag(fs, path)
        content = _content(fs, path, store)
        listed = _of({"key": secrets.token_hex(32), **content})
        new = {listed._hash(user) for user in users} - listed.hashes.keys()
        if new:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            values = {
                "key": listed.key,
                "users": {**content.get("users", {}), **dict.fromkeys(sorted(new), at)},
            }
            written = json.dumps(checksums.with_checksum(values), indent=1).encode()
            files.replace(fs, path, written, expected=tag)
    return len(new)


def _place(store: str) -> tuple[Any, str]:
    return filesystem.opened(f"{store if store.endswith('://') else store.rstrip('/') + '/'}{FILE}", "store")


def _content(fs: Any, path: str, store: str) -> dict[str, Any]:
    try:
        return checksums.checked(fs.cat_file(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadSettings(
            f"{store}/{FILE}: damaged: {error}: restore it from a copy, or remove it and forget the same users again "
            "(`sasrec-tasks forget --new-list`); until then nothing is read, since users who were forgotten could come "
            "back"
        ) from error


def _of(content: dict[str, Any]) -> Forgotten:
    return Forgotten(content.get("key", ""), content.get("users", {}))
