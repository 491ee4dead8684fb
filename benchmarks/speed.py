"""How fast each stage is, beside what one would use instead: every ratio from one run on one machine.

    python benchmarks/speed.py --source ml-1m.parquet \
        --scikit-rec path/to/python --rectools path/to/python

Writes `results/speed.json`, a row per stage and peer: the median of several runs (`ours_s`, `peer_s`),
their ratio, the mark that it is held against, the spread of the runs (largest − smallest, over the
median), the quality that was reached in that time, where there is one, and the seconds that it all took
(`took_s`). Times are always measured in this run. What takes a peer many minutes, its validation NDCG@10
after some epochs, is kept in `results/speed.targets.json` by peer, version, settings and data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import process
from quality import RESULTS, machine, show_progress
from speed_bench import (
    OURS_BCE,
    OURS_QUICK,
    OURS_SOFTMAX,
    RECTOOLS_BCE,
    RECTOOLS_SOFTMAX,
    SCIKIT_REC,
    Bench,
    Row,
    together,
)

from sasrec_tasks import pipeline

Rows = Iterator[Row]


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
        started = time.perf_counter()
        for row in STAGES[stage](bench):
            now = time.perf_counter()
            row["took_s"], started = round(now - started), now
            print(f"{row['stage']} / {row['peer']}: {row['ratio']} ({row['mark']})", flush=True)
            write(row, options.out / "speed.json")


def write(row: Row, file: Path, **about: Any) -> None:
    """Put a row into the file, in the place of an earlier one of the same stage and peer, and what all are about."""
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rows": []}
    same = [
        n
        for n, old in enumerate(report["rows"])
        if (old["stage"], old["peer"]) == (row["stage"], row["peer"])
    ]
    row = {**row, "machine": machine(), "date": datetime.now(UTC).date().isoformat()}
    if same:
        report["rows"][same[0]] = row
    else:
        report["rows"].append(row)
    report = {"machine": machine(), **about, "date": row["date"], "rows": report["rows"]}
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
        "runs_s": {"ours": [round(s, 3) for s in ours["seconds"]], "peer": [round(s, 3) for s in seconds]},
        "quality_ours": None,
        "quality_peer": None,
        "peak_rss_mb": ours["peak_rss_mb"],
    }


def spread(seconds: list[float]) -> float | None:
    """Largest − smallest, over the median; None of a single run."""
    return round((max(seconds) - min(seconds)) / median(seconds), 3) if len(seconds) > 1 else None


def limit(bench: Bench, work: str) -> Row:
    """The least seconds that the work's products take at the machine's peak, all cores."""
    found = bench.limits()
    return {
        "gflop": float(f"{found[work] / 1e9:.4g}"),
        "limit_s": float(f"{found[work] / found['peak']:.3g}"),
    }


def train_bce(bench: Bench) -> Rows:
    """An epoch of binary cross-entropy over the same positions."""
    epochs = bench.options.epochs
    peers = []
    if bench.options.scikit_rec:
        peers.append((bench.peer("scikit-rec", SCIKIT_REC, epochs), "≥ 8×"))
    if bench.options.rectools:
        peers.append((bench.peer("RecTools BCE", RECTOOLS_BCE, epochs), "≥ 6×"))
    ours = _trained(bench, OURS_BCE, "model")
    for answer, mark in peers:
        yield {
            **row("train, BCE", "one epoch", answer["name"], mark, ours, answer["epoch"]),
            **limit(bench, "train"),
            **_qualities(ours, answer, epochs),
        }


def train_bce_wide(bench: Bench) -> Rows:
    """The same with scikit-rec's feed-forward nets, four times as wide as the paper's."""
    epochs = bench.options.epochs
    if bench.options.scikit_rec:
        answer = bench.peer("scikit-rec", SCIKIT_REC, epochs)
        ours = _trained(bench, {**OURS_BCE, "train.blocks": "plain"}, "model-wide")
        work = "one epoch, the peer's feed-forward nets"
        yield {
            **row("train, BCE, wide", work, answer["name"], "", ours, answer["epoch"]),
            **_qualities(ours, answer, epochs),
        }


def _trained(bench: Bench, settings: Row, folder: str) -> process.Result:
    epochs, model = bench.options.epochs, str(bench.work / folder)
    return bench.stage("train_epochs", run=bench.run(), settings=settings, epochs=epochs, model=model)


def _qualities(ours: process.Result, answer: process.Result, epochs: int) -> Row:
    return {
        "quality_ours": ours["quality"]["full"],
        "quality_peer": answer["quality"]["full"],
        "quality": f"validation NDCG@10, full ranking, after {epochs} epochs",
    }


def train_softmax(bench: Bench) -> Rows:
    """Seconds until the validation NDCG@10 that RecTools' softmax has after five epochs."""
    if bench.options.rectools:
        epochs = min(5, bench.options.epochs)
        answer = bench.peer("RecTools softmax", RECTOOLS_SOFTMAX, epochs)
        yield until(bench, "train, softmax", OURS_SOFTMAX, answer, "full", epochs, "≥ 12×")


def time_to_quality(bench: Bench) -> Rows:
    """Seconds until the sampled validation NDCG@10 that scikit-rec has after twenty epochs."""
    if bench.options.scikit_rec:
        epochs = bench.options.epochs
        answer = bench.peer("scikit-rec", SCIKIT_REC, epochs)
        yield until(bench, "time to quality", OURS_QUICK, answer, "sampled", epochs, "≥ 10×")


def until(
    bench: Bench,
    stage: str,
    settings: Row,
    answer: process.Result,
    protocol: str,
    epochs: int,
    mark: str,
) -> Row:
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
                settings={**settings, "train.random_state": 42 + number},
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
        "epochs": [each["epochs"] for each in found],
    }


def evaluate(bench: Bench) -> Rows:
    """Sampled and full ranking of all test users."""
    model = _model(bench)
    if bench.options.scikit_rec:
        answer = bench.peer("scikit-rec", SCIKIT_REC, bench.options.epochs)
        ours = bench.stage("rank", run=bench.run(), model=model, repeats=bench.options.repeats)
        work = f"{ours['users']:,} users, sampled and full ranking; the peer: scoring alone"
        yield {
            **row("evaluate", work, answer["name"], "≥ 10×", ours, answer["score"]),
            **limit(bench, "serve"),
        }


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
        yield {
            **row("export", work, answer["name"], mark, ours, answer["recommend"]),
            **limit(bench, "serve"),
        }


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
        train_bce_wide,
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
