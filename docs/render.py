"""Writes what the documents show of the code and of results: the DAG, settings, tables of figures.

python docs/render.py            writes them into README.md and the documents
python docs/render.py --check    only says whether they are up to date
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from sasrec_tasks.naming import describe_settings

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "helpers")]

import tables  # noqa: E402
from hostile import document as hostile  # noqa: E402

CONSUMERS = ["recommendations_digest", "recommendations_upsert"]
"""Files of `dags/` that are scheduled on the Asset."""

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "docs" / "input.md",
    ROOT / "docs" / "quality.md",
    ROOT / "docs" / "reliability.md",
    ROOT / "docs" / "scale.md",
    ROOT / "docs" / "speed.md",
    ROOT / "docs" / "table.md",
]


def main() -> int:
    """Exit status 1 if a document is out of date and `--check` is given."""
    outdated = False
    for file in DOCUMENTS:
        before = file.read_text(encoding="utf-8")
        after = rendered(before)
        outdated |= before != after
        if "--check" not in sys.argv:
            file.write_text(after, encoding="utf-8")
    return int(outdated and "--check" in sys.argv)


def rendered(document: str) -> str:
    """The document with the parts between its markers drawn anew."""
    parts = {
        "dag": picture,
        "settings": settings_table,
        "input": hostile.tables,
        "faults": tables.faults,
        "recipes": tables.recipes,
        "peers": tables.peers,
        "ablation": tables.ablation,
        "speed": tables.speed,
        "speed-machine": tables.speed_machine,
        "growth": tables.growth,
        "growth-of-memory": tables.growth_of_memory,
        "scale-out": tables.scale_out,
        "scale-faults": tables.scale_faults,
        "one-run": tables.one_run,
        "rates": tables.rates,
        "forecast": tables.forecast,
        "gpu": tables.gpu,
        "nights": tables.nights,
        "session": tables.session,
        "lookup": tables.lookup,
        "eligible": tables.eligible,
        "new-items": tables.new_items,
        "warm-starts": tables.warm_starts,
    }
    for name, content in parts.items():
        before, found, rest = document.partition(f"<!-- {name}: ")
        if found:
            block = (
                f"<!-- {name}: drawn from the code by `make docs` -->\n{content()}\n<!-- end of {name} -->"
            )
            document = before + block + rest.partition(f"<!-- end of {name} -->")[2]
    return document


def picture() -> str:
    """The tasks of the nightly DAG, its consumers, and the Asset between them, in Mermaid."""
    nightly, *consumers = (load(name) for name in ("sasrec_nightly", *CONSUMERS))
    asset = load_module("sasrec_nightly").RECOMMENDATIONS.name
    lines = ["```mermaid", "flowchart LR", "  source[(interactions)] --> ingest", "  subgraph sasrec_nightly"]
    for task in nightly.topological_sort():
        lines += [f"    {task.task_id} --> {later}" for later in sorted(task.downstream_task_ids)]
    lines += ["  end", f"  export --> table[(recommendations)] --> {asset}{{{{{asset}}}}}"]
    for consumer in consumers:
        tasks = consumer.topological_sort()
        lines += [f"  subgraph {consumer.dag_id}", *(f"    {task.task_id}" for task in tasks), "  end"]
        lines += [f"  {asset} --> {task.task_id}" for task in consumer.roots]
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
    module = load_module(name)
    made = module.make_dag if hasattr(module, "make_dag") else getattr(module, name)
    return made()


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
