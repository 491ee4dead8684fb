"""The Dockerfile's steps, run in folders and a fresh environment: all but those that need a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_file import ROOT, instructions

pytestmark = pytest.mark.stack

NEEDS_A_CONTAINER = "useradd"
"""Makes a user and gives folders to it."""


def mapped(text: str, folder: Path) -> str:
    """A step's text with paths of the image below a folder."""
    text = re.sub(r"--mount=\S+\s+", "", text)  # a cache; the wheels, which are in /build/wheels
    text = text.replace("/wheels/*.whl", "/build/wheels/*.whl")
    text = text.replace("${PIP_ARGS}", os.environ.get("PIP_ARGS", ""))
    text = text.replace("--root-user-action ignore", "")
    return re.sub(r"(?<![\w./-])/(build|opt)\b", rf"{folder}/\1", text)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for the image, after all steps."""
    folder = tmp_path_factory.mktemp("image")
    kept = {name: value for name, value in os.environ.items() if name.startswith(("HOME", "PIP_"))}
    environment = {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    python = folder / "python"  # of the image that each stage starts from
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    workdir, ran = folder, 0
    for name, rest in instructions():
        if name == "FROM":
            path, workdir = f"{python}/bin:/usr/bin:/bin", folder
        elif name == "WORKDIR":
            workdir = Path(mapped(rest, folder))
            workdir.mkdir(parents=True, exist_ok=True)
        elif name == "ENV" and "PATH=" in rest:
            path = mapped(shlex.split(rest)[0].removeprefix("PATH="), folder).replace("$PATH", path)
        elif name == "COPY" and not rest.startswith("--from"):
            *sources, target = mapped(rest, folder).split()
            for source in sources:
                copy(ROOT / source, workdir / target)
        elif name == "RUN" and NEEDS_A_CONTAINER not in rest:
            done = subprocess.run(
                ["sh", "-ec", mapped(rest, folder)],
                cwd=workdir,
                env={**environment, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            if "Could not find a version" in done.stderr and "tools.txt" in rest:
                pytest.skip(f"pip reaches no index: {done.stderr.strip().splitlines()[-1]}")
            assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            ran += 1
    assert ran == 7
    return folder


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def test_the_image_has_what_every_service_and_task_needs(image: Path) -> None:
    code = (
        "import runpy, sys, asyncpg, psycopg2, torch, s3fs, adbc_driver_postgresql, sasrec_tasks.train\n"
        "from airflow.providers.celery.executors.celery_executor import CeleryExecutor\n"
        "from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import KubernetesExecutor\n"
        "from airflow.configuration import conf\n"
        "assert conf.getimport('core', 'auth_manager').__name__ == 'FabAuthManager'  # of the Helm chart\n"
        "import statsd\n"
        "[runpy.run_path(file) for file in sys.argv[1:]]\n"
        "print(sasrec_tasks.__file__)"
    )
    values = yaml.safe_load((ROOT / "docs" / "helm-values.yaml").read_text(encoding="utf-8"))
    helm = {
        f"AIRFLOW__{section}__{name}".upper(): value
        for section, settings in values["config"].items()
        for name, value in settings.items()
    }
    files = [*(image / "opt/airflow/dags").glob("*.py"), *(image / "opt/airflow/plugins").glob("*.py")]
    assert len(files) >= 4
    done = subprocess.run(
        [image / "opt/venv/bin/python", "-I", "-c", code, *files],
        env={"AIRFLOW_HOME": str(image / "home"), "PATH": "/usr/bin:/bin", **helm},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith(f"{image}/opt/venv/")
    sbom = json.loads((image / "opt/sbom.json").read_text(encoding="utf-8"))
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {component["name"] for component in sbom["components"]}
    assert {"apache-airflow", "deltalake", "torch", "sasrec-tasks", "psycopg2-binary"} <= listed
    assert not {"pytest", "mypy", "cyclonedx-bom", "moto"} & listed
    command = subprocess.run([image / "opt/venv/bin/sasrec-tasks", "--help"], capture_output=True, text=True)
    assert "airflow-files" in command.stdout
