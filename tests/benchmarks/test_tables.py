"""Tables say what the result files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tables
from hypothesis import given
from hypothesis import strategies as st


def figures(value: float) -> dict[str, Any]:
    block = dict.fromkeys(("hr@10", "ndcg@10"), value)
    return {**block, "ci95": {name: [value - 0.01, value + 0.01] for name in block}}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of results of one data set."""

    def write(name: str, content: dict[str, Any]) -> None:
        (tmp_path / name).write_text(json.dumps({"data": {"file": "d.parquet"}, **content}))

    for recipe, value in (("worse", 0.1), ("better", 0.2)):
        baseline = {"popularity": {"full": figures(0.05), "sampled": figures(0.5)}}
        metrics = {"full": figures(value), "sampled": figures(0.6), "baselines": baseline}
        training = {"minutes": 9.6, "epochs": 7}
        write(f"d.{recipe}.json", {"recipe": recipe, "curve": {}, "metrics": metrics, "training": training})
    common = {"setup": "soft", "full": figures(0.3), "sampled": figures(0.7)}
    write(
        "d.peers.json",
        {
            "rows": [
                {**common, "protocol": "honest", "model": "ours", "seed": 1, "seconds": 1234.4},
                {
                    **common,
                    "protocol": "honest",
                    "model": "ours",
                    "seed": 2,
                    "seconds": 1235.4,
                    "full": figures(0.5),
                },
                {**common, "protocol": "leaked", "model": "peer", "seed": 1, "version": "0.1"},
            ]
        },
    )
    columns = ("validation ndcg@10", "full ndcg@10", "sampled ndcg@10")
    write(
        "d.ablation.json",
        {
            "rows": {
                name: {
                    "mean": dict.fromkeys(columns, mean),
                    "spread": dict.fromkeys(columns, 0.001),
                    "runs": {"1": {}, "2": {}},
                }
                for name, mean in (("recipe", 0.2), ("less", 0.15))
            }
        },
    )
    return tmp_path


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_recipes_are_best_first_with_popularity_beside(results: Path) -> None:
    rows = cells(tables.recipes(results))
    assert [row[1].split("]")[0].strip("[") for row in rows] == ["better", "worse", "popularity"]
    assert rows[0][0] == "d"
    assert rows[0][2] == "10 min, 7 epochs"
    assert rows[0][3] == "0.2000 (0.190–0.210)"


def test_leaks_are_marked(results: Path) -> None:
    rows = cells(tables.peers(results))
    assert [row[2:4] for row in rows] == [["honest", "ours"], ["*leaked*", "peer 0.1"]]
    assert [row[4] for row in rows] == ["2", "1"]


def test_several_seeds_are_a_mean_and_a_spread(results: Path) -> None:
    ours, peer = cells(tables.peers(results))
    assert ours[5] == "0.4000 ± 0.1414"
    assert ours[7] == "0.7000 ± 0.0000"
    assert ours[-1] == "1,235"
    assert peer[5] == "0.3000 (0.290–0.310)"


def test_an_ablation_is_told_as_a_difference_with_its_spread(results: Path) -> None:
    rows = cells(tables.ablation(results))
    assert rows[0][1:5] == ["recipe", "2", "0.2000 ± 0.0010", ""]
    assert rows[1][4] == "−0.0500"


def test_the_committed_results_can_be_told() -> None:
    for render in (tables.recipes, tables.peers, tables.ablation):
        widths = {line.count("|") for line in render().splitlines()}
        assert len(widths) == 1


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("start", [0.0, 1e5])
def test_the_slope_is_the_exponent_of_growth_whatever_a_process_starts_with(
    exponent: float, start: float
) -> None:
    sizes = [10.0**n for n in range(3, 8)]
    assert tables.slope(sizes, [start + 7 * x**exponent for x in sizes]) == pytest.approx(exponent, abs=0.06)


@given(st.lists(st.integers(1, 1000), min_size=4, max_size=6, unique=True), st.floats(0.01, 10))
def test_a_line_has_slope_1_wherever_its_sizes_lie(sizes: list[int], start: float) -> None:
    sizes = sorted(sizes)
    found = tables.slope(sizes, [start + x for x in sizes])
    assert found is None or found == pytest.approx(1, abs=0.01)


