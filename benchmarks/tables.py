"""The results of `results/` as Markdown tables, for the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

SHOWN = ("hr@10", "ndcg@10")
RESULTS = Path(__file__).parent / "results"

Report = dict[str, Any]


def reports(suffix: str, folder: Path = RESULTS) -> Iterator[Report]:
    """The reports whose file is named `<data>.<suffix>.json`, by name."""
    for file in sorted(folder.glob(f"*.{suffix}.json")):
        yield json.loads(file.read_text(encoding="utf-8"))


def recipes(folder: Path = RESULTS) -> str:
    """A row per recipe and data set, popularity beside, best first."""
    head = ["data", "recipe", "training", "full HR@10", "full NDCG@10", "sampled HR@10", "sampled NDCG@10"]
    by_data: dict[str, list[Report]] = {}
    for report in reports("*", folder):
        if "recipe" in report and "curve" in report:
            by_data.setdefault(report["data"]["file"], []).append(report)
    rows = []
    for file, found in by_data.items():
        for report in sorted(found, key=lambda report: -report["metrics"]["full"]["ndcg@10"]):
            training = report["training"]
            link = f"[{report['recipe']}](../benchmarks/recipes/{report['recipe']}.yaml)"
            about = f"{training['minutes']:.0f} min, {training['epochs']} epochs"
            rows.append([_data(file), link, about, *_figures(report["metrics"])])
        popular = found[0]["metrics"]["baselines"]["popularity"]
        rows.append([_data(file), "popularity", "", *_figures(popular)])
    return table(head, rows)


def peers(folder: Path = RESULTS) -> str:
    """A row per set-up, protocol and model: with several seeds, mean ± standard deviation over them."""
    head = [
        "data",
        "set-up",
        "protocol",
        "model",
        "seeds",
        "full HR@10",
        "full NDCG@10",
        "sampled HR@10",
        "sampled NDCG@10",
        "seconds",
    ]
    rows = []
    for report in reports("peers", folder):
        of_seeds: dict[tuple[str, ...], list[Report]] = {}
        for row in report["rows"]:
            name, comma, what = row["model"].partition(",")
            if name != "ours" and "version" in row:
                name += f" {row['version']}"
            name += comma + what
            protocol = "*leaked*" if row["protocol"] == "leaked" else row["protocol"]
            of_seeds.setdefault((row["setup"], protocol, name), []).append(row)
        for about, runs in of_seeds.items():
            figures = _figures(runs[0]) if len(runs) == 1 else _means(runs)
            seconds = [run["seconds"] for run in runs if "seconds" in run]
            mean = f"{fmean(seconds):,.0f}" if seconds else ""
            rows.append([_data(report["data"]["file"]), *about, str(len(runs)), *figures, mean])
    return table(head, rows)


def ablation(folder: Path = RESULTS) -> str:
    """A row per variant and data set: validation and test figures, and the difference to the recipe."""
    head = [
        "data",
        "variant",
        "seeds",
        "validation NDCG@10",
        "difference",
        "test full NDCG@10",
        "test sampled NDCG@10",
    ]
    rows = []
    for report in reports("ablation", folder):
        recipe = report["rows"]["recipe"]["mean"]["validation ndcg@10"]
        for name, row in report["rows"].items():
            mean, spread = row["mean"], row["spread"]

            def figure(metric: str, mean: Report = mean, spread: Report = spread) -> str:
                several = f" ± {spread[metric]:.4f}" if spread[metric] else ""
                return f"{mean[metric]:.4f}{several}"

            difference = mean["validation ndcg@10"] - recipe
            rows.append(
                [
                    _data(report["data"]["file"]),
                    name,
                    str(len(row["runs"])),
                    figure("validation ndcg@10"),
                    "" if name == "recipe" else f"{difference:+.4f}".replace("-", "−"),
                    figure("full ndcg@10"),
                    figure("sampled ndcg@10"),
                ]
            )
    return table(head, rows)


def speed_machine(folder: Path = RESULTS) -> str:
    """On what and when the speed was measured."""
    report = _report(folder / "speed.json")
    dates = sorted({row["date"] for row in report.get("rows", [])})
    return (
        f"Measured on {report['machine']}; {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}."
        if dates
        else ""
    )


def speed(folder: Path = RESULTS) -> str:
    """A row per stage and peer: seconds of both, their ratio beside its mark, quality, memory."""
    file = folder / "speed.json"
    head = [
        "stage",
        "work",
        "beside",
        "ours, s",
        "peer's, s",
        "limit, s",
        "ratio",
        "mark",
        "NDCG@10, ours / peer's",
        "peak MB",
    ]
    rows = []
    for row in _rows(file):
        ratio = f"{row['orchestration_s']:.0f} s more" if "orchestration_s" in row else f"{row['ratio']:.2g}"
        rows.append(
            [
                row["stage"],
                row["work"],
                row["peer"],
                _seconds(row["ours_s"]),
                _seconds(row["peer_s"]),
                _seconds(row["limit_s"]) if "limit_s" in row else "",
                f"**{ratio}**",
                row["mark"],
                _quality(row),
                f"{row['peak_rss_mb']:,}" if row["peak_rss_mb"] else "",
            ]
        )
    return table(head, rows)


def gpu(folder: Path = RESULTS) -> str:
    """A row per stage and peer on a GPU: seconds of both, of one and of all runs, and quality."""
    file = folder / "gpu.json"
    head = [
        "stage",
        "work",
        "beside",
        "ours, s",
        "peer's, s",
        "ratio",
        "all epochs, ours / peer's, s",
        "NDCG@10, ours / peer's",
    ]
    rows = []
    for row in _rows(file):
        rows.append(
            [
                row["stage"],
                row["work"],
                row["peer"] or "",
                _seconds(row["ours_s"]),
                _seconds(row["peer_s"]) if row["peer"] else "",
                f"**{row['ratio']:.2g}**" if row["peer"] else "",
                f"{row['all_s']['ours']:.1f} / {row['all_s']['peer']:.1f}" if row["peer"] else "",
                _quality(row),
            ]
        )
    return table(head, rows)


def new_items(folder: Path = RESULTS) -> str:
    """A row per number of places for new items: what of the lists is new, and what the test items say."""
    head = [
        "places",
        "of the recommendations",
        "new items in a list",
        "users with one",
        "HR@10",
        "NDCG@10",
        "HR@10 of new items",
        "HR@10 of older ones",
    ]
    file = folder / "new_items.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"slots": {}}
    rows = []
    for slots, of in report["slots"].items():
        by_age = [each for name, each in of["test"].items() if name != "all"]
        young = len(
            [each for each in report["by_item_age"] if each["users"] and each["item_age_days"][0] < 7]
        )
        rows.append(
            [
                "none" if slots == "0" else slots,
                f"{of['share_of_recommendations']:.1%}",
                f"{of['new_items_in_a_list']} of {report['new_items']}",
                f"{of['users_with_a_new_item'] / of['users']:.0%}",
                *(_figure(of["test"]["all"], metric) for metric in SHOWN),
                *(_hit_rate(part) for part in (by_age[:young], by_age[young:])),
            ]
        )
    return table(head, rows)


def warm_starts(folder: Path = RESULTS) -> str:
    """A row per night: the cold start's best validation figure, seconds to it, and the test items of both."""
    head = [
        "night",
        "cold start's best validation NDCG@10",
        "seconds to it, cold",
        "warm",
        "share",
        "test NDCG@10, cold",
        "warm",
    ]
    rows = []
    report = _report(folder / "warm_starts.json")
    shares = report.get("share_of_time", {}).get("nights", [])
    for night, share in zip(report.get("nights", [])[1:], shares, strict=True):
        seconds = [night[start]["seconds_to_target"] for start in ("cold", "warm")]
        rows.append(
            [
                str(night["night"]),
                f"{night['target']:.4f}",
                *("not reached" if each is None else f"{each:.1f}" for each in seconds),
                "" if share is None else f"{share:.0%}",
                *(f"{night[start]['test']:.4f}" for start in ("cold", "warm")),
            ]
        )
    if rows:
        rows.append(["median", "", "", "", f"**{report['share_of_time']['median']:.0%}**", "", ""])
    return table(head, rows)


