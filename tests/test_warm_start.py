"""Tonight goes on from what is published, or begins anew and says why."""

from __future__ import annotations

import errno
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sasrec_tasks import artifacts, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.rollback import roll_back

WARM = {"train.cold_start_every": 3, "gate.force_publish": True}


def night(place: Any, number: int, **settings: Any) -> dict[str, Any]:
    store = place.run(f"night-{number}", {"as_of": f"2026-01-{number:02}", **WARM, **settings})
    marker = store.marker("train")
    found: dict[str, Any] = marker.summary["warm_start"]
    return found


def first_loss(place: Any, number: int) -> float:
    return float(pq.read_table(f"{place.store}/night-{number}/train/history.parquet")["loss"][0].as_py())


def test_two_nights_in_three_go_on_from_the_champion(place: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = [night(place, number) for number in range(1, 6)]
    assert [start["run_id"] for start in found] == [None, "night-1", "night-2", None, "night-4"]
    assert [start["nights"] for start in found] == [0, 1, 2, 0, 1]
    assert "nothing is published" in found[0]["reason"]
    assert "one night in 3 begins cold" in found[3]["reason"]
    assert "a warm start from run night-2: 0 items are new, 0 are gone (night 2 of at most 2)" in caplog.text
    assert "a cold start: the last 2 nights began warm" in caplog.text
    assert first_loss(place, 2) < 0.8 * first_loss(place, 1)
    assert first_loss(place, 4) == pytest.approx(first_loss(place, 1))


def test_the_more_of_the_item_vectors_is_kept_the_lower_the_first_loss(place: Any) -> None:
    night(place, 1)
    for number, share in ((2, 0.0), (3, 1.0)):
        assert night(place, number, **{"train.warm_item_share": share})["run_id"]
    assert first_loss(place, 3) < first_loss(place, 2) < first_loss(place, 1)


def test_new_items_join_and_old_ones_leave(place: Any, chains: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    place.write(chains(items=50))
    night(place, 1)
    place.write(chains(items=60, seed=1))
    assert night(place, 2)["run_id"] == "night-1"
    assert "items are new" in caplog.text
    assert first_loss(place, 2) < first_loss(place, 1)


def test_it_begins_anew_where_the_champion_does_not_fit_or_is_gone(place: Any) -> None:
    night(place, 1)
    assert "other sizes" in night(place, 2, **{"train.hidden_units": 8})["reason"]
    (place.folder / "runs" / "night-2" / "train" / "model.safetensors").unlink()
    assert "can't be read" in night(place, 3)["reason"]
    assert night(place, 4, **{"train.cold_start_every": 1})["reason"] == "train.cold_start_every=1"


def test_it_begins_anew_where_no_item_is_known(place: Any, chains: Any) -> None:
    night(place, 1)
    others = chains()
    items = pa.array([f"another {item}" for item in others["ITEM_ID"].to_pylist()])
    place.write(others.set_column(others.column_names.index("ITEM_ID"), "ITEM_ID", items))
    found = night(place, 2, **{"validate.drift_fail": None})
    assert found["run_id"] is None
    assert "knows none of tonight's items" in found["reason"]


def test_after_a_rollback_it_goes_on_from_what_is_served(place: Any) -> None:
    night(place, 1)
    night(place, 2)
    roll_back(place.table)
    assert night(place, 3)["run_id"] == "night-1"


def test_a_night_that_runs_again_begins_where_it_had_begun(place: Any) -> None:
    night(place, 1)
    first = night(place, 2)
    again = place.run("night-2-again", {"as_of": "2026-01-02", **WARM}).marker("train").summary["warm_start"]
    assert again == first
    assert first["run_id"] == "night-1"
    models = {trained.model_hash(RunStore(f"{place.store}/{run}")) for run in ("night-2", "night-2-again")}
    assert len(models) == 1


def test_a_run_that_is_cleared_stays_with_what_it_began_with(place: Any) -> None:
    night(place, 1)
    night(place, 2)
    trained = place.start("night-2", {"as_of": "2026-01-02", **WARM}).marker("train")
    roll_back(place.table, run_id="night-1")
    place.run("other", {"as_of": "2026-01-02", **WARM})
    night(place, 2)
    assert place.start("night-2", {"as_of": "2026-01-02", **WARM}).marker("train") == trained


def champion_gone(place: Any) -> None:
    shutil.rmtree(place.folder / "runs" / "night-1")


def champion_trained_anew(place: Any) -> None:
    place.run("night-1", {"as_of": "2026-01-01", **WARM, "train.random_state": 9}, upto="train")


@pytest.mark.parametrize(
    ("settings", "happens", "told"),
    [
        ({"train.warmup_epochs": 0.5}, None, ""),
        ({"train.warmup_epochs": 0.5}, champion_gone, "night-1 can't be read: .*`train` has not finished"),
        (
            {"train.warmup_epochs": 0.5},
            champion_trained_anew,
            "of run night-1 are others than this run had begun",
        ),
        ({"train.hidden_units": 8}, None, "night-1 has other sizes"),
    ],
)
def test_what_a_run_had_begun_with_is_looked_at_again_before_it_trains_again(
    place: Any,
    settings: dict[str, Any],
    happens: Callable[[Any], None] | None,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    night(place, 1)
    first = night(place, 2)
    if happens:
        happens(place)
    store = place.start("night-2", {"as_of": "2026-01-02", **WARM, **settings})
    run_task("train", store.uri)
    again = store.marker("train").summary["warm_start"]
    if told:
        assert (again["run_id"], again["nights"]) == (None, 0)
        assert re.search(f"train: a cold start: .*{told}", caplog.text)
    else:
        assert again == first
    done = store.marker("train")
    run_task("train", store.uri)
    assert store.marker("train") == done


def test_a_run_that_has_trained_needs_the_champion_no_more(place: Any) -> None:
    night(place, 1)
    night(place, 2)
    store = RunStore(f"{place.store}/night-2")
    done = store.marker("train")
    champion_gone(place)
    run_task("train", store.uri)
    assert store.marker("train") == done


def test_a_champion_that_can_not_be_read_now_makes_no_cold_start(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    night(place, 1)
    store = place.run("night-2", {"as_of": "2026-01-02", **WARM}, upto="split")

    def cut_off(file: Path) -> str:
        if "night-1" in file.parts:
            raise OSError(errno.EIO, "the connection was cut", str(file))
        return read(file)

    read = artifacts._sha256
    monkeypatch.setattr(artifacts, "_sha256", cut_off)
    with pytest.raises(OSError, match="the connection was cut"):
        run_task("train", store.uri)
    monkeypatch.undo()
    run_task("train", store.uri)
    assert store.marker("train").summary["warm_start"]["run_id"] == "night-1"


def test_held_out_items_are_not_carried_over(place: Any) -> None:
    """The champion has trained on nothing that is held out tonight, where histories only grow."""
    rows = [("u", f"i{n}", 1.0, 1_700_000_000 + n) for n in range(6)] + [
        (f"v{m}", f"i{n}", 1.0, 1_700_000_000 + n) for m in range(5) for n in range(4)
    ]
    names = ["USER_ID", "ITEM_ID", "OUTCOME", "TIMESTAMP"]
    place.write(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))))
    night(place, 1)
    tonight = [*rows, ("u", "i0", 1.0, 1_700_000_100)]
    place.write(pa.table(dict(zip(names, map(list, zip(*tonight, strict=True)), strict=True))))
    night(place, 2)
    # yesterday u's last two were i4 and i5; tonight they are i5 and i0: none was a target yesterday
    from sasrec_tasks import contents

    store = place.start("night-1", {"as_of": "2026-01-01", **WARM})
    train = contents.interactions(store, store.settings()).split.train
    ids = contents.item_ids(store)
    assert [ids[item - 1] for item in train.items[train.starts[0] : train.ends[0]]] == [
        "i0",
        "i1",
        "i2",
        "i3",
    ]
