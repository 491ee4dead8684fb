"""The files that an Airflow reads itself: DAGs and plugins, shipped with the package."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from sasrec_tasks import __version__
from sasrec_tasks.errors import BadSettings

FOLDERS = ("dags", "plugins")


AIRFLOW = "3.3"
"""The oldest that has what the DAG files use: retries by the kind of error, callbacks of deadlines."""


def made_for(version: str) -> None:
    """Called by a file that Airflow reads, with the version that it came with, before it imports anything of Airflow's.

    Raises:
        BadSettings: another version is installed, or an older Airflow than the files can be read by.
    """
    _check_airflow()
    if version != __version__:
        raise BadSettings(
            f"this file is of sasrec-tasks {version}, installed is {__version__}: install sasrec-tasks=={version}, "
            "or write the files anew: sasrec-tasks airflow-files --to FOLDER"
        )


def _check_airflow() -> None:
    with suppress(PackageNotFoundError):  # a worker may have the Task SDK alone
        found = installed("apache-airflow-core")
        if _minor(found) < _minor(AIRFLOW):
            raise BadSettings(
                f"Airflow {found} is installed, these files need Airflow {AIRFLOW}: upgrade Airflow"
            )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def shipped() -> dict[str, bytes]:
    """`dags/sasrec_nightly.py` and the like → content, of the installed package, or of the repository."""
    here = Path(__file__).parent
    root = next(root for root in (here / "shipped", here.parent) if (root / FOLDERS[0]).is_dir())
    return {
        f"{folder}/{file.name}": file.read_bytes()
        for folder in FOLDERS
        for file in sorted((root / folder).glob("*.py"))
    }


def differing(to: Path) -> tuple[list[str], list[str]]:
    """Files that are missing in a folder, and those that are there with other content."""
    files = shipped()
    there = {name: content for name, content in files.items() if (to / name).exists()}
    changed = [name for name, content in there.items() if (to / name).read_bytes() != content]
    return [name for name in files if name not in there], changed


def write(to: Path, *, force: bool = False) -> list[str]:
    """Write what is missing into a folder; the names of what was written.

    Args:
        to: gets `dags/` and `plugins/`: `AIRFLOW_HOME`, or a repository that is a DAG bundle.
        force: replace files with other content, as after an upgrade.

    Raises:
        BadSettings: there are such files, and not `force`; nothing is written then.
    """
    missing, changed = differing(to)
    if changed and not force:
        raise BadSettings(
            f"{', '.join(str(to / name) for name in changed)}: there already, with other content: "
            "--force replaces them, with what was changed by hand"
        )
    files = shipped()
    for name in (*missing, *changed):
        file = to / name
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.new")  # Airflow may be reading
        beside.write_bytes(files[name])
        beside.replace(file)
    return [*missing, *changed]
