"""The stages that are timed, one each per process, and what plain tools take for the same.

    python benchmarks/stages.py NAME task.json

`task.json` holds the arguments of the function NAME, and where to leave its result.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from process import peak_rss_mb

from sasrec_tasks import pipeline
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.naming import as_names, from_names

Result = dict[str, Any]
WARM_UP = 1  # runs that are not counted, of what takes less than a minute


class Seconds(list[float]):
    """Wall time of the blocks that were timed."""

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time a block."""
        started = time.perf_counter()
        yield
        self.append(time.perf_counter() - started)


def main() -> None:
    """Run a stage."""
    name, file = sys.argv[1:]
    task = json.loads(Path(file).read_text(encoding="utf-8"))
    result = task.pop("result")
    found = STAGES[name](**task)
    Path(result).write_text(json.dumps({**found, "peak_rss_mb": peak_rss_mb()}), encoding="utf-8")


def train_epochs(run: str, settings: Result, epochs: int, model: str) -> Result:
    """Seconds of each epoch, the validation figures after the last, and the model."""
    from sasrec_tasks.sasrec.fit import fit
    from sasrec_tasks.sasrec.weights import save_model

    interactions, chosen, config, fresh = _training(run, settings)
    result = fit(fresh, interactions.split.train, replace(config, epochs=epochs))
    save_model(fresh, Path(model))
    return {
        "seconds": [epoch.seconds for epoch in result.history],
        "quality": _validation(fresh, interactions, chosen),
    }


def train_until(
    run: str, settings: Result, protocol: str, target: float, max_epochs: int, checkpoint: str
) -> Result:
    """Seconds of training until the validation NDCG@10 is at least ``target``."""
    from sasrec_tasks.sasrec.checkpoint import Checkpoint
    from sasrec_tasks.sasrec.fit import fit

    interactions, chosen, config, model = _training(run, settings)
    for epochs in range(1, max_epochs + 1):
        result = fit(
            model,
            interactions.split.train,
            replace(config, epochs=epochs),
            checkpoint=Checkpoint(Path(checkpoint) / "state.safetensors", "speed"),
        )
        reached = _validation(model, interactions, chosen)
        if reached[protocol] >= target:
            break
    return {
        "seconds": [sum(epoch.seconds for epoch in result.history)],
        "epochs": epochs,
        "quality": reached,
        "reached": reached[protocol] >= target,
    }


def _training(run: str, settings: Result) -> tuple[Any, Settings, Any, Any]:
    from sasrec_tasks import contents, fitting

    store = RunStore(run)
    others = {
        name: value for name, value in as_names(store.settings()).items() if not name.startswith("train.")
    }
    chosen = from_names({**others, **settings})  # what is not named has its default, not that of the run
    interactions = contents.interactions(store, chosen)
    config = replace(
        fitting.fit_config(interactions.num_items, chosen), early_stopping_patience=None, max_minutes=None
    )
    return interactions, chosen, config, fitting.new_model(interactions.num_items, chosen)


def _validation(model: Any, interactions: Any, settings: Settings) -> dict[str, float]:
    from sasrec_tasks.sasrec.scoring import model_scorer

    scorer = model_scorer(model, interactions.split.validation.history)
    return validation_ndcg(scorer, interactions, settings)


def validation_ndcg(scorer: Any, interactions: Any, settings: Settings) -> dict[str, float]:
    """NDCG@10 on the validation items: among all unseen items, and among random ones."""
    from sasrec_tasks.sasrec.metrics import per_user
    from sasrec_tasks.sasrec.ranking import rank_all, rank_sampled

    held_out = interactions.split.validation
    ranks = {
        "full": rank_all(scorer, held_out)[0],
        "sampled": rank_sampled(scorer, held_out, _validation_negatives(interactions, settings)),
    }
    return {protocol: float(per_user(of)["ndcg@10"].mean()) for protocol, of in ranks.items()}


