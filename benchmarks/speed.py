"""How fast each stage is, beside what one would use instead: every ratio from one run on one machine.

    python benchmarks/speed.py --source ml-1m.parquet \
        --scikit-rec path/to/python --rectools path/to/python

Writes `results/speed.json`, a row per stage and peer: the median of several runs (`ours_s`, `peer_s`),
their ratio, the mark that it is held against, the spread of the runs (largest − smallest, over the
median), and the quality that was reached in that time, where there is one. Times are always measured in
this run. What takes a peer many minutes, its validation NDCG@10 after some epochs, is kept in
`results/speed.targets.json` by peer, version, settings and data.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import events
import handover
import process
from peers_quality import PAGE, PEERS
from quality import HERE, RESULTS, data, machine, show_progress, split_events
from stages import validation_ndcg

from sasrec_tasks import pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import Interactions
from sasrec_tasks.naming import from_names, read_yaml

Row = dict[str, Any]
Rows = Iterator[Row]

MAX_LEN = 200
SCIKIT_REC = {**PAGE, "max_len": MAX_LEN, "random_state": 42}
RECTOOLS: Row = {
    "n_blocks": 2,
    "session_max_len": MAX_LEN,
    "dropout_rate": 0.2,
    "lr": 0.001,
    "batch_size": 128,
}
RECTOOLS_BCE = {**RECTOOLS, "n_factors": 50, "n_heads": 1, "loss": "BCE", "n_negatives": 1}
RECTOOLS_SOFTMAX = {**RECTOOLS, "n_factors": 64, "n_heads": 2, "loss": "softmax"}

PAPER = read_yaml(HERE / "recipes" / "paper.yaml")
OURS_BCE = {
    **PAPER,
    "train.windows": "last",
    "train.num_negatives": 1,
    "train.negative_sampling": "other",
    "train.dropout_rate": 0.2,
}
"""The same sizes, loss, positions and dropout as the peers, but for that on attention weights."""

OURS_QUICK = read_yaml(HERE / "recipes" / "pipeline.yaml")
"""What reaches a quality soonest: the pipeline's defaults."""


