"""What a consumer is told of a new version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from sasrec_tasks import digest
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.rollback import roll_back


def lists(table: str, version: int) -> dict[str, set[str]]:
    rows = DeltaTable(table, version=version).to_pyarrow_table().to_pandas()
    return {user: set(items) for user, items in rows.groupby("USER_ID")["ITEM_ID"]}


def test_the_first_publish_has_nothing_before_it(finished: Any, tmp_path: Path) -> None:
    found = digest.write(finished.table)
    assert (found["version"], found["previous_version"], found["run_id"]) == (0, None, "first")
    assert (found["rows"], found["users"], found["users_served_popular"]) == (1000, 100, 0)
    assert "overlap" not in found
    written = json.loads(Path(f"{finished.table}_digest/0.json").read_text())
    assert written == {name: value for name, value in found.items() if name != "digest"}


def test_two_publishes_are_compared_user_by_user(place: Any, chains: Any) -> None:
    place.run("a")
    place.write(chains(users=120).filter(chains_without(chains(users=120), "user 5")))
    place.run("b", {"train.random_state": 3, "gate.force_publish": True})
    found = digest.write(place.table)
    old, new = lists(place.table, 0), lists(place.table, 1)
    shared = [len(new[user] & old[user]) / 10 for user in set(old) & set(new)]
    assert (found["version"], found["previous_version"]) == (1, 0)
    assert (found["users_new"], found["users_gone"]) == (20, 1)
    assert found["items"] == len(set().union(*new.values()))
    assert found["overlap"] == pytest.approx(sum(shared) / len(shared))
    assert 0 < found["overlap"] < 1
    assert found["users_with_the_same_items"] == sum(share == 1 for share in shared)
    assert digest.write(place.table, 0)["previous_version"] is None
    assert digest.write(place.table, 1) == found


def chains_without(events: Any, user: str) -> list[bool]:
    return [other != user for other in events["USER_ID"].to_pylist()]


def test_a_rollback_is_described_as_what_is_served(place: Any) -> None:
    place.run("a")
    place.run("b")
    DeltaTable(place.table).restore(0)
    found = digest.write(place.table)
    assert (found["version"], found["run_id"], found["previous_version"]) == (2, "a", 1)


@pytest.mark.parametrize("kind", ["", "parquet+"])
def test_after_a_rollback_the_difference_is_to_what_consumers_had(place: Any, chains: Any, kind: str) -> None:
    place.table = f"{kind}{place.table}"
    for run_id, users in (("a", 100), ("b", 110), ("c", 120)):
        place.write(chains(users=users))
        place.run(run_id, {"gate.force_publish": True})
    event = roll_back(place.table)
    found = digest.write(place.table, event["version"], event["previous_version"])
    assert (found["version"], found["run_id"], found["previous_version"]) == (3, "b", 2)
    assert (found["users_new"], found["users_gone"]) == (0, 10)
    assert digest.write(place.table) == found  # of a manual run
    of_c = digest.write(place.table, 2, 1)  # the consumer comes late
    assert (of_c["version"], of_c["run_id"], of_c["previous_version"]) == (2, "c", 1)
    assert (of_c["users_new"], of_c["users_gone"]) == (10, 0)
    roll_back(place.table, run_id="a")
    assert digest.write(place.table, 1)["previous_version"] == 0
    assert digest.write(place.table)["previous_version"] == 3


def test_where_nothing_is_published_the_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="table="):
        digest.write(str(tmp_path / "table"))
