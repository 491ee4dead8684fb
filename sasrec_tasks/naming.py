"""Settings by name, `train.epochs` for instance: how files, `--set`, the trigger form and docs know them."""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sasrec_tasks import checksums
from sasrec_tasks.config import GROUPS, PLACES, Settings
from sasrec_tasks.errors import BadSettings


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by the name people use: `source`, …, `train.epochs`, …"""
    for name, field in Settings.model_fields.items():
        if (field.alias or name) not in GROUPS:
            yield name, field
    for group, settings in GROUPS.items():
        for name, field in settings.model_fields.items():
            yield f"{group}.{name}", field


SECTIONS = {
    "ingest": "data",
    "validate": "data",
    "split": "data",
    "train": "training",
    "evaluate": "evaluation",
    "gate": "publishing",
    "refit": "publishing",
    "export": "publishing",
    "prune": "publishing",
    "metrics": "publishing",
    "ray": "data",
}
"""Task → where its settings stand in the form; a setting may say otherwise."""


def form() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, default and JSON schema of each setting that someone who triggers a run may choose.

    The schema is flat, as Airflow's trigger form takes it: types in a list where a value may be
    absent, no references, the help in Markdown with the bounds, which the form itself doesn't show.
    """
    schemas = {"": Settings.model_json_schema()} | {
        name: group.model_json_schema() for name, group in GROUPS.items()
    }
    for name, field in fields():
        if is_operator_only(field):
            continue
        group, _, key = name.rpartition(".")
        schema = dict(schemas[group]["properties"][key])
        kinds = schema.pop("anyOf", None)
        if kinds:  # a value, or null
            schema |= {k: v for kind in kinds for k, v in kind.items()}
            schema["type"] = [kind["type"] for kind in kinds]
        default = schema.pop("default", None)
        if default == "":  # the form takes a plain string for one that must be filled in
            default, schema["type"] = None, [schema["type"], "null"]
        bounds = f"({_range(schema)})" if _bounds(schema) else ""
        schema["description_md"] = f"{schema.pop('description', '')} {bounds}".strip()
        schema.setdefault("section", SECTIONS.get(group, "data"))
        if "enum" in schema:
            schema.setdefault("type", "string")
        if name in PLACES:
            schema["pattern"] = FREE_OF_SECRETS
            schema["description_md"] += (
                " Without a password or a key: name a connection (`connection:ID`), or leave it to the environment."
            )
        yield name, default, schema


def is_operator_only(field: FieldInfo) -> bool:
    """Whether people who trigger a run may not choose it."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("operator_only"))


def from_names(values: Mapping[str, Any], *, where: str = "settings") -> Settings:
    """Settings from flat names.

    Args:
        values: `{"source": …, "train.epochs": 5, …}`; nested groups, as in YAML, may be mixed in.
        where: what an error calls the place they came from.

    Raises:
        BadSettings: unknown names (with the nearest known one) and values out of bounds, all of
            them in one message.
    """
    nested: dict[str, Any] = {}
    problems: list[str] = []
    known = dict(fields())
    for name, value in flat(values).items():
        if name in GROUPS:
            problems.append(f"{name}={shown(value)}: is a group of settings: write {name}.<setting>")
            continue
        if name not in known:
            told = name if len(name) <= LONGEST else shown(name)
            problems.append(f"{told}: no such setting{_nearest(name, known)}")
            continue
        if isinstance(value, bool) and known[name].annotation is not bool:  # pydantic takes true for 1
            problems.append(f"{name}={shown(value)}: is not what the setting takes")
            continue
        group, _, field = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[field] = value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        problems += [_said(detail) for detail in error.errors()]
    if problems:
        raise BadSettings(f"{where}: " + "; ".join(problems))
    return settings


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`["train.epochs=5", …]` → `{"train.epochs": 5, …}`; values are read as YAML.

    Raises:
        BadSettings: something that is not `name=value`.
    """
    from sasrec_tasks import plain_yaml

    values: dict[str, Any] = {}
    texts = {name for name, field in fields() if field.annotation is str}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise BadSettings(
                f"--set {_short(masked(assignment))}: write it as name=value, for instance train.epochs=5"
            )
        try:
            values[name.strip()] = text if name.strip() in texts else plain_yaml.load(text)
        except ValueError as error:
            raise BadSettings(
                f"--set {_short(masked(assignment))}: the value is not valid YAML: {masked(str(error))}"
            ) from None
    return values


def read_yaml(file: Path) -> dict[str, Any]:
    """Settings of a YAML file, groups nested or names dotted.

    Raises:
        BadSettings: no such file, or no mapping in it.
    """
    from sasrec_tasks import plain_yaml

    try:
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ValueError("is no file")  # a device never ends
        values = plain_yaml.load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSettings(f"{file}: can't be read as YAML: {masked(str(error))}") from None
    if not isinstance(values, dict | None):
        raise BadSettings(f"{file}: must hold settings, for instance `train: {{epochs: 5}}`")
    values = values or {}
    values.pop(checksums.KEY, None)  # of a run's own settings.json, which may have been changed since
    return flat(values)