def _validation_negatives(interactions: Any, settings: Settings) -> Any:
    """Random items for each user who has a validation item, none of them the user's at any time."""
    from sasrec_tasks.sasrec.unseen import sample_unseen

    whole = interactions.split.whole.select(interactions.split.validation.users)
    return sample_unseen(
        whole,
        interactions.num_items,
        settings.evaluate.negatives,
        random_state=settings.evaluate.random_state,
    )


def limits(run: str, settings: Result) -> Result:
    """Floating-point operations of an epoch and of serving all test users, and the machine's fastest ``peak``."""
    import flops

    from sasrec_tasks.sasrec.trainer import Trainer

    interactions, _, config, model = _training(run, settings)
    return {
        "train": flops.of_epoch(Trainer(model, interactions.split.train, config)),
        "serve": flops.of_serving(model, interactions.split.test.history),
        "peak": matmul_peak(),
    }


def rank(run: str, model: str, repeats: int) -> Result:
    """Read all test users' histories, and rank their test items among 100 and among all items."""
    from sasrec_tasks import contents, measures
    from sasrec_tasks.sasrec.scoring import model_scorer
    from sasrec_tasks.sasrec.weights import load_model

    store = RunStore(run)
    settings = store.settings()
    interactions, loaded = contents.interactions(store, settings), load_model(Path(model))
    test, seconds = interactions.split.test, Seconds()
    for _ in range(WARM_UP + repeats):
        with seconds.timed():
            negatives = measures.unseen_items(interactions, test, settings)
            measures.rank(model_scorer(loaded, test.history), test, negatives)
    return {"seconds": seconds[WARM_UP:], "users": len(test)}


def serve(run: str, model: str, repeats: int) -> Result:
    """Read all users' histories, and find the ten best items that each has not seen."""
    from sasrec_tasks import contents, trained
    from sasrec_tasks.sasrec.scoring import model_scorer
    from sasrec_tasks.sasrec.top_k import top_k
    from sasrec_tasks.sasrec.weights import load_model

    store = RunStore(run)
    settings = store.settings()
    whole = contents.interactions(store, settings).split.whole
    loaded, seconds = load_model(Path(model), trained.device(settings)), Seconds()
    for _ in range(WARM_UP + repeats):
        with seconds.timed():
            top_k(model_scorer(loaded, whole), whole, np.arange(len(whole)), 10)
    return {"seconds": seconds[WARM_UP:], "users": len(whole)}


def export(run: str, table: str, repeats: int) -> Result:
    """Top 10 of all users of a run that the gate has let through, published as a new table each time."""
    from sasrec_tasks import export as task

    store, seconds = RunStore(run), Seconds()
    for number in range(WARM_UP + repeats):
        settings = store.settings().model_copy(update={"table": f"{table}/{number}"})
        with seconds.timed():
            summary = task.run(store, settings)
    return {"seconds": seconds[WARM_UP:], "users": summary["users"], "rows": summary["rows"]}


def top_k(users: int, items: int, width: int, seen: int, threads: int, repeats: int) -> Result:
    """The best 10 unseen of all items for users whose vectors are known, and a matrix product at full speed.

    Returns:
        seconds per repeat, ``flops`` of the scores alone, and ``peak``, flops a second of a product of
        square matrices that fit the cache, measured between the repeats.
    """
    import torch

    from sasrec_tasks.sasrec.scoring import ScoresByVectors
    from sasrec_tasks.sasrec.sequences import Sequences
    from sasrec_tasks.sasrec.top_k import top_k as best

    torch.set_num_threads(threads)
    random = np.random.default_rng(0)
    of_users, of_items = torch.randn(users, width), torch.randn(items + 1, width)
    score = ScoresByVectors(of_users, of_items)
    offsets = np.arange(users + 1) * seen
    histories = Sequences.from_offsets(
        offsets,
        random.integers(1, items + 1, users * seen).astype(np.int32),
        np.ones(users * seen, np.float32),
    )
    seconds, peaks = Seconds(), []
    best(score, histories.select(np.arange(256)), np.arange(256), 10)
    for _ in range(repeats):
        peaks.append(matmul_peak())
        with seconds.timed():
            best(score, histories, np.arange(users), 10)
        peaks.append(matmul_peak())
    return {"seconds": seconds, "flops": 2 * width * items * users, "peak": max(peaks)}