def eligible(folder: Path = RESULTS) -> str:
    """A row per way to narrow an export: seconds, and their ratio to those of a whole one."""
    report = _report(folder / "eligible.json")
    rows = [
        [way, f"{seconds:.2f}", f"{report['ratio'][way]:.2f}"]
        for way, seconds in report.get("seconds", {}).items()
    ]
    return table(["export of", "seconds", "ratio"], rows)


def _hit_rate(groups: list[Report]) -> str:
    """HR@10 of the users of several groups together."""
    users = sum(of["users"] for of in groups)
    return f"{sum(of['users'] * of['hr@10'] for of in groups) / users:.4f}" if users else ""


def _rows(file: Path) -> list[dict[str, Any]]:
    """What a benchmark has measured so far."""
    rows: list[dict[str, Any]] = _report(file).get("rows", [])
    return rows


def _quality(row: dict[str, Any]) -> str:
    figures = (row["quality_ours"], row["quality_peer"])
    return "" if None in figures else " / ".join(f"{figure:.4f}" for figure in figures)


def growth(folder: Path = RESULTS) -> str:
    """A row per task: seconds, memory and events an hour at the largest size, and the slope over each axis."""
    axes = _report(folder / "scaling.json").get("axes", {})
    head = ["task", "events", "seconds", "events an hour", "peak MB"]
    rows = []
    for task in _tasks(axes):
        events, largest = _of_task(axes["events"], "events", task)[-1]
        rows.append(
            [
                task,
                f"{events:,}",
                _seconds(largest["seconds"]),
                f"{events / largest['seconds'] * 3.6e-3:,.0f} million",
                f"{largest['peak_rss_mb']:,}",
                *(_growing(axes[axis], axis, task, "seconds") for axis in axes),
            ]
        )
    return table([*head, *(f"slope over {axis}" for axis in axes)], rows)


