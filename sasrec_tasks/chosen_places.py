"""Places that somebody who triggers a run names: under the operator's roots, and nobody else's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sasrec_tasks import addresses, roots
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import shown


def allowed_roots(listed: str, own: Mapping[str, str], narrowing: Iterable[str]) -> tuple[str, ...]:
    """Where a trigger may point: what the operator lists, and the operator's own places.

    Args:
        listed: folders and URLs with commas between, as in SASREC_ALLOWED_ROOTS.
        own: source, store and table of the deployment; "" where none is set.
        narrowing: tables that narrow the export.
    """
    found = [
        *roots.places(listed),
        *(roots.without_pattern(own[name]) for name in ("source", "store") if own[name]),
        *roots.places(own["table"]),
        *map(roots.without_pattern, narrowing),
    ]
    return tuple(dict.fromkeys(found))


def check(chosen: Mapping[str, str], own: Mapping[str, str], allowed: Iterable[str]) -> None:
    """Refuse what a trigger must not name.

    A store holds a folder per run, which is its run's alone: nothing is read from there, and nothing published or
    begun within. The same holds for the files of a table that is there.

    Args:
        chosen: source, store and table of the trigger; "" for those that it leaves to the deployment.
        own: those of the deployment.
        allowed: see `allowed_roots`.

    Raises:
        BadSettings: a secret in it, outside the roots, or within the folder of a run or of a table.
    """
    allowed = list(allowed)
    stores = [place for place in (own["store"], chosen["store"]) if place]
    tables = roots.places(own["table"])
    for name, named in chosen.items():
        for place in roots.places(named) if name == "table" else filter(None, [named]):
            addresses.check(name, place)
            roots.check(name, place, allowed)
            own_store = name == "store"
            if any(roots.lies_in(place, store, itself=not own_store) for store in stores):
                raise BadSettings(
                    f"{name}={shown(place)}: lies in a store, whose folders belong to runs: name another place"
                )
            if name != "source" and any(roots.lies_in(place, table, itself=own_store) for table in tables):
                raise BadSettings(
                    f"{name}={shown(place)}: lies in the folder of a table: name the table itself, or another place"
                )