def matmul_peak(size: int = 2048, repeats: int = 9) -> float:
    """Flops a second of a product of square float32 matrices, the best of some."""
    import torch

    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    seconds = Seconds()
    for _ in range(repeats):
        with seconds.timed():
            torch.mm(a, b, out=out)
    return 2 * size**3 / min(seconds)


def ingest_and_validate(source: str, work: str, run: str) -> Result:
    """Both tasks, once."""
    settings = {
        "source": source,
        "store": f"{work}/runs",
        "table": f"{work}/table",
        "validate.max_rejected_share": 0.05,
    }
    store = pipeline.start(from_names(settings), run)
    seconds = Seconds()
    with seconds.timed():
        for task in ("ingest", "validate"):
            pipeline.run_task(task, store.uri)
    rows = pq.read_metadata(store.folder("ingest") / "interactions.parquet").num_rows
    return {"seconds": seconds, "rows": rows}


def split(work: str, run: str) -> Result:
    """The split of a validated run, once."""
    store = RunStore.of(f"{work}/runs", run)
    store.forget("split")
    seconds = Seconds()
    with seconds.timed():
        summary = pipeline.run_task("split", store.uri)
    return {"seconds": seconds, "rows": summary["events"]}


def start(settings: Result, run: str) -> Result:
    """The folder of a new run."""
    return {"run": pipeline.start(from_names(settings), run).uri}


def task(run: str, name: str) -> Result:
    """Any task of a run, once."""
    seconds = Seconds()
    with seconds.timed():
        pipeline.run_task(name, run)
    return {"seconds": seconds}


def copy_parquet(source: str, out: str) -> Result:
    """Read a file and write it, with pyarrow alone."""
    seconds = Seconds()
    with seconds.timed():
        parquet = pq.ParquetFile(source, pre_buffer=False)
        with pq.ParquetWriter(out, parquet.schema_arrow) as writer:
            for batch in parquet.iter_batches(batch_size=524_288):
                writer.write_batch(batch)
    return {"seconds": seconds, "rows": parquet.metadata.num_rows}


def split_with_pandas(source: str, rows: int, out: str) -> Result:
    """What `split` does, for the first rows of a file, as one would write it with pandas."""
    import pandas as pd

    seconds = Seconds()
    with seconds.timed():
        batch = next(pq.ParquetFile(source).iter_batches(batch_size=rows))
        frame = batch.to_pandas().dropna()
        frame = frame[np.isfinite(frame["OUTCOME"])]
        users, user_ids = pd.factorize(frame["USER_ID"], sort=True)
        items, item_ids = pd.factorize(frame["ITEM_ID"], sort=True)
        frame = frame.assign(user=users, item=items + 1).sort_values(["user", "TIMESTAMP"], kind="stable")
        frame = frame.drop_duplicates(["user", "item", "TIMESTAMP"])
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(frame["user"], minlength=len(user_ids)))])
        np.save(folder / "offsets.npy", offsets)
        np.save(folder / "items.npy", frame["item"].to_numpy(np.int32))
        np.save(folder / "outcomes.npy", frame["OUTCOME"].to_numpy(np.float32))
        np.save(folder / "timestamps.npy", frame["TIMESTAMP"].to_numpy())
        pd.DataFrame({"USER_ID": user_ids}).to_parquet(folder / "users.parquet")
        pd.DataFrame({"ITEM_ID": item_ids}).to_parquet(folder / "items.parquet")
    return {"seconds": seconds, "rows": len(batch)}


STAGES: dict[str, Callable[..., Result]] = {
    stage.__name__: stage
    for stage in (
        train_epochs,
        train_until,
        limits,
        rank,
        serve,
        export,
        top_k,
        ingest_and_validate,
        split,
        start,
        task,
        copy_parquet,
        split_with_pandas,
    )
}

if __name__ == "__main__":
    main()