def main() -> None:
    """Measure the stages asked for, and put their rows into the file."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--source", required=True, help="interactions as parquet")
    arguments.add_argument("--scikit-rec", help="Python that has scikit-rec")
    arguments.add_argument("--rectools", help="Python that has rectools[torch]")
    arguments.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    arguments.add_argument("--epochs", type=int, default=20, help="after which quality is compared")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--events", type=int, default=50_000_000, help="of the file that is made up")
    arguments.add_argument("--users", type=int, default=1_000_000)
    arguments.add_argument("--items", type=int, default=100_000)
    arguments.add_argument("--served", type=int, default=50_000, help="users of the export at size")
    arguments.add_argument("--work", type=Path, default=Path(".demo/speed"), help="folder for runs")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    options = arguments.parse_args()
    show_progress()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    for stage in options.stages:
        for row in STAGES[stage](bench):
            print(f"{row['stage']} / {row['peer']}: {row['ratio']} ({row['mark']})", flush=True)
            write(row, options.out / "speed.json")


def write(row: Row, file: Path) -> None:
    """Put a row into the file, in the place of an earlier one of the same stage and peer."""
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rows": []}
    same = [
        n
        for n, old in enumerate(report["rows"])
        if (old["stage"], old["peer"]) == (row["stage"], row["peer"])
    ]
    row = {**row, "date": datetime.now(UTC).date().isoformat()}
    if same:
        report["rows"][same[0]] = row
    else:
        report["rows"].append(row)
    report = {"machine": machine(), "date": row["date"], "rows": report["rows"]}
    file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def row(
    stage: str,
    work: str,
    peer: str,
    mark: str,
    ours: process.Result,
    theirs: list[float],
    *,
    times: float = 1,
) -> Row:
    """A row of the table: seconds of both, for the same work."""
    seconds = [each * times for each in theirs]
    ours_s, peer_s = median(ours["seconds"]), median(seconds)
    return {
        "stage": stage,
        "work": work,
        "peer": peer,
        "ours_s": round(ours_s, 3),
        "peer_s": round(peer_s, 3),
        "ratio": round(peer_s / ours_s, 2),
        "mark": mark,
        "spread": {"ours": spread(ours["seconds"]), "peer": spread(seconds)},
        "quality_ours": None,
        "quality_peer": None,
        "peak_rss_mb": ours["peak_rss_mb"],
    }


def spread(seconds: list[float]) -> float | None:
    """Largest − smallest, over the median; None of a single run."""
    return round((max(seconds) - min(seconds)) / median(seconds), 3) if len(seconds) > 1 else None


def together(found: list[process.Result]) -> process.Result:
    """Several runs of a stage as one: all seconds, the largest memory."""
    return {
        **found[0],
        "seconds": [second for each in found for second in each["seconds"]],
        "peak_rss_mb": max(each["peak_rss_mb"] for each in found),
    }


class Bench:
    """The data of all stages, and the peers' answers, each asked for once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work.resolve()
        self._answers: dict[str, process.Result] = {}

    # The real data

    def run(self) -> str:
        """A run that has been split."""
        store, _ = self._split()
        return store.uri

    def _split(self) -> tuple[RunStore, Interactions]:
        settings = from_names(
            {
                "source": self.options.source,
                "store": f"{self.work}/runs",
                "table": f"{self.work}/table",
                "gate.force_publish": True,
                **OURS_BCE,
                "train.epochs": 1,
            }
        )
        return split_events(settings, Path(self.options.source).stem)

    def stage(self, name: str, **task: Any) -> process.Result:
        """One of `stages.py`, in a process of its own."""
        return process.run(sys.executable, str(HERE / "stages.py"), name, **task)

    def repeated(self, name: str, **task: Any) -> process.Result:
        """The same several times: all seconds together, the largest memory."""
        return together([self.stage(name, **task) for _ in range(self.options.repeats)])

    # Peers

    def peer(self, name: str, settings: Row, epochs: int) -> process.Result:
        """Seconds of an epoch, of scoring, of `recommend`; validation NDCG@10 after ``epochs``, if not known."""
        if name in self._answers:
            return self._answers[name]
        python, distribution, script = {
            "scikit-rec": (self.options.scikit_rec, "scikit-rec", "time_scikit_rec.py"),
            "RecTools BCE": (self.options.rectools, "rectools", "time_rectools.py"),
            "RecTools softmax": (self.options.rectools, "rectools", "time_rectools.py"),
        }[name]
        targets_file = self.options.out / "speed.targets.json"
        targets = json.loads(targets_file.read_text(encoding="utf-8")) if targets_file.exists() else {}
        store, interactions = self._split()
        version = self._version(python, distribution)
        about = {
            "peer": name,
            "version": version,
            "settings": settings,
            "epochs": epochs,
            "data": data(store, ""),
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.work / "peers" / name
        folder.mkdir(parents=True, exist_ok=True)
        split = interactions.split
        for file, sequences, users in (
            ("train", split.train, np.arange(len(split.train))),
            ("validation", split.validation.history, split.validation.users),
            ("whole", split.whole, np.arange(len(split.whole))),
        ):
            handover.frame(sequences, users).to_csv(folder / f"{file}.csv", index=False)
        handover.catalogue(interactions.num_items).to_csv(folder / "items.csv", index=False)
        is_known = key in targets
        answer = process.run(
            python,
            str(PEERS / script),
            folder=str(folder),
            settings=settings,
            random_state=42,
            num_items=interactions.num_items,
            epochs=min(epochs, self._timed_epochs(name)) if is_known else epochs,
            repeats=self.options.repeats,
        )
        if not is_known:
            scorer = handover.scorer(np.load(folder / "scores.npy"))
            quality = validation_ndcg(scorer, interactions, store.settings())
            targets[key] = {**about, "ndcg@10": quality, "date": datetime.now(UTC).date().isoformat()}
            targets_file.write_text(json.dumps(targets, indent=2) + "\n", encoding="utf-8")
        self._answers[name] = {**answer, "quality": targets[key]["ndcg@10"], "name": f"{name} {version}"}
        return self._answers[name]

    def _timed_epochs(self, name: str) -> int:
        """Epochs that are timed; scikit-rec's first is not, and softmax's take minutes each."""
        repeats: int = self.options.repeats
        return {"scikit-rec": repeats + 1, "RecTools BCE": repeats}.get(name, 1)

    def _version(self, python: str, distribution: str) -> str:
        code = f"from importlib.metadata import version; print(version({distribution!r}))"
        return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    # Made-up data

    def big(self) -> Path:
        """The large file."""
        options = self.options
        file = self.work / f"{options.events}.{options.users}.{options.items}.parquet"
        if not file.exists():
            part = file.with_suffix(".part")
            events.write(part, options.events, options.users, options.items, bad=0.01)
            part.rename(file)
        return file


def train_bce(bench: Bench) -> Rows:
    """An epoch of binary cross-entropy over the same positions."""
    epochs = bench.options.epochs
    peers = []
    if bench.options.scikit_rec:
        peers.append((bench.peer("scikit-rec", SCIKIT_REC, epochs), "≥ 8×"))
    if bench.options.rectools:
        peers.append((bench.peer("RecTools BCE", RECTOOLS_BCE, epochs), "≥ 6×"))
    ours = bench.stage(
        "train_epochs", run=bench.run(), settings=OURS_BCE, epochs=epochs, model=str(bench.work / "model")
    )
    for answer, mark in peers:
        yield {
            **row("train, BCE", "one epoch", answer["name"], mark, ours, answer["epoch"]),
            "quality_ours": ours["quality"]["full"],
            "quality_peer": answer["quality"]["full"],
            "quality": f"validation NDCG@10, full ranking, after {epochs} epochs",
        }


def train_softmax(bench: Bench) -> Rows:
    """Seconds until the validation NDCG@10 that RecTools' softmax has after five epochs."""
    if bench.options.rectools:
        epochs = min(5, bench.options.epochs)
        answer = bench.peer("RecTools softmax", RECTOOLS_SOFTMAX, epochs)
        yield until(bench, "train, softmax", answer, "full", epochs, "≥ 12×")


def time_to_quality(bench: Bench) -> Rows:
    """Seconds until the sampled validation NDCG@10 that scikit-rec has after twenty epochs."""
    if bench.options.scikit_rec:
        answer = bench.peer("scikit-rec", SCIKIT_REC, bench.options.epochs)
        yield until(bench, "time to quality", answer, "sampled", bench.options.epochs, "≥ 10×")


def until(bench: Bench, stage: str, answer: process.Result, protocol: str, epochs: int, mark: str) -> Row:
    """Training to a peer's quality, three times; the peer's seconds are those of its epoch, scaled."""
    found = []
    for number in range(bench.options.repeats):
        checkpoint = bench.work / "until" / str(number)
        shutil.rmtree(checkpoint, ignore_errors=True)
        checkpoint.mkdir(parents=True)
        found.append(
            bench.stage(
                "train_until",
                run=bench.run(),
                settings={**OURS_QUICK, "train.random_state": 42 + number},
                protocol=protocol,
                target=answer["quality"][protocol],
                max_epochs=10 * epochs,
                checkpoint=str(checkpoint),
            )
        )
    ours = together(found)
    work = f"until {protocol} validation NDCG@10 of {answer['quality'][protocol]:.4f} (three seeds)"
    return {
        **row(stage, work, answer["name"], mark, ours, answer["epoch"], times=epochs),
        "quality_ours": median(each["quality"][protocol] for each in found),
        "quality_peer": answer["quality"][protocol],
        "quality": f"validation NDCG@10, {protocol} ranking; the peer's after {epochs} epochs",
        "reached": all(each["reached"] for each in found),
    }


def evaluate(bench: Bench) -> Rows:
    """Sampled and full ranking of all test users."""
    model = _model(bench)
    if bench.options.scikit_rec:
        answer = bench.peer("scikit-rec", SCIKIT_REC, bench.options.epochs)
        ours = bench.stage("rank", run=bench.run(), model=model, repeats=bench.options.repeats)
        work = f"{ours['users']:,} users, sampled and full ranking; the peer: scoring alone"
        yield row("evaluate", work, answer["name"], "≥ 10×", ours, answer["score"])


def _model(bench: Bench) -> str:
    folder = bench.work / "model"
    if not (folder / "model.json").exists():
        bench.stage("train_epochs", run=bench.run(), settings=OURS_BCE, epochs=1, model=str(folder))
    return str(folder)


def export(bench: Bench) -> Rows:
    """Top 10 of all users, published."""
    run = bench.run()
    for task in ("train", "evaluate", "gate"):
        pipeline.run_task(task, run)
    peers = []
    if bench.options.scikit_rec:
        peers.append((bench.peer("scikit-rec", SCIKIT_REC, bench.options.epochs), "≥ 15×"))
    if bench.options.rectools:
        peers.append((bench.peer("RecTools BCE", RECTOOLS_BCE, bench.options.epochs), "≥ 12×"))
    tables = bench.work / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    ours = bench.stage("export", run=run, table=str(tables), repeats=bench.options.repeats)
    for answer, mark in peers:
        work = f"top 10 of {ours['users']:,} users, published as a table; the peer: `recommend`"
        yield row("export", work, answer["name"], mark, ours, answer["recommend"])


def export_at_size(bench: Bench) -> Rows:
    """Exact top 10 for many users and items, beside the machine's matrix product."""
    users, items = bench.options.served, bench.options.items
    for threads, mark in ((1, "≥ 0.6 of its peak"), (2, "≥ 0.5 of its peak")):
        if threads > (os.cpu_count() or 1):
            continue
        ours = bench.stage(
            "top_k",
            users=users,
            items=items,
            width=64,
            seen=50,
            threads=threads,
            repeats=bench.options.repeats,
        )
        at_peak = ours["flops"] / ours["peak"]
        work = f"{users:,} users × {items:,} items, d = 64, exact top 10 without 50 seen items"
        peer = f"matrix product, {threads} thread(s)"
        yield row("export at size", work, peer, mark, ours, [at_peak])


def split(bench: Bench) -> Rows:
    """Ids to indices, stable sort, arrays."""
    file, run = str(bench.big()), "big"
    bench.stage("ingest_and_validate", source=file, work=str(bench.work), run=run)
    ours = bench.repeated("split", work=str(bench.work), run=run)
    rows = min(10_000_000, bench.options.events)
    theirs = bench.repeated("split_with_pandas", source=file, rows=rows, out=str(bench.work / "pandas"))
    work = f"{ours['rows']:,} events; the peer: {rows:,}, scaled"
    yield {
        **row("split", work, "pandas", "≥ 4×", ours, theirs["seconds"], times=ours["rows"] / theirs["rows"]),
        "peer_peak_rss_mb": theirs["peak_rss_mb"],
    }


def ingest_and_validate(bench: Bench) -> Rows:
    """A frozen snapshot, every row checked; one in a hundred is rejected."""
    file = str(bench.big())
    found = []
    for number in range(bench.options.repeats):
        found.append(
            bench.stage("ingest_and_validate", source=file, work=str(bench.work), run=f"ingest-{number}")
        )
        shutil.rmtree(bench.work / "runs" / f"ingest-{number}")
    ours = together(found)
    theirs = bench.repeated("copy_parquet", source=file, out=str(bench.work / "copy.parquet"))
    work = f"{ours['rows']:,} events, 1% bad; the peer only reads and writes them"
    yield row("ingest and validate", work, "pyarrow", "≥ 0.4×", ours, theirs["seconds"])


def whole_dag(bench: Bench) -> Rows:
    """Everything, by Airflow, beside the sum of its tasks."""
    airflow = Path(sys.executable).with_name("airflow")
    store = bench.work / "dag"
    shutil.rmtree(store, ignore_errors=True)
    environment = {
        **os.environ,
        "SASREC_SOURCE": str(Path(bench.options.source).resolve()),
        "SASREC_STORE": f"{store}/runs",
        "SASREC_TABLE": f"{store}/table",
    }
    conf = json.dumps({"train.epochs": bench.options.epochs, "gate.force_publish": True})
    seconds = process.call([str(airflow), "dags", "test", "sasrec_nightly", "--conf", conf], environment)
    measured = {"seconds": [seconds], "peak_rss_mb": None}
    run = pipeline.newest_run(f"{store}/runs")
    tasks = {task: marker.seconds for task in pipeline.TASKS if (marker := run.marker(task))}
    yield {
        **row("whole DAG", f"{bench.options.epochs} epochs", "sum of its tasks", "≤ 30 s more", measured,
              [sum(tasks.values())]),
        "tasks_s": tasks,
        "orchestration_s": round(seconds - sum(tasks.values()), 1),
    }  # fmt: skip


STAGES: dict[str, Callable[[Bench], Rows]] = {
    stage.__name__: stage
    for stage in (
        train_bce,
        train_softmax,
        time_to_quality,
        evaluate,
        export,
        export_at_size,
        split,
        ingest_and_validate,
        whole_dag,
    )
}

if __name__ == "__main__":
    main()