def as_names(settings: Settings) -> dict[str, Any]:
    """The inverse of `from_names`, as JSON can hold it."""
    return flat(settings.model_dump(mode="json", by_alias=True))


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train": {"epochs": 5}}` → `{"train.epochs": 5}`; what is flat stays.

    Raises:
        BadSettings: a setting both ways.
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        if name in GROUPS and isinstance(value, Mapping | None):  # a group may be left empty
            named = {f"{name}.{key}": inner for key, inner in (value or {}).items()}
        else:
            named = {str(name): value}
        if twice := result.keys() & named.keys():
            first = min(twice)
            raise BadSettings(
                f"{first}: is set twice, to {shown(result[first])} and to {shown(named[first])}: leave one of them"
            )
        result |= named
    return result


LONGEST = 200
"""Characters of a value in a message."""


class _Masking(reprlib.Repr):
    """Masks each text before it is cut, after which a secret may not be known for one."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(masked(x), level)


_repr = _Masking()
_repr.maxstring = _repr.maxother = _repr.maxlong = LONGEST


_OF_SECRETS = "passw|passphrase|secret|token|signature|account_?key|api_?key|credential"

SECRET = re.compile(rf"{_OF_SECRETS}|^pwd$|^sig$", re.IGNORECASE)
"""Names in an address's query that stand before a secret, as libpq, S3, Azure and others call them."""

PASSWORD = re.compile(r"(://[^/\s:@\[]*:)(?!\d+(?:[/?#]|$))[^\s'\"]+@")
"""What stands between user and host: up to the last `@`, as not everybody escapes it, or a `/`; no port."""

_IN_QUERY = re.compile(r"([?&]([^=&?\s'\"]+)=)[^&?\s'\"]*")

_PLAIN_HOST = r"(?![\s\S]*://[^/\s:@\[]{0,200}:(?!\d+(?:[/?#]|$))(?:(?!::)[^\s'\"]){1,500}@)"
_PLAIN_QUERY = (
    r"(?![^#?]*\?(?:[^#:]*[?&])?(?:pwd|sig|[^=&#:?\s'\"]{0,100}"
    rf"(?:{_OF_SECRETS})[^=&#:?\s'\"]{{0,100}})=[^&#:?\s'\"])"
)

FREE_OF_SECRETS = rf"(?i)^{_PLAIN_HOST}{_PLAIN_QUERY}[\s\S]*$"
"""What the form takes for a place, as a pattern of JSON Schema: what it refuses is kept with no run.

It has bounds, so that no text takes long, and lets pass what only a parser of URLs would know: `addresses` does.
"""


def masked(text: str) -> str:
    """A text without the passwords and other secrets of the addresses in it."""
    text = PASSWORD.sub(r"\1…@", text)
    return _IN_QUERY.sub(lambda found: f"{found[1]}…" if SECRET.search(found[2]) else found[0], text)


def shown(value: Any) -> str:
    """A value as messages hold it: short, whatever came in, and an address without its password."""
    return masked(_repr.repr(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _nearest(name: str, known: dict[str, Any]) -> str:
    ending = name.rpartition(".")[2]
    endings = {full.rpartition(".")[2]: full for full in reversed(known)}  # the first group's, of several
    near = (
        difflib.get_close_matches(name, [full for full in known if full.rpartition(".")[2] == ending], n=1)
        or ([endings[ending]] if ending in endings else [])  # the right name in the wrong group, or in none
        or difflib.get_close_matches(name, known, n=1)
        or [endings[near] for near in difflib.get_close_matches(ending, endings, n=1)]
    )
    return f", did you mean {near[0]}?" if near else ""


def _said(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"] if part != "validate_")
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error" and place in GROUPS:
        return f"{place}.{message}"
    message = message[:1].lower() + message[1:]
    return f"{place}={shown(detail['input'])}: {message}"


def describe_settings() -> Iterator[tuple[str, str, str, str]]:
    """Of each setting: name, default, what is allowed, and what it is; for documentation."""
    schemas = {name: group.model_json_schema() for name, group in GROUPS.items()} | {
        "": Settings.model_json_schema()
    }
    for name, field in fields():
        group, _, key = name.rpartition(".")
        schema = schemas[group]["properties"][key]
        default = json.dumps(field.get_default(), default=str)
        allowed = " or ".join(_allowed(kind) for kind in schema.get("anyOf", [schema]))
        what = " ".join((field.description or "").split()).replace("|", "\\|")
        if is_operator_only(field):
            what += " Not in the trigger form."
        yield name, default, allowed, what


def _allowed(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = {"integer": "int", "object": "mapping", "array": "list", "null": "null"}.get(
        schema["type"], schema["type"]
    )
    kind = "date-time" if schema.get("format") == "date-time" else kind
    return f"{kind} {_bounds(schema)}".strip()


def _bounds(schema: Mapping[str, Any]) -> str:
    """`≥ 1, < 5`, of a number that has bounds."""
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return ", ".join(f"{sign} {schema[key]:,}" for key, sign in signs.items() if key in schema)


def _range(schema: Mapping[str, Any]) -> str:
    """As `_bounds`, in words where both belong to it: `1 to 5`."""
    both = schema.keys() >= {"minimum", "maximum"}
    return f"{schema['minimum']:,} to {schema['maximum']:,}" if both else _bounds(schema)
