"""What may be published: better than popularity, not worse than the champion, no slow decline."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from sasrec_tasks import artifacts
from sasrec_tasks.artifacts import Damaged, RunStore
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.pipeline import run_task
from sasrec_tasks.rollback import roll_back
from sasrec_tasks.tables import Keep, open_tables
from sasrec_tasks.tables.protocol import POPULAR, RECOMMENDATIONS


def verdict_of(store: RunStore) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json("gate", "verdict.json")
    return found


def rule(store: RunStore, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in verdict_of(store)["rules"] if each["rule"] == name)
    return found


def table_state(place: Any) -> tuple[int, pd.DataFrame]:
    table = DeltaTable(place.table)
    rows = table.to_pyarrow_table().to_pandas().sort_values(["USER_ID", "RANK"], ignore_index=True)
    return table.version(), rows


def published_elsewhere(place: Any, ndcgs: list[float], low: float | None = None) -> None:
    """Publishes with these figures, oldest first, of runs that are not in the store; `low` is their lower end."""
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    for night, ndcg in enumerate(ndcgs):
        run_id, as_of = f"night-{night}", moment + timedelta(days=night)
        figures: dict[str, Any] = {"ndcg@10": ndcg}
        if low is not None:
            figures["ci95"] = {"ndcg@10": [low, 1.0]}
        common = {"RANK": 1, "ITEM_ID": "item 1", "SCORE": 1.0, "RUN_ID": run_id, "AS_OF": as_of}

        def rows(common: dict[str, Any] = common) -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_pylist([{**common, "USER_ID": "u", "ORIGIN": "model"}], RECOMMENDATIONS)

        open_tables(place.table).publish(
            rows(),
            pa.Table.from_pylist([{**common, "ORIGIN": "popular"}], POPULAR),
            run_id=run_id,
            as_of=as_of,
            metadata={"metrics": {"full": figures}},
        )


def test_the_first_model_needs_to_beat_popularity_only(finished: Any) -> None:
    store = RunStore(f"{finished.store}/first")
    verdict = verdict_of(store)
    assert verdict["publish"] is verdict["passed"] is True
    assert verdict["champion"] is None
    metrics = store.read_json("evaluate", "metrics.json")
    assert rule(store, "popularity")["figure"] == metrics["full"]["ndcg@10"]
    assert rule(store, "popularity")["limit"] == metrics["baselines"]["popularity"]["full"]["ndcg@10"]


def test_a_model_no_better_than_popularity_is_refused_each_time(place: Any, bad: dict[str, Any]) -> None:
    for attempt in range(2):
        with pytest.raises(GateRefused, match="popularity") as raised:
            place.run("bad", bad) if attempt == 0 else run_task("gate", f"{place.store}/bad")
        assert "gate.force_publish" in str(raised.value)
    with pytest.raises(GateRefused):
        run_task("export", f"{place.store}/bad")
    assert verdict_of(RunStore(f"{place.store}/bad"))["publish"] is False
    assert not Path(place.table).exists()


def test_a_worse_model_is_refused_and_the_table_left_as_it_is(place: Any, bad: dict[str, Any]) -> None:
    place.run("champion")
    before = table_state(place)
    with pytest.raises(GateRefused, match="champion's"):
        place.run("worse", bad)
    version, rows = table_state(place)
    assert version == before[0]
    pd.testing.assert_frame_equal(rows, before[1])
    found = rule(RunStore(f"{place.store}/worse"), "champion")
    assert found["outcome"] == "refused"
    assert found["figure"] < found["limit"] < 0


def test_an_equal_model_passes_and_the_champion_is_measured_as_it_was(place: Any) -> None:
    champion = place.run("champion")
    equal = place.run("equal")
    comparison = verdict_of(equal)["champion"]
    own = champion.read_json("evaluate", "metrics.json")
    for protocol in ("sampled", "full", "full_with_seen"):
        for metric in ("hr@10", "ndcg@10", "mrr"):
            assert comparison["metrics"][protocol][metric] == own[protocol][metric]
            assert comparison["metrics"][protocol]["ci95"][metric] == pytest.approx(
                own[protocol]["ci95"][metric]
            )
    assert comparison["run_id"] == "champion"
    assert comparison["difference"] == 0
    assert comparison["ci95"] == [0, 0]
    assert comparison["unknown_targets"] == 0
    assert DeltaTable(place.table).version() == 1


def test_a_slightly_worse_model_passes_within_the_tolerance(place: Any, bad: dict[str, Any]) -> None:
    place.run("champion")
    tolerant = {**bad, "gate.tolerance": 1.0}
    store = place.start("worse", tolerant)
    with pytest.raises(GateRefused):  # by popularity, which knows no tolerance
        place.run("worse", tolerant)
    assert rule(store, "champion")["outcome"] == "passed"
    assert rule(store, "recent")["outcome"] == "passed"
    assert rule(store, "popularity")["outcome"] == "refused"


def test_items_that_the_champion_does_not_know_are_its_misses(place: Any, chains: Any) -> None:
    events = chains()
    champion = place.run("champion")
    # new items that sort before all others, so that every index moves; their users know nothing else
    new = pa.table(
        {
            "USER_ID": [f"new {user}" for user in range(20) for _ in range(6)],
            "ITEM_ID": [f"a {(user + place) % 25}" for user in range(20) for place in range(6)],
            "OUTCOME": [1.0] * 120,
            "TIMESTAMP": [1_700_000_000 + place for _ in range(20) for place in range(6)],
        }
    )
    place.write(pa.concat_tables([events, new]))
    store = place.run("grown", {"gate.force_publish": True, "train.epochs": 8})
    comparison = verdict_of(store)["champion"]
    own = champion.read_json("evaluate", "metrics.json")["full"]["ndcg@10"]
    assert comparison["unknown_targets"] == 20
    assert comparison["on_known"]["users"] == 100
    assert comparison["on_known"]["champion"] == pytest.approx(own)
    assert comparison["metrics"]["full"]["ndcg@10"] == pytest.approx(own * 100 / 120)


@pytest.mark.parametrize("gone", ["", "train/model.safetensors", "train/_SUCCESS"])
def test_a_champion_whose_weights_are_gone_is_reported(place: Any, gone: str) -> None:
    champion = Path(place.run("champion").root)
    if gone:
        (champion / gone).unlink()
    else:
        shutil.rmtree(champion)
    store = place.run("next")
    reasons = [reason for reason in verdict_of(store)["reasons"] if "champion champion" in reason]
    assert len(reasons) == 1
    assert "gone or unreadable" in reasons[0]
    assert verdict_of(store)["champion"] is None
    assert DeltaTable(place.table).version() == 1


def test_a_champion_that_can_not_be_read_now_is_not_gone(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = Path(place.run("champion").root)
    place.run("next", upto="evaluate")

    def cut_off(file: Path) -> str:
        if file.is_relative_to(champion):
            raise OSError(errno.EIO, "the connection was cut", str(file))
        return read(file)

    read = artifacts._sha256
    monkeypatch.setattr(artifacts, "_sha256", cut_off)
    with pytest.raises(OSError, match="the connection was cut"):
        run_task("gate", f"{place.store}/next")
    monkeypatch.undo()
    run_task("gate", f"{place.store}/next")  # the next try compares
    assert verdict_of(RunStore(f"{place.store}/next"))["champion"]["run_id"] == "champion"


@pytest.mark.parametrize(
    "damaged", ["evaluate/ranks.parquet", "split/items.npy", "split/users.parquet", "train/model.safetensors"]
)
@pytest.mark.parametrize("forced", [False, True])
def test_damaged_files_of_the_run_itself_are_no_fault_of_what_is_published(
    place: Any, damaged: str, forced: bool
) -> None:
    place.run("champion")
    store = place.run("next", {"gate.force_publish": forced}, upto="evaluate")
    (Path(store.root) / damaged).write_bytes(b"not what was written")
    task = damaged.partition("/")[0]
    with pytest.raises(Damaged, match=rf"next/{damaged}: damaged or missing: run `{task}` again"):
        run_task("gate", store.uri)
    assert store.marker("gate") is None
    run_task(task, store.uri)
    run_task("gate", store.uri)
    assert verdict_of(store)["champion"]["run_id"] == "champion"


FEW = {"gate.max_users_lost": 1.0}  # what was published elsewhere has one user


@pytest.mark.parametrize(("nights", "passes"), [(13, False), (14, True)])
def test_the_best_of_the_last_14_publishes_holds_against_a_slow_decline(
    place: Any, nights: int, passes: bool
) -> None:
    published_elsewhere(place, [0.99] + [0.01] * nights)
    refused = pytest.raises(GateRefused, match="beside the last 14 publishes")
    with nullcontext() if passes else refused:
        place.run("run", FEW, upto="gate")
    store = RunStore(f"{place.store}/run")
    assert rule(store, "recent")["outcome"] == ("passed" if passes else "refused")
    assert rule(store, "recent")["limit"] == pytest.approx(0.96 * (0.01 if passes else 0.99))
    assert verdict_of(store)["publish"] is passes


@pytest.mark.parametrize(("low", "passes"), [(0.01, True), (0.99, False)])
def test_a_lucky_night_holds_up_nobody(place: Any, low: float, passes: bool) -> None:
    published_elsewhere(place, [0.99], low)
    with nullcontext() if passes else pytest.raises(GateRefused, match="lower end"):
        place.run("run", FEW, upto="gate")


def test_the_same_night_again_has_the_same_verdict(place: Any) -> None:
    first, again = (rule(place.run(name, upto="gate"), "popularity") for name in ("first", "again"))
    assert first == again
    run_task("export", f"{place.store}/first")
    figure = rule(place.run("third", upto="gate"), "recent")["figure"]
    low, high = RunStore(f"{place.store}/third").read_json("evaluate", "metrics.json")["full"]["ci95"][
        "ndcg@10"
    ]
    assert figure == high > low


def test_a_forced_publish_is_recorded(place: Any, bad: dict[str, Any]) -> None:
    store = place.run("forced", {**bad, "gate.force_publish": True})
    verdict = verdict_of(store)
    assert (verdict["publish"], verdict["passed"], verdict["forced"]) == (True, False, True)
    assert next(open_tables(place.table).published()).metadata["forced"] is True


def test_force_is_not_recorded_where_it_was_not_needed(place: Any) -> None:
    store = place.run("good", {"gate.force_publish": True})
    assert verdict_of(store)["forced"] is False
    assert next(open_tables(place.table).published()).metadata["forced"] is False


def test_a_refused_run_passes_after_the_champion_was_rolled_back(place: Any) -> None:
    published_elsewhere(place, [0.01, 0.99])
    with pytest.raises(GateRefused):
        place.run("run", FEW)
    DeltaTable(place.table).restore(0)
    run_task("gate", f"{place.store}/run")
    assert run_task("export", f"{place.store}/run")["published"]


def test_a_backfill_is_compared_with_what_was_published_by_then(place: Any) -> None:
    place.run("january", {"as_of": "2024-01-01"})
    place.run("march", {"as_of": "2024-03-01"})
    store = place.run("february", {"as_of": "2024-02-01"})
    assert verdict_of(store)["champion"]["run_id"] == "january"
    assert place.run("april", {"as_of": "2024-04-01"}).marker("gate").summary["champion"] == "march"
    again = place.run("march-again", {"as_of": "2024-03-01"})  # a night that was published
    assert verdict_of(again) == verdict_of(RunStore(f"{place.store}/march"))
    assert verdict_of(again)["champion"]["run_id"] == "january"


def contents(store: RunStore) -> dict[Path, bytes]:
    """All files of a run, but for locks."""
    files = (file for file in Path(store.root).rglob("*") if file.is_file() and file.suffix != ".lock")
    return {file: file.read_bytes() for file in files}


def test_a_run_that_has_ended_keeps_its_verdict_whoever_is_the_champion_by_now(place: Any) -> None:
    for name in ("first", "second"):  # of one night
        place.run(name)
    assert verdict_of(RunStore(f"{place.store}/second"))["champion"]["run_id"] == "first"
    place.run("later", {"as_of": "2026-01-02"})
    before = [contents(RunStore(f"{place.store}/{name}")) for name in ("first", "second")]
    version = DeltaTable(place.table).version()
    assert [contents(place.run(name)) for name in ("first", "second")] == before
    assert DeltaTable(place.table).version() == version


def test_a_backfill_that_has_ended_publishes_nothing_after_a_rollback(place: Any) -> None:
    for month in (1, 2, 3):
        place.run(f"month-{month}", {"as_of": f"2024-0{month}-01"})
    past = place.run("past", {"as_of": "2024-02-15"})
    assert verdict_of(past)["champion"]["run_id"] == "month-2"
    before = contents(past)
    roll_back(place.table, run_id="month-1")
    version = DeltaTable(place.table).version()
    assert contents(place.run("past", {"as_of": "2024-02-15"})) == before
    assert DeltaTable(place.table).version() == version


def test_a_run_that_was_rolled_back_is_judged_anew_before_it_is_published_again(place: Any) -> None:
    for month in (1, 2, 3):
        place.run(f"month-{month}", {"as_of": f"2024-0{month}-01"})
    roll_back(place.table, run_id="month-1")
    again = place.run("month-3", {"as_of": "2024-03-01"})
    assert verdict_of(again)["champion"]["run_id"] == "month-1"
    assert next(open_tables(place.table).published()).run_id == "month-3"


def test_what_is_served_is_what_is_compared(place: Any) -> None:
    place.run("first", {"export.exclude_seen": False})
    store = place.run("run", {"export.exclude_seen": False})
    assert verdict_of(store)["protocol"] == "full_with_seen"
    metrics = store.read_json("evaluate", "metrics.json")
    assert rule(store, "popularity")["figure"] == metrics["full_with_seen"]["ndcg@10"]
    assert rule(store, "recent")["outcome"] == "passed"


def test_a_verdict_on_other_weights_does_not_publish(place: Any) -> None:
    store = place.run("run", upto="gate")
    place.start("run", {"train.random_state": 7})
    run_task("train", store.uri)
    with pytest.raises(BadSettings, match="evaluate"):
        run_task("gate", store.uri)
    with pytest.raises(BadSettings, match="other weights"):
        run_task("export", store.uri)
    for task in ("evaluate", "gate", "export"):
        run_task(task, store.uri)
    assert DeltaTable(place.table).version() == 0


# What would be served beside what is


def test_the_same_model_changes_nothing(place: Any) -> None:
    place.run("one")
    store = place.run("again")
    figures = {name: rule(store, name)["figure"] for name in ("users_lost", "overlap", "lists_changed")}
    assert figures == {"users_lost": 0, "overlap": 1, "lists_changed": 0}


def test_losing_most_users_is_refused_and_the_table_stays(place: Any, chains: Any) -> None:
    place.run("many")
    before = table_state(place)
    place.write(chains(users=40))
    with pytest.raises(GateRefused, match=r"users_lost: of 100 users of version 0 .* 0\.6000"):
        place.run("few", {"validate.drift_fail": None})
    assert table_state(place)[0] == before[0]


def test_lists_that_change_too_much_are_refused_by_what_the_export_would_write(place: Any) -> None:
    place.run("one")
    other = {"train.random_state": 5, "gate.min_overlap": 1.0}
    with pytest.raises(GateRefused, match="overlap: of 100 users' lists"):
        place.run("other", other)
    found = rule(RunStore(f"{place.store}/other"), "overlap")["figure"]
    old = open_tables(place.table).rows(0).read_all().to_pandas()
    place.run("other", {**other, "gate.min_overlap": 0.0})
    new = open_tables(place.table).rows(1).read_all().to_pandas()
    both = old.merge(new, on=["USER_ID", "ITEM_ID"])
    assert found == pytest.approx(len(both) / len(old))
    assert 0 < found < 1


@pytest.mark.parametrize("kind", ["", "parquet+"])
def test_a_table_that_can_not_be_read_holds_up_the_night_unless_it_is_forced(place: Any, kind: str) -> None:
    place.table = f"{kind}{place.table}"
    place.run("one")
    for file in (place.folder / "table").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(OSError, match=r"version 0, which is published, can't be read .*gate\.force_publish"):
        place.run("two", upto="gate")
    assert RunStore(f"{place.store}/two").marker("gate") is None  # the next try decides anew
    place.run("two", {"gate.force_publish": True})
    verdict = verdict_of(RunStore(f"{place.store}/two"))
    assert verdict["forced"] is True
    assert rule(RunStore(f"{place.store}/two"), "users_lost")["outcome"] == "refused"
    assert next(open_tables(place.table).published()).run_id == "two"


def test_a_past_night_whose_time_s_rows_are_pruned_passes_and_says_so(place: Any) -> None:
    for month in (1, 2, 3):
        place.run(f"run-{month}", {"as_of": f"2026-0{month}-01", "gate.force_publish": True})
    open_tables(place.table).prune(Keep(versions=2, days=0, now=datetime.now(UTC) + timedelta(days=9)))
    past = place.run("past", {"as_of": "2026-01-15"}, upto="gate")
    assert rule(past, "users_lost")["outcome"] == "passed"
    assert "its rows were pruned" in rule(past, "users_lost")["reason"]


def test_more_or_fewer_items_per_user_are_no_change(place: Any) -> None:
    place.run("ten")
    store = place.run("three", {"export.top_k": 3})
    assert rule(store, "overlap")["figure"] == 1


def test_the_worst_rule_comes_first_and_all_are_kept(place: Any) -> None:
    place.run("one")
    place.run("other", {"train.random_state": 5, "gate.ask_overlap": 1.0}, upto="gate")
    verdict = verdict_of(RunStore(f"{place.store}/other"))
    assert [each["outcome"] for each in verdict["rules"]][:2] == ["asks", "passed"]
    names = {each["rule"] for each in verdict["rules"]}
    assert names >= {"popularity", "champion", "recent", "coverage", "users_lost", "overlap", "lists_changed"}
    for each in verdict["rules"]:
        assert each["figure"] is not None
    assert verdict["reasons"][0] == verdict["asks"][0] == verdict["rules"][0]["reason"]


def test_what_has_fallen_to_nothing_asks_too(place: Any) -> None:
    place.run("first", {"as_of": "2023-11-15"})  # just after the events
    settings = {"gate.ask_drift": True, "validate.drift_fail": None, "as_of": "2026-02-01"}
    drift = rule(place.run("stopped", settings, upto="gate"), "drift")
    assert drift["outcome"] == "asks"
    assert "inf" in drift["reason"]
    assert drift["figure"] is None


def test_drift_can_ask(place: Any, chains: Any) -> None:
    place.run("one")
    place.write(chains(users=190))
    store = place.run("twice", {"gate.ask_drift": True, "as_of": "2026-02-01"}, upto="gate")
    assert rule(store, "drift")["outcome"] == "asks"
    assert "is usual (1.9" in rule(store, "drift")["reason"]
    place.run("asked-nobody", {"as_of": "2026-02-01"})
