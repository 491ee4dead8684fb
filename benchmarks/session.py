"""What people type at a table, and what it answers: `simulate.py` keeps it, the documentation shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sasrec_tasks.tables import Recommendations, open_tables

WIDTH = 110  # columns of the terminal


def session(folder: Path) -> list[dict[str, str]]:
    """Each command, typed in the folder of the table `recommendations`, with its output and its exit status if not 0.

    The last of them, a rollback, changes the table.
    """
    url = str(folder / "recommendations")
    users = Recommendations(url).to_pandas()["USER_ID"].drop_duplicates()
    user, least = users.min(), 10 ** (len(str(len(users))) - 1)
    before = [each.version for each in open_tables(url).published()][1]
    reading = (
        "from sasrec_tasks.tables import Recommendations\n\n"
        'recommendations = Recommendations("recommendations")\n'
    )
    typed = [
        ("python", f'{reading}print(recommendations)\nprint(recommendations.for_user("{user}"))'),
        (
            "python",
            f"{reading}changes = recommendations.changes(since_version={before})\n"
            'print(changes.groupby("CHANGE")["USER_ID"].nunique())\nprint(changes.head(3))',
        ),
        ("shell", f"sasrec-tasks check --table recommendations --max-age 5000d --min-users {least}"),
        ("shell", "sasrec-tasks check --table recommendations --max-age 26h"),
        ("shell", "sasrec-tasks history --table recommendations --last 8"),
        ("shell", "sasrec-tasks rollback --table recommendations"),
    ]
    return [{"kind": kind, "typed": text, "answer": answer(kind, text, folder)} for kind, text in typed]


def answer(kind: str, typed: str, folder: Path) -> str:
    """What is printed, standard output and error together."""
    command = [sys.executable, "-c", typed] if kind == "python" else typed.split()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": programs, "COLUMNS": str(WIDTH)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    if done.returncode:
        lines.append(f"(exit status {done.returncode})")
    return "\n".join(lines).strip("\n")
