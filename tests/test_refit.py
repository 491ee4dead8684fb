"""The table is made by a model that has seen all events; all that is measured, compared and gone on from has not."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sasrec_tasks import approval, contents, runs, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Prune
from sasrec_tasks.contents import REFIT_NOTE
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.pipeline import TASKS, refused, result, run_all, run_task, tasks_of
from sasrec_tasks.prune import prune
from sasrec_tasks.rows import Rows
from sasrec_tasks.tables import open_tables
from sasrec_tasks.tables.protocol import RECOMMENDATIONS
from sasrec_tasks.terminal import report

REFIT = {"refit.enabled": True}


def weights(store: RunStore, task: str = "refit") -> bytes:
    return (store.folder(task) / "model.safetensors").read_bytes()


def summary_of(store: RunStore, task: str = "refit") -> dict[str, Any]:
    marker = store.marker(task)
    assert marker is not None
    return marker.summary


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def served(table: str) -> pa.Table:
    return open_tables(table).rows(next(open_tables(table).published()).version).read_all()


def with_last_items(events: pa.Table, items: Callable[[np.ndarray], Any]) -> pa.Table:
    """Each user's last event, which is held out for the test, with another item."""
    frame = events.to_pandas().sort_values(["USER_ID", "TIMESTAMP"], kind="stable").reset_index(drop=True)
    last = frame.groupby("USER_ID").nth(-1).index
    frame.loc[last, "ITEM_ID"] = items(frame.loc[last, "ITEM_ID"].to_numpy())
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory, finished: Any) -> RunStore:
    """The run "first" again, with `refit`, published to a table of its own. Shared: tests only read it."""
    place = type(finished)(tmp_path_factory.mktemp("refitted"))
    place.source = finished.source
    store: RunStore = place.run("first", REFIT)
    return store


@pytest.fixture(scope="module")
def gated(finished: Any) -> RunStore:
    """The same run without."""
    return RunStore(f"{finished.store}/first")