def growth_of_memory(folder: Path = RESULTS) -> str:
    """A row per task: megabytes at the smallest and the largest size of each axis, and the slope."""
    axes = _report(folder / "scaling.json").get("axes", {})
    rows = []
    for task in _tasks(axes):
        cells = []
        for axis, points in axes.items():
            (_, first), *_, (_, last) = _of_task(points, axis, task)
            found = _growing(points, axis, task, "peak_rss_mb")
            cells.append(
                f"{first['peak_rss_mb']:,} → {last['peak_rss_mb']:,}" + (f" ({found})" if found else "")
            )
        rows.append([task, *cells])
    return table(["task", *(f"over {axis}" for axis in axes)], rows)


def _tasks(axes: Report) -> list[str]:
    return list(dict.fromkeys(name for point in axes.get("events", []) for name in point["tasks"]))


def _of_task(points: list[Report], axis: str, task: str) -> list[tuple[int, Report]]:
    return [(point["size"][axis], point["tasks"][task]) for point in points if task in point["tasks"]]


def _growing(points: list[Report], axis: str, task: str, what: str) -> str:
    known = _of_task(points, axis, task)
    found = slope([size for size, _ in known], [of[what] for _, of in known])
    return "" if found is None else f"{found:.2f}"


def lookup(folder: Path = RESULTS) -> str:
    """A row per kind of table and way to read it: median and 95th percentile, and what is touched."""
    head = [
        "table",
        "read by",
        "first in a process, ms",
        "opened anew, ms",
        "open, ms",
        "files touched",
        "row groups touched",
    ]
    rows = []
    for row in _rows(folder / "lookup.json"):
        states = (row["first"], row["opened"], row["warm"])
        touched = ("files", "row_groups")
        rows.append(
            [
                row["kind"],
                row["way"],
                *(f"{state['median']:.3g} / {state['95th percentile']:.3g}" for state in states),
                *(f"{row[f'{of}_touched']} of {row[of]}" if of in row else "" for of in touched),
            ]
        )
    return table(head, rows)


def slope(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Exponent of growth of what comes on top of the smallest size's value, over what comes on top of its size.

    So neither what a process needs to start with nor the part that does not depend on the size counts as growth.
    Beyond the last three, points of less than a hundredth of the last one's are left out, as noise. None: the last
    is less than a fifth more than the first, which is no growth, or there are too few points for a line.
    """
    if len(sizes) < 2 or values[-1] < 1.2 * values[0]:
        return None
    more = [(size - sizes[0], value - values[0]) for size, value in zip(sizes, values, strict=True)]
    noise = more[-1][1] / 100
    kept = [(size, value) for size, value in more[1:-3] if value > noise] + [
        (size, value) for size, value in more[1:][-3:] if value > 0
    ]
    if len(kept) < 3:
        return None
    x, y = np.log(np.array(kept)).T
    return float(np.polyfit(x, y, 1)[0])


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _data(file: str) -> str:
    return file.removesuffix(".parquet")


def _means(runs: list[Report]) -> list[str]:
    values = [[run[protocol][metric] for run in runs] for protocol in ("full", "sampled") for metric in SHOWN]
    return [f"{fmean(column):.4f} ± {stdev(column):.4f}" for column in values]


def _figures(metrics: Report) -> list[str]:
    return [_figure(metrics[protocol], metric) for protocol in ("full", "sampled") for metric in SHOWN]


def _figure(figures: Report, metric: str) -> str:
    low, high = figures["ci95"][metric]
    return f"{figures[metric]:.4f} ({low:.3f}–{high:.3f})"


def _report(file: Path) -> Report:
    """A report; empty if it has not been made."""
    found: Report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def session(folder: Path = RESULTS) -> str:
    """What was typed at the simulation's table, and what it answered."""
    blocks = []
    for each in _report(folder / "simulate.json").get("session", []):
        prompt = "$ " if each["kind"] == "shell" else ""
        language = "python" if each["kind"] == "python" else "console"
        if language == "python":
            blocks.append(f"```python\n{each['typed']}\n```\n\n```\n{each['answer']}\n```")
        else:
            blocks.append(f"```{language}\n{prompt}{each['typed']}\n{each['answer']}\n```")
    return "\n\n".join(blocks)


def nights(folder: Path = RESULTS) -> str:
    """What the simulation's nights came to, in a sentence."""
    report = _report(folder / "simulate.json")
    if not report:
        return ""
    reader = report["reader"]
    return (
        f"{report['nights']} nights in {report['seconds'] / 60:.0f} minutes ({report['date']}, "
        f"{report['machine']}): {report['published']} publishes, {len(report['refused'])} refusals; "
        f"the consumer read the table {reader['reads']:,} times and saw {reader['versions']} versions, "
        f"{len(reader['errors'])} errors, {len(reader['torn'])} half tables, {len(reader['stale'])} stale ones."
    )
