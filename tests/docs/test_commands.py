"""Commands that the documents tell people to type are there, with these options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|\s)(?:\S*/)?sasrec-tasks ([a-z-]+)((?:\\\n|[^\n#`|>])*)", re.MULTILINE)


def commands() -> dict[str, set[str]]:
    """Command → options that some document gives it."""
    found: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        for block in re.findall(
            r"^```\w*\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            for name, rest in COMMAND.findall(block):
                found.setdefault(name, set()).update(re.findall(r"(?<=\s)--[a-z-]+", rest))
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_and_its_options_are_there(name: str) -> None:
    executable = Path(sys.executable).with_name("sasrec-tasks")
    shown = subprocess.run([executable, name, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, f"{name}: {shown.stderr}"
    known = set(re.findall(r"--[a-z-]+", shown.stdout))
    assert commands()[name] <= known


def test_documents_tell_of_the_commands() -> None:
    assert {"run", "recommend", "check", "rollback"} <= set(commands())
    assert "--source" in commands()["run"]
