"""Writes what the README shows of the code: the picture of the DAG and the table of settings.

python docs/render.py            writes them into README.md
python docs/render.py --check    only says whether README.md is up to date
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from sasrec_tasks import pipeline
from sasrec_tasks.naming import describe_settings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def main() -> int:
    """Exit status 1 if the README is out of date and `--check` is given."""
    before = README.read_text(encoding="utf-8")
    after = rendered(before)
    if "--check" in sys.argv:
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


def rendered(readme: str) -> str:
    """The README with the parts between its markers drawn from the code."""
    for name, content in (("dag", picture()), ("settings", settings_table())):
        block = f"<!-- {name}: drawn from the code by `make docs` -->\n{content}\n<!-- end of {name} -->"
        before, _, rest = readme.partition(f"<!-- {name}: ")
        readme = before + block + rest.partition(f"<!-- end of {name} -->")[2]
    return readme


def picture() -> str:
    """The tasks of both DAGs and the Asset between them, in Mermaid."""
    nightly, digest = (load(name) for name in ("sasrec_nightly", "recommendations_digest"))
    asset = load_module("sasrec_nightly").RECOMMENDATIONS.name
    lines = ["```mermaid", "flowchart LR", "  source[(interactions)] --> ingest", "  subgraph sasrec_nightly"]
    for task in sorted(nightly.tasks, key=lambda task: pipeline.TASKS.index(task.task_id)):
        lines += [f"    {task.task_id} --> {later}" for later in sorted(task.downstream_task_ids)]
    lines += ["  end", f"  export --> table[(recommendations)] --> {asset}{{{{{asset}}}}}"]
    lines += ["  subgraph recommendations_digest", *(f"    {task.task_id}" for task in digest.tasks), "  end"]
    lines += [f"  {asset} --> {task.task_id}" for task in digest.tasks]
    return "\n".join([*lines, "```"])


def settings_table() -> str:
    """A row per setting: name, default, what is allowed, what it is."""
    rows = ["| setting | default | allowed | what it is |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{name}` | `{default}` | {allowed} | {what} |"
        for name, default, allowed, what in describe_settings()
    ]
    return "\n".join(rows)


def load(name: str) -> Any:
    """The DAG of a file in `dags/`."""
    return getattr(load_module(name), name)()


def load_module(name: str) -> Any:
    """A file of `dags/` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "dags" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
