"""No code in data: nothing that is read is run, by the linter's rules and by a list of what must not be called."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("sasrec_tasks", "dags", "plugins", "docs", "benchmarks")
FILES = sorted(file for folder in SHIPPED for file in (ROOT / folder).rglob("*.py"))

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
"""What makes objects, and so calls, of bytes."""

CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.full_load",
    "yaml.unsafe_load", "torch.load", "torch.jit.load", "pandas.read_pickle", "pd.read_pickle", "np.fromfile",
}  # fmt: skip
ARGUMENTS = {("shell", True), ("allow_pickle", True), ("weights_only", False), ("trust_remote_code", True)}


def forbidden(code: str) -> Iterator[str]:
    """What must not be in a module, of what is in it."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in CALLS:
                yield name
            for argument in node.keywords:
                if isinstance(argument.value, ast.Constant) and (
                    (argument.arg, argument.value.value) in ARGUMENTS
                ):
                    yield f"{name}({argument.arg}={argument.value.value!r})"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_that_is_read_is_run(file: Path) -> None:
    assert list(forbidden(file.read_text(encoding="utf-8"))) == []


BAD = (
    "import pickle",
    "from pickle import loads",
    "import joblib.memory",
    "eval(text)",
    "exec(text)",
    "import yaml\nyaml.load(text)",
    "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    "import torch\ntorch.load(file)",
    "import numpy as np\nnp.load(file, allow_pickle=True)",
    "import subprocess\nsubprocess.run(text, shell=True)",
    "import os\nos.system(text)",
)


@pytest.mark.parametrize("code", BAD)
def test_the_list_knows_what_it_is_for(code: str) -> None:
    assert list(forbidden(code))


def test_what_is_said_about_it_is_not_taken_for_it() -> None:
    assert not list(
        forbidden('"""Nothing pickled."""\nmodel.eval()\nnp.load(file, allow_pickle=False)\nload(text)')
    )


LINTED = {
    "S301": "import pickle\npickle.loads(text)",
    "S302": "import marshal\nmarshal.loads(text)",
    "S307": "eval(text)",
    "S102": "exec(text)",
    "S506": "import yaml\nyaml.load(text, Loader=yaml.UnsafeLoader)",
    "S602": "import subprocess\nsubprocess.run(text, shell=True)",
    "S603": "import subprocess\nsubprocess.run(words)",
    "S605": "import os\nos.system(text)",
    "S608": 'cursor.execute(f"SELECT * FROM {name} WHERE x = {value}")',
    "S701": "import jinja2\njinja2.Environment()",
    "S105": 'password = "hunter2"',
    "S501": "import requests\nrequests.get(url, verify=False)",
    "S324": "import hashlib\nhashlib.md5(text)",
    "S202": "import tarfile\ntarfile.open(name).extractall()",
}
"""Rule of flake8-bandit → what it is against."""


@pytest.mark.parametrize("rule", LINTED)
@pytest.mark.parametrize("folder", ["sasrec_tasks", "dags", "plugins"])
def test_make_lint_has_bandit_s_rules_on_for_what_is_shipped(folder: str, rule: str) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [
            ruff,
            "check",
            "--no-cache",
            "--output-format=concise",
            f"--stdin-filename={ROOT / folder}/x.py",
            "-",
        ],
        input=LINTED[rule],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1, done.stderr
    assert f" {rule} " in done.stdout


def test_what_is_shipped_is_excused_from_one_rule_alone() -> None:
    """In files whose table names are patterns; see `test_sql.py`."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert {rule for rule in lint["ignore"] if rule.startswith("S")} == {"S101", "S311"}
    excused = {
        (folder, rule)
        for folder, rules in lint["per-file-ignores"].items()
        for rule in rules
        if rule.startswith("S") and folder.split("/")[0] in ("sasrec_tasks", "dags", "plugins")
    }
    assert {rule for _, rule in excused} == {"S608"}
    assert all((ROOT / file).is_file() for file, _ in excused)