def test_off_it_leaves_nothing_and_says_so(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = place.start("run")
    with caplog.at_level(logging.INFO):
        assert run_all(store)["published"]
    assert tasks_of(store.settings()) == TASKS
    before = files_in(place.folder)
    assert not [name for name in before if "refit" in name]
    for task, file in (("gate", "verdict.json"), ("evaluate", "model_card.json"), ("export", "export.json")):
        assert "refit" not in store.read_json(task, file)
    assert "refitted" not in caplog.text
    metadata = next(open_tables(place.table).published()).metadata
    assert metadata["model"] == trained.model_hash(store)
    assert "gated_model" not in metadata
    assert runs.read(f"{place.table}_runs")["REFITTED"].to_pylist() == [None]
    assert run_task("refit", store.uri) == {"refitted": False}
    assert files_in(place.folder) == before


def test_what_is_measured_is_the_same_and_what_is_served_is_not(refitted: RunStore, gated: RunStore) -> None:
    assert weights(refitted, "train") == weights(gated, "train")
    assert refitted.read_json("evaluate", "metrics.json") == gated.read_json("evaluate", "metrics.json")
    ranks = [store.folder("evaluate") / "ranks.parquet" for store in (refitted, gated)]
    assert pq.read_table(ranks[0]).equals(pq.read_table(ranks[1]))
    verdicts = [store.read_json("gate", "verdict.json") for store in (refitted, gated)]
    assert verdicts[0] == {**verdicts[1], "refit": REFIT_NOTE}
    assert weights(refitted) != weights(refitted, "train")
    tables = [served(store.settings().table) for store in (refitted, gated)]
    assert tables[0]["ITEM_ID"] != tables[1]["ITEM_ID"]
    assert tables[0]["USER_ID"] == tables[1]["USER_ID"]


def test_the_table_is_of_the_refitted_weights(refitted: RunStore) -> None:
    settings = refitted.settings()
    rows = Rows(refitted, settings)
    users = ["user 0", "user 7", "user 99"]
    of = {
        task: pa.Table.from_batches(rows.of_users(users, task), RECOMMENDATIONS)
        for task in ("train", "refit")
    }
    table = open_tables(settings.table).for_users(users).select(RECOMMENDATIONS.names)
    assert table["ITEM_ID"] == of["refit"]["ITEM_ID"]
    assert table["SCORE"].to_pylist() == pytest.approx(of["refit"]["SCORE"].to_pylist(), abs=1e-5)
    assert table["ITEM_ID"] != of["train"]["ITEM_ID"]


def test_it_goes_on_for_the_best_number_of_epochs_on_all_events(place: Any) -> None:
    settings = {
        "train.epochs": 60,
        "train.early_stopping_patience": 3,
        "train.learning_rate": 0.05,
        "split.min_user_events": 6,
        **REFIT,
    }
    store = place.run("run", settings, upto="refit")
    train, done = summary_of(store, "train"), summary_of(store)
    assert train["stopped"] == "patience"
    assert done["epochs"] == train["best_epoch"] == train["epochs"] - 3
    assert (done["stopped"], done["resumed_from_epoch"]) == ("epochs", None)
    assert done["gated_model"] == trained.model_hash(store)
    lengths = pd.read_parquet(place.source)["USER_ID"].value_counts()
    assert done["events"] == lengths[lengths >= 6].sum() < lengths.sum()
    history = pq.read_table(store.folder("refit") / "history.parquet")
    assert history["epoch"].to_pylist() == list(range(1, done["epochs"] + 1))
    assert history["metric"].null_count == len(history)  # nothing is measured
    first = pq.read_table(store.folder("train") / "history.parquet")["loss"][0].as_py()
    assert history["loss"][0].as_py() < 0.8 * first


def test_the_number_of_epochs_can_be_chosen(place: Any) -> None:
    store = place.run("run", {**REFIT, "refit.epochs": 2}, upto="refit")
    two = weights(store)
    assert summary_of(store)["epochs"] == 2
    place.run("run", {**REFIT, "refit.epochs": 3}, upto="refit")
    assert summary_of(store)["epochs"] == 3
    assert weights(store) != two


def test_held_out_items_reach_what_is_served_and_nothing_else(
    place: Any, refitted: RunStore, chains: Any
) -> None:
    place.write(with_last_items(chains(), np.random.default_rng(1).permutation))
    changed = place.run("changed", {**REFIT, "gate.force_publish": True})
    assert weights(changed, "train") == weights(refitted, "train")
    assert weights(changed) != weights(refitted)


def test_an_item_that_is_held_out_everywhere_is_served_after_refitting_alone(place: Any, chains: Any) -> None:
    """The last event of two users in three is of an item that nobody had before."""
    source = chains(users=300)
    frame = source.to_pandas().sort_values(["USER_ID", "TIMESTAMP"], kind="stable").reset_index(drop=True)
    new = pd.DataFrame(
        {
            "USER_ID": (users := frame["USER_ID"].unique()[:200]),
            "ITEM_ID": "new",
            "OUTCOME": 1.0,
            "TIMESTAMP": frame["TIMESTAMP"].max() + 1,
        }
    )
    place.write(pa.Table.from_pandas(pd.concat([frame, new]), preserve_index=False))
    store = place.run("run", {**REFIT, "gate.force_publish": True})
    settings = store.settings()
    data, item = contents.interactions(store, settings), contents.item_ids(store).index("new") + 1
    assert data.split.train.item_counts(data.num_items)[item] == 0
    assert data.split.unsplit.item_counts(data.num_items)[item] == len(users)
    others = sorted(set(frame["USER_ID"]) - set(users))
    rows = Rows(store, settings)
    lists = {
        task: pa.Table.from_batches(rows.of_users(others, task), RECOMMENDATIONS)
        for task in ("train", "refit")
    }
    assert "new" not in lists["train"]["ITEM_ID"].to_pylist()
    near_the_top = (pc.field("ITEM_ID") == "new") & (pc.field("RANK") <= 3)
    assert len(lists["refit"].filter(near_the_top)) > 0.5 * len(others)


def test_the_next_night_is_as_if_there_had_been_no_refit(place: Any, finished: Any) -> None:
    """Warm start and champion are the gated weights, whatever the table was made with."""
    warm = {"train.cold_start_every": 5, "gate.force_publish": True, "train.epochs": 3}
    other = type(place)(place.folder / "other")
    other.folder.mkdir()
    other.source = place.source
    nights = {}
    for where, refit in ((place, True), (other, False)):
        where.run("one", {**warm, "refit.enabled": refit})
        nights[refit] = where.run("two", {**warm, "refit.enabled": refit, "as_of": "2026-01-02"})
    for night in nights.values():
        start = summary_of(night, "train")["warm_start"]
        assert (start["run_id"], start["model"]) == ("one", trained.model_hash(night.sibling("one")))
    assert weights(nights[True], "train") == weights(nights[False], "train")
    champions = [night.read_json("gate", "verdict.json")["champion"] for night in nights.values()]
    assert champions[0] == champions[1]
    assert champions[0]["run_id"] == "one"


def test_killed_in_mid_epoch_it_resumes_and_ends_with_the_same_weights(
    place: Any, killed_in_mid_epoch: Callable[..., list[dict[str, Any]]]
) -> None:
    settings = {**REFIT, "refit.epochs": 20, "train.batch_size": 8, "train.batch_slots": None}
    whole = place.run("whole", settings, upto="refit")
    killed = place.run("killed", settings, upto="gate")
    before = killed_in_mid_epoch(killed, "refit")
    assert 3 <= len(before) < 20
    with pytest.raises(BadSettings, match="`export` needs `refit`, which has not finished"):
        run_task("export", killed.uri)

    assert run_task("refit", killed.uri)["resumed_from_epoch"] == len(before)
    assert weights(killed) == weights(whole)
    histories = [pq.read_table(store.folder("refit") / "history.parquet") for store in (killed, whole)]
    assert histories[0]["loss"] == histories[1]["loss"]


def test_cleared_it_is_not_done_again(place: Any) -> None:
    store = place.run("run", {**REFIT, "train.epochs": 2})
    markers = {task: store.marker(task) for task in tasks_of(store.settings())}
    versions = len(list(open_tables(place.table).published()))
    for task in markers:
        run_task(task, store.uri)
    assert {task: store.marker(task) for task in markers} == markers
    assert len(list(open_tables(place.table).published())) == versions == 1


def test_a_refused_run_is_not_refitted(place: Any, bad: dict[str, Any]) -> None:
    store = place.start("run", {**bad, **REFIT})
    with pytest.raises(GateRefused):
        run_all(store)
    with pytest.raises(GateRefused, match="does not allow a publish"):
        run_task("refit", store.uri)
    assert not (Path(store.root) / "refit").exists()
    assert "refit" not in refused(store)["tasks"]
    row = runs.read(f"{place.table}_runs").to_pylist()[0]
    assert (row["ENDING"], row["REFITTED"]) == ("refused", None)


def test_it_waits_for_a_persons_answer(place: Any) -> None:
    place.run("yesterday")
    asks = {"gate.ask_overlap": 1.0, "train.random_state": 1, **REFIT}
    store = place.run("run", asks, upto="gate")
    with pytest.raises(GateRefused, match=r"until a person approves: overlap.*then refit and export again"):
        run_task("refit", store.uri)
    assert not (Path(store.root) / "refit").exists()
    given = approval.answer(store, approved=True, by="ann")
    run_task("refit", store.uri)
    assert approval.answer(store, approved=True, by="ann") == given  # what a later task tells again
    assert run_task("export", store.uri)["version"] == 1


def test_weights_that_were_trained_anew_are_refitted_anew(place: Any) -> None:
    store = place.run("run", REFIT, upto="refit")
    place.run("run", {**REFIT, "train.random_state": 1}, upto="gate")
    with pytest.raises(BadSettings, match="`refit` has gone on from other weights"):
        run_task("export", store.uri)
    run_task("refit", store.uri)
    assert run_task("export", store.uri)["published"]


def test_a_published_run_keeps_its_rows_when_the_setting_changes(place: Any) -> None:
    store = place.run("run", {"train.epochs": 2})
    rows = served(place.table)
    with pytest.raises(BadSettings, match="is published already"):
        place.run("run", {"train.epochs": 2, **REFIT})
    assert served(place.table).equals(rows)
    assert summary_of(store, "export")["published"]


def test_a_time_budget_ends_it(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings = {**REFIT, "refit.epochs": 1000, "gate.force_publish": True, "train.max_minutes": 1e-6}
    store = place.run("run", settings, upto="refit")
    assert (summary_of(store)["stopped"], summary_of(store)["epochs"]) == ("time", 1)
    assert trained.model(store, store.settings(), "refit").is_finite()
    assert "train.max_minutes=1e-06 ended it" in caplog.text


def test_a_refit_that_diverges_publishes_nothing(place: Any, chains: Any) -> None:
    """Outcomes that only the held-out events have are too much for it."""
    frame = chains().to_pandas().sort_values(["USER_ID", "TIMESTAMP"], kind="stable").reset_index(drop=True)
    frame.loc[frame.groupby("USER_ID").nth(-1).index, "OUTCOME"] = 1e30
    place.write(pa.Table.from_pandas(frame, preserve_index=False))
    settings = {**REFIT, "train.outcome": "rating", "train.loss": "mse", "gate.force_publish": True}
    with pytest.raises(BadSettings, match=r"train\.learning_rate=0\.01"):
        place.run("run", settings)
    assert not list(open_tables(place.table).published())
    row = runs.read(f"{place.table}_runs").to_pylist()[0]
    assert (row["ENDING"], row["TASK"]) == ("failed", "refit")


def test_pruning_keeps_both_models_of_what_can_be_served_again(place: Any) -> None:
    nights = {**REFIT, "gate.force_publish": True, "train.epochs": 1, "train.cold_start_every": 7}
    for month, run_id in enumerate("abc", 1):
        place.run(run_id, {**nights, "as_of": f"2026-0{month}-01"})
    later = datetime.now(UTC) + timedelta(days=100)
    prune(place.table, place.store, Prune(keep_versions=2, keep_days=0), now=later)
    assert {folder.name for folder in Path(place.store).iterdir()} == {"b", "c"}
    for kept in open_tables(place.table).kept():
        run = RunStore.of(place.store, kept.run_id)
        for task in ("train", "refit"):
            trained.model(run, run.settings(), task)
        assert kept.metadata["model"] == trained.model_hash(run, "refit")
    night = place.run("d", {**nights, "as_of": "2026-04-01"})
    assert summary_of(night, "train")["warm_start"]["run_id"] == "c"
    assert night.read_json("gate", "verdict.json")["champion"]["run_id"] == "c"


# What is said of it


def test_all_that_has_figures_says_whose_they_are(refitted: RunStore) -> None:
    card = refitted.read_json("evaluate", "model_card.json")
    assert card["refit"] == REFIT_NOTE
    assert card["weights_sha256"] == trained.model_hash(refitted)
    assert REFIT_NOTE in (refitted.folder("evaluate") / "model_card.md").read_text()
    assert refitted.read_json("gate", "verdict.json")["refit"] == REFIT_NOTE
    console = Console(width=80, file=io.StringIO())
    console.print(report(refitted))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert REFIT_NOTE in text
    assert f"{summary_of(refitted)['epochs']} epochs on all" in text


def test_runs_and_versions_name_both_models(refitted: RunStore) -> None:
    settings = refitted.settings()
    both = {task: trained.model_hash(refitted, task) for task in ("train", "refit")}
    row = runs.read(f"{settings.table}_runs").to_pylist()[0]
    assert (row["MODEL"], row["REFITTED"]) == (both["train"], both["refit"])
    assert row["NDCG"] == refitted.read_json("evaluate", "metrics.json")["full"]["ndcg@10"]
    assert list(json.loads(row["TASKS"])) == list(tasks_of(settings))
    metadata = next(open_tables(settings.table).published()).metadata
    assert (metadata["gated_model"], metadata["model"]) == (both["train"], both["refit"])
    assert metadata["metrics"]["full"] == refitted.read_json("evaluate", "metrics.json")["full"]


def test_the_export_says_how_far_the_lists_are_those_of_the_gated_model(
    refitted: RunStore, gated: RunStore
) -> None:
    found = refitted.read_json("export", "export.json")["refit"]
    tables = [served(store.settings().table).to_pandas() for store in (refitted, gated)]
    lists = [table.groupby("USER_ID")["ITEM_ID"].agg(set) for table in tables]
    kept = np.array([len(one & other) / 10 for one, other in zip(*lists, strict=True)])
    assert found["users_compared"] == len(kept) == 100
    assert found["overlap"] == pytest.approx(kept.mean())
    assert found["lists_changed"] == (kept == 0).mean()


def test_a_run_tells_of_it_as_json(refitted: RunStore) -> None:
    summaries = {task: summary_of(refitted, task) for task in tasks_of(refitted.settings())}
    told = json.loads(json.dumps(result(refitted, summaries, {})))
    assert told["tasks"]["refit"]["refitted"] is True
    assert told["verdict"]["refit"] == REFIT_NOTE
