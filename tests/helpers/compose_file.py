"""docker-compose.yml, Dockerfile and .env, read as docker would read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:\?|:-)([^}]*))?\})")


def compose_file() -> dict[str, Any]:
    """The file, its aliases and merges resolved, its variables not."""
    found: dict[str, Any] = yaml.safe_load(TEXT)
    return found


def interpolated(value: Any, env: Mapping[str, str]) -> Any:
    """What compose makes of `$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?sentence}`."""
    if isinstance(value, dict):
        return {key: interpolated(inner, env) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, env) for inner in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, operator, argument = match.groups()
        if name is None:
            return "$"
        if env.get(name):
            return env[name]
        if operator == ":?":
            raise LookupError(f"required variable {name} is missing a value: {argument}")
        return str(argument or "")

    return VARIABLE.sub(replacement, value)


def services(env: Mapping[str, str]) -> dict[str, Any]:
    """The services that `docker compose up` starts with a .env."""
    profiles = set(env.get("COMPOSE_PROFILES", "").split(","))
    found = {
        name: service
        for name, service in interpolated(compose_file()["services"], env).items()
        if not service.get("profiles") or profiles & set(service["profiles"])
    }
    for service in found.values():
        service["environment"] = passed_on(service["environment"], env)
    return found


def passed_on(environment: Mapping[str, str | None], env: Mapping[str, str]) -> dict[str, str]:
    """A service's environment: of names without a value, those that .env sets, with its value."""
    given = {name: env.get(name) if value is None else value for name, value in environment.items()}
    return {name: value for name, value in given.items() if value is not None}


def read_env(file: Path) -> dict[str, str]:
    """The variables that a .env sets."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if re.match(r"\w+=", line)]
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continuation lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined if line.strip()]


def image_environment() -> dict[str, str]:
    """What the image's ENV sets."""
    words = [word for name, rest in instructions() if name == "ENV" for word in shlex.split(rest)]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def seconds(duration: str) -> float:
    """`1m30s` → 90."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))