def test_too_few_points_and_what_hardly_grows_have_no_slope() -> None:
    assert tables.slope([], []) is tables.slope([1], [1.0]) is None
    assert tables.slope([1, 2, 3], [1.0, 2, 3]) is None
    assert tables.slope([1, 2, 3, 4], [1.0, 1.05, 1.1, 1.15]) is None
    assert tables.slope([1, 2, 3, 4], [1.0, 5.0, 2.0, 3.0]) is None


def test_a_speed_is_told_with_its_mark_quality_and_memory(tmp_path: Path) -> None:
    row = {"work": "w", "peer_s": 40.0, "ours_s": 4.0, "ratio": 10.0, "mark": "≥ 8×", "peak_rss_mb": 1234}
    rows = [
        {
            **row,
            "stage": "train",
            "peer": "other 1.0",
            "quality_ours": 0.2,
            "quality_peer": 0.1,
            "limit_s": 1.5,
        },
        {
            **row,
            "stage": "dag",
            "peer": "tasks",
            "quality_ours": None,
            "quality_peer": None,
            "orchestration_s": 9.6,
        },
    ]
    (tmp_path / "speed.json").write_text(json.dumps({"rows": rows}))
    lines = tables.speed(tmp_path).splitlines()
    assert lines[2] == "| train | w | other 1.0 | 4 | 40 | 1.5 | **10** | ≥ 8× | 0.2000 / 0.1000 | 1,234 |"
    assert "**10 s more**" in lines[3]


