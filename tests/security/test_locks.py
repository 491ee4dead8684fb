"""Each package that is installed is one file of a known hash, in the version that constraints.txt names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("image", "dev", "tools")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

PLATFORMS = [
    {"python_version": version, "python_full_version": f"{version}.1", "sys_platform": system, "os_name": "posix",
     "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system], "platform_machine": machine,
     "implementation_name": "cpython", "platform_python_implementation": "CPython"}
    for version in ("3.11", "3.12", "3.13")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]  # fmt: skip


@dataclass(frozen=True)
class Locked:
    """A package in a lock."""

    name: str
    version: str
    marker: Marker | None
    hashes: tuple[str, ...]

    def is_for(self, platform: dict[str, str]) -> bool:
        return self.marker is None or self.marker.evaluate(dict(platform))


def lock(name: str) -> list[Locked]:
    """What a lock holds.

    Raises:
        AssertionError: a line that pip would take otherwise, for instance one with an index.
    """
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in lines.replace("\\\n", " ").splitlines():
        whole = re.fullmatch(
            r"([^;\s]+)==([^;\s]+)\s*(?:;\s*(.*?))?\s*((?:--hash=sha256:[0-9a-f]{64}\s*)+)", line
        )
        assert whole, line
        marker = Marker(whole[3]) if whole[3] else None
        found.append(Locked(canonicalize_name(whole[1]), whole[2], marker, tuple(whole[4].split())))
    return found


def variable(name: str) -> list[str]:
    """Words of a variable of the Makefile."""
    (value,) = re.findall(rf"^{name} := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    return str(value).replace("\\", " ").split()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def required(extras: list[str]) -> Iterator[Requirement]:
    """What the project asks for with some extras, and of what it asks by its own name."""
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    for extra in extras:
        for text in PROJECT["project"]["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["project"]["name"]:
                yield from required(sorted(requirement.extras))
            else:
                yield requirement


OF_TORCH = set(variable("OF_TORCH"))


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_one_version_and_hashes(name: str) -> None:
    packages = lock(name)
    assert len(packages) > 10
    for platform in PLATFORMS:
        names = [package.name for package in packages if package.is_for(platform)]
        assert len(names) == len(set(names)), platform
    assert all(len(set(package.hashes)) == len(package.hashes) for package in packages)


@pytest.mark.parametrize("name", ["image", "dev"])
def test_versions_are_those_of_constraints(name: str) -> None:
    pinned = constraints()
    for package in lock(name):
        if package.name in pinned:
            assert package.version == pinned[package.name], package.name
        elif package.name != "setuptools":  # which `pip freeze` leaves out
            assert package.marker is not None, (
                package.name
            )  # of other systems or Pythons: no constraint knows it


def test_what_make_setup_has_pinned_is_locked_but_for_torch() -> None:
    locked = {package.name for package in lock("dev")}
    assert constraints().keys() - locked == {"torch"}


@pytest.mark.parametrize(("name", "extras"), [("image", variable("IN_IMAGE")), ("dev", variable("IN_VENV"))])
def test_a_lock_has_all_that_the_project_asks_for(name: str, extras: list[str]) -> None:
    packages = lock(name)
    for platform in PLATFORMS:
        locked = {package.name: package.version for package in packages if package.is_for(platform)}
        for requirement in required(extras):
            if requirement.name in OF_TORCH or not (
                requirement.marker is None or requirement.marker.evaluate(dict(platform))
            ):
                continue
            version = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), requirement


def test_no_lock_holds_torch_and_the_image_holds_no_tools_of_tests() -> None:
    for name in LOCKS:
        held = {package.name for package in lock(name)}
        assert not held & OF_TORCH
        assert not {each for each in held if each.startswith(("nvidia-", "cuda-", "triton"))}
    assert not {"pytest", "mypy", "moto", "hypothesis"} & {package.name for package in lock("image")}


def test_no_index_is_named() -> None:
    for name in LOCKS:
        assert "://" not in (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")


def test_set_up_and_image_are_installed_by_hash() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for text, names in ((MAKEFILE, ["locks/dev.txt"]), (dockerfile, ["tools.txt", "/build/image.txt"])):
        joined = text.replace("\\\n", " ")
        for name in names:
            (line,) = [line for line in joined.splitlines() if f"--requirement {name}" in line]
            assert "--require-hashes --no-deps" in line
    without = [
        line
        for line in dockerfile.replace("\\\n", " ").splitlines()
        if " install " in line and "hashes" not in line
    ]
    assert [line.split()[-1] for line in without if "/wheels/" not in line] == ["torch"]


def test_the_package_is_built_in_venv_by_what_is_locked() -> None:
    (line,) = [line for line in MAKEFILE.splitlines() if "--editable" in line]
    assert "--no-build-isolation" in line
    assert {*PROJECT["build-system"]["requires"], "editables"} <= {package.name for package in lock("dev")}
