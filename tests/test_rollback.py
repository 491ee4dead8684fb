"""Back to an earlier publish, and what the next run holds itself against."""

from __future__ import annotations

from typing import Any

import pytest

from sasrec_tasks import announcement
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import Recommendations


@pytest.fixture
def published(place: Any) -> Any:
    """Three runs of rising as_of, all published."""
    for month, run_id in enumerate(("a", "b", "c"), 1):
        place.run(run_id, {"as_of": f"2026-0{month}-01", "gate.force_publish": True, "train.epochs": 1})
    return place


def test_the_way_back_and_the_next_champion(published: Any) -> None:
    table = published.table
    done = roll_back(table)
    assert (done["run_id"], done["version"], done["previous_version"], done["instead_of"]) == ("b", 3, 2, "c")
    marker = RunStore.of(published.store, "b").marker("export")
    assert marker
    told = announcement.facts(marker.summary, run_id="b")
    assert done == {**told, "version": 3, "previous_version": 2, "instead_of": "c"}
    assert roll_back(table, run_id="b") == done  # tried again, after the commit
    assert Recommendations(table).run_id == "b"
    assert Recommendations(table).popular()["RUN_ID"].unique().tolist() == ["b"]
    next_run = published.run("d", {"as_of": "2026-04-01", "gate.force_publish": True, "train.epochs": 1})
    assert next_run.read_json("gate", "verdict.json")["champion"]["run_id"] == "b"
    assert Recommendations(table).version == 4

    assert roll_back(table, run_id="a")["run_id"] == "a"
    assert roll_back(table, version=2)["run_id"] == "c"
    with pytest.raises(BadSettings, match=r"version 17 is not kept: there are 6 \(c\), 5 \(a\)"):
        roll_back(table, version=17)
    with pytest.raises(BadSettings, match="run 'x' is not kept"):
        roll_back(table, run_id="x")
    with pytest.raises(BadSettings, match="not both"):
        roll_back(table, version=1, run_id="a")


def test_nothing_to_go_back_to(finished: Any, tmp_path: Any) -> None:
    with pytest.raises(BadSettings, match="one publish only"):
        roll_back(finished.table)
    with pytest.raises(BadSettings, match="nothing is published"):
        roll_back(str(tmp_path / "table"))