def test_growth_is_told_at_the_largest_size(tmp_path: Path) -> None:
    points = [
        {"size": {"events": n}, "tasks": {"split": {"seconds": n / 1e6, "peak_rss_mb": 500 + n // 10**5}}}
        for n in (10**4, 10**5, 10**6, 10**7)
    ]
    (tmp_path / "scaling.json").write_text(json.dumps({"axes": {"events": points, "items": []}}))
    row = "| split | 10,000,000 | 10 | 3,600 million | 600 | 1.00 |  |"
    assert tables.growth(tmp_path).splitlines()[2] == row
    (tmp_path / "scaling.json").write_text(json.dumps({"axes": {"events": points}}))
    assert tables.growth_of_memory(tmp_path).splitlines()[2] == "| split | 500 → 600 (0.98) |"


def test_without_results_tables_are_empty(tmp_path: Path) -> None:
    assert {
        len(of(tmp_path).splitlines())
        for of in (tables.speed, tables.growth, tables.growth_of_memory, tables.gpu)
    } == {2}


def test_a_session_is_shown_as_it_was_typed(tmp_path: Path) -> None:
    typed = [
        {"kind": "python", "typed": "print(1)", "answer": "1"},
        {"kind": "shell", "typed": "true", "answer": "yes"},
    ]
    assert tables.session(tmp_path) == tables.nights(tmp_path) == ""  # nothing measured yet
    (tmp_path / "simulate.json").write_text(json.dumps({"session": typed}))
    shown = tables.session(tmp_path)
    assert "```python\nprint(1)\n```\n\n```\n1\n```" in shown
    assert "```console\n$ true\nyes\n```" in shown


def test_the_machine_and_the_days_of_the_speed_are_told(tmp_path: Path) -> None:
    assert tables.speed_machine(tmp_path) == ""
    rows = [{"date": "2026-01-02", "took_s": 1500}, {"date": "2026-01-01", "took_s": 900}]
    told = "2026-01-01 to 2026-01-02, in 40 minutes", "2026-01-02, in 25 minutes"
    for chosen, days in zip((rows, rows[:1]), told, strict=True):
        (tmp_path / "speed.json").write_text(json.dumps({"machine": "two cores", "rows": chosen}))
        assert tables.speed_machine(tmp_path) == f"Measured on two cores; {days}."


def test_warm_starts_say_what_was_not_reached(tmp_path: Path) -> None:
    def night(number: int, warm: float | None) -> dict[str, Any]:
        figures = {"cold": (4.0, 0.19), "warm": (warm, 0.2)}
        ways = {start: {"seconds_to_target": s, "test": test} for start, (s, test) in figures.items()}
        return {"night": number, "target": 0.2, **ways}

    report = {
        "share_of_time": {"median": 0.4, "nights": [0.25, None]},
        "nights": [night(0, 4.0), night(1, 1.0), night(2, None)],
    }
    (tmp_path / "warm_starts.json").write_text(json.dumps(report))
    rows = tables.warm_starts(tmp_path).splitlines()[2:]
    assert rows[0] == "| 1 | 0.2000 | 4.0 | 1.0 | 25% | 0.1900 | 0.2000 |"
    assert "| not reached |  |" in rows[1]
    assert "**40%**" in rows[2]


def test_a_narrowed_export_stands_beside_a_whole_one(tmp_path: Path) -> None:
    report = {"seconds": {"all": 2.0, "half": 2.2}, "ratio": {"all": 1.0, "half": 1.1}}
    (tmp_path / "eligible.json").write_text(json.dumps(report))
    assert tables.eligible(tmp_path).splitlines()[2:] == ["| all | 2.00 | 1.00 |", "| half | 2.20 | 1.10 |"]
    assert len(tables.eligible(tmp_path / "none").splitlines()) == 2


def test_what_a_cluster_survives_is_told_by_fault(tmp_path: Path) -> None:
    assert tables.scale_faults(tmp_path) == ""
    faults = [
        {"fault": "a node is killed", "task": "split", "ended": "equal", "seconds": 20.0},
        {"fault": "a node is killed", "task": "export", "ended": "equal", "seconds": 31.5},
        {"fault": "no room", "task": "evaluate", "ended": "told", "seconds": 6.0},
    ]
    counts = {"faults_tried": 3, "ended_equal": 2, "ended_told": 1, "hangs": 0}
    report = {"date": "2026-01-02", "cores": 2, **counts, "faults": faults}
    (tmp_path / "scale.json").write_text(json.dumps(report))
    shown = tables.scale_faults(tmp_path)
    assert "| a node is killed | `split`, `export` | 2 | with the equal result | 31.5 |" in shown
    assert "| no room | `evaluate` | 1 | as it should | 6 |" in shown
    assert "3 faults, 2 ended with the equal result" in shown


def test_what_several_workers_take_is_told(tmp_path: Path) -> None:
    assert tables.scale_out(tmp_path) == ""
    found = {
        "size": {"events": 2000, "users": 30, "items": 40},
        "local": [4.0, 3.0, 5.0],
        "workers": {"1": [9.0], "2": [6.0]},
        "fixed_s": 2.0,
    }
    (tmp_path / "scale_out.json").write_text(json.dumps({"tasks": {"split": found, "export": found}}))
    shown = tables.scale_out(tmp_path)
    assert "| task | of | no cluster, s | 1 worker, s | 2 workers, s | of which fixed, s |" in shown
    assert "| `split` | 2,000 events | 4 | 9 | 6 | 2 |" in shown
    assert "| `export` | 30 users, 40 items | 4 | 9 | 6 | 2 |" in shown


def test_larger_data_are_forecast_in_proportion(tmp_path: Path) -> None:
    assert tables.forecast(tmp_path) == tables.rates(tmp_path) == tables.one_run(tmp_path) == ""
    task = {"seconds": 100.0, "peak_rss_mb": 1000, "bytes": 10**9}
    report = {
        "cores": 2,
        "size": {"events": 10**7, "users": 10**6, "items": 10**5},
        "settings": {"evaluate.test_users": 1000},
        "tasks": dict.fromkeys(("ingest", "validate", "split", "train", "evaluate", "gate", "export"), task),
    }
    (tmp_path / "scaling.one.json").write_text(json.dumps(report))
    assert "| `export` | 100 | 1,000 | 1,000 |" in tables.one_run(tmp_path)
    assert "| `split` | 0.05 million events | 100 an event |" in tables.rates(tmp_path)
    shown = tables.forecast(tmp_path)
    assert "10 million users, 0.5 billion events" in shown
    hours = 200 / 3600  # of two cores
    assert f"| export | {10 * hours:.3g} | {100 * hours:.3g} | {1000 * hours:.3g} |" in shown
    assert f"| train, 10 epochs | {500 * hours:.3g} |" in shown
    assert f"| evaluate, 1,000 test users | {hours:.3g} | {hours:.3g} | {hours:.3g} |" in shown
