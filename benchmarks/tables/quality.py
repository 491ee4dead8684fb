"""How good the recommendations are, as Markdown tables."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev

from tables.markdown import RESULTS, Report, read_report, reports, table

SHOWN = ("hr@10", "ndcg@10")


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
    report = read_report(folder / "warm_starts.json")
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


def _hit_rate(groups: list[Report]) -> str:
    """HR@10 of the users of several groups together."""
    users = sum(of["users"] for of in groups)
    return f"{sum(of['users'] * of['hr@10'] for of in groups) / users:.4f}" if users else ""


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
