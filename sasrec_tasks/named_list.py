"""The list of forgotten users that a table names, so that no run of another store brings them back.

A store leaves out those on its own list (`forgotten`). A version that one of its runs publishes, or that `forget`
makes, names the list as it was then, and no run of a store that has not all of it publishes there. Who is on it is not
told: only the store, how many they are, and a hash of their keyed hashes.
"""

from __future__ import annotations

from typing import Any

from sasrec_tasks import forgotten
from sasrec_tasks.forgotten import Forgotten
from sasrec_tasks.tables.protocol import FORGOTTEN_LIST, OtherList, Published


def named(listed: Forgotten, store: str) -> dict[str, Any]:
    """What the metadata of a version that is made with a store's list says of it; nothing of an empty one."""
    users = len(listed.hashes)
    if not users:
        return {}
    return {FORGOTTEN_LIST: {"store": store, "users": users, "hash": listed.hash_of_first(users)}}


def require(newest: Published, *, table: str, store: str) -> None:
    """Refuse to replace a version that names a list of which a store has not all, or another one.

    The store's list is read after the version, as it grows before a version names it.

    Raises:
        OtherList: what to do stands in it.
        BadSettings: the store's list is damaged.
    """
    told = newest.metadata.get(FORGOTTEN_LIST)
    if not told:
        return
    listed = forgotten.read(store)
    if listed.hash_of_first(told["users"]) == told["hash"]:
        return
    there, file = told["store"], forgotten.FILE
    raise OtherList(
        f"table={table!r}: {told['users']} user(s) were forgotten in the store {there!r}, and would come back with a "
        f"run of store={store!r}, "
        + (
            f"whose list is another, or not up to date: use that store, or, if nobody was forgotten in {store} alone, "
            f"copy {file} from there again"
            if listed.hashes
            else f"which has no list of them: copy {file} of that store into it, or use that store"
        )
    )
