"""Several pipelines from one installation: the settings that a DAG file gives one of them as its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sasrec_tasks import addresses
from sasrec_tasks.config import PLACES
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import fields, flat, form, from_names, is_operator_only, shown

OWN = "sasrec_nightly"
"""The deployment's own pipeline."""

OF_ITS_OWN = ("store", "table")
"""Where two pipelines would write over each other: a run's folder has the name of the run alone."""

LOOKED_UP = ("prune.", "export.", "metrics.")
"""Groups whose operator-only settings `pipeline.triggered_settings` asks the deployment for."""


TEXTFILE = "metrics_textfile"
"""What the deployment is asked for the file of figures: two pipelines would write over each other."""

RESERVED = {
    "dag_id": "it is the first argument",
    "params": "the trigger form is made of the settings: give them as the second argument",
}
"""Arguments of Airflow's `dag` that are not `make_dag`'s to take, and why."""


def check_arguments(name: str, settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """That `make_dag` can take what a DAG file gives it beside a name.

    Raises:
        BadSettings: an argument of Airflow's `dag` that is made of something else, or another pipeline by the name of
            the deployment's own.
    """
    for reserved in RESERVED.keys() & arguments.keys():
        raise BadSettings(f"make_dag({name!r}): {reserved}={arguments[reserved]!r}: {RESERVED[reserved]}")
    if name == OWN and (settings or arguments):
        raise BadSettings(
            f"make_dag({name!r}): is the deployment's own, which its DAG file makes, with the settings of "
            "SASREC_SETTINGS: give this one another name"
        )


@dataclass(frozen=True)
class Instance:
    """A pipeline by the name of its DAG, with the settings in which it differs from the deployment and the defaults.

    The deployment's own has those of `SASREC_SETTINGS`, too: JSON such as `{"ingest.cast_ids": true}`.

    Raises:
        BadSettings: unknown settings, values out of bounds, or, where there are any, no store or table among them.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {**(_of_deployment() if self.name == OWN else {}), **flat(self.settings)}
        object.__setattr__(self, "settings", given)
        where = f"make_dag({self.name!r})"
        from_names(given, where=where)
        for name, value in given.items():  # they are kept with the DAG, and shown in alerts
            if isinstance(value, str) and (name in PLACES or name.startswith("export.")):
                addresses.check(f"{where}: {name}", value)
        for name in OF_ITS_OWN if self.name != OWN else ():
            if not given.get(name):
                raise BadSettings(
                    f"{where}: {name} is not set: each pipeline needs a store and a table of its own"
                )

    def form(self) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """As `naming.form`, with this pipeline's defaults; its places are not shown."""
        for name, default, schema in form():
            yield name, default if name in PLACES else self.settings.get(name, default), schema

    def params(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The form's values, and the operator's settings that nobody is asked for by name."""
        return {**{name: self.settings[name] for name in self._operators() if not _is_asked(name)}, **chosen}

    def deployment(self, lookup: Callable[[str], str | None]) -> Callable[[str], str | None]:
        """What the operator has set, this pipeline's own first.

        The deployment's text file of figures is its own pipeline's; another has one beside it, by its name.
        """
        own = {_asked(name): _as_text(self.settings[name]) for name in self._operators() if _is_asked(name)}

        def asked(name: str) -> str | None:
            found = own.get(name) or lookup(name)
            if found and name == TEXTFILE and name not in own and self.name != OWN:
                found = re.sub(r"\.prom$", f"-{self.name}.prom", found)
            return found

        return asked

    def _operators(self) -> list[str]:
        known = dict(fields())
        places = [name for name in PLACES if self.settings.get(name)]
        return [*places, *(name for name in self.settings if is_operator_only(known[name]))]


def _of_deployment() -> dict[str, Any]:
    text = os.environ.get("SASREC_SETTINGS") or "{}"
    try:
        settings = flat(json.loads(text))
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadSettings(
            f'SASREC_SETTINGS={shown(text)}: is no JSON such as {{"ingest.cast_ids": true}}: {error}'
        ) from error
    from_names(settings, where="SASREC_SETTINGS")
    return settings


def _is_asked(name: str) -> bool:
    return name in PLACES or name.startswith(LOOKED_UP)


def _as_text(value: Any) -> str:
    return "null" if value is None else str(value)  # as YAML reads it


def _asked(name: str) -> str:
    """The name by which the deployment is asked: `eligible_items`, `prune_keep_days`."""
    return name.removeprefix("export.").replace(".", "_")
