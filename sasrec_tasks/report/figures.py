"""The figures of a run's report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from sasrec_tasks.item_age import age_name
from sasrec_tasks.report.content import Scorer
from sasrec_tasks.report.svg import Figure, Scale, ticks

KINDS = {
    "this run": "model",
    "champion": "champion",
    "recent popularity": "recent",
    "popularity": "popularity",
}
"""Scorer → class of its colour."""

SCORERS = {name: KINDS[name] for name in ("this run", "recent popularity", "popularity")}

SHARES = {"catalogue": "popularity", "recent events": "recent", "top 10 lists": "model"}
"""What items of an age have a share of → class of its colour."""

METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10", "mrr": "MRR", "loss": "loss"}


def training_curve(history: Mapping[str, Sequence[Any]], best: int, metric: str) -> Markup:
    """The validation metric over the epochs, the best epoch marked.

    Args:
        history: epoch and metric, of equal length.
        metric: "ndcg@10" or "loss".
    """
    known = [
        (int(epoch), float(value))
        for epoch, value in zip(history["epoch"], history["metric"], strict=True)
        if value is not None and math.isfinite(value)
    ]
    name = METRICS.get(metric, metric)
    top = dict(known).get(best)
    told = f", best {top:.4f} at epoch {best}" if top is not None else ""
    return _curve(
        "curve", f"Validation {name} by epoch", f"{len(known)} epochs{told}.", known, best if told else None
    )


def loss_curve(history: Mapping[str, Sequence[Any]]) -> Markup:
    """The training loss over the epochs."""
    known = [
        (int(epoch), float(value))
        for epoch, value in zip(history["epoch"], history["loss"], strict=True)
        if value is not None and math.isfinite(value)
    ]
    told = f" From {known[0][1]:.4f} to {known[-1][1]:.4f}." if known else ""
    return _curve("loss", "Training loss by epoch", f"{len(known)} epochs.{told}", known, None)


def _curve(
    name: str, title: str, description: str, points: Sequence[tuple[int, float]], best: int | None
) -> Markup:
    figure = Figure(name, title, description, width=480, height=222)
    left, right, top, bottom = 58, 466, 22, 196
    values = [value for _, value in points] or [0.0]
    marks = ticks(min(values), max(values))
    y = Scale(marks[0], marks[-1], bottom, top)
    last = max((epoch for epoch, _ in points), default=1)
    x = Scale(1, max(last, 2), left + 8, right - 8)
    figure.y_axis(y, marks, left, right)
    for epoch in _epochs(last):
        figure.add("text", "tick middle", str(epoch), x=x(epoch), y=bottom + 18)
    top_value = None if best is None else dict(points)[best]
    if best is not None and top_value is not None:
        figure.add("line", "best", x1=x(best), x2=x(best), y1=y(top_value), y2=bottom)
    figure.line("series model", [(x(epoch), y(value)) for epoch, value in points])
    if len(points) <= 60:
        for epoch, value in points:
            hint = f"epoch {epoch}: {value:.4f}"
            figure.add("circle", "mark model", cx=x(epoch), cy=y(value), r=2.5, hint=hint)
    if best is not None and top_value is not None:
        told = f"best {top_value:.4f}, epoch {best}"
        figure.add("circle", "mark best-mark", cx=x(best), cy=y(top_value), r=5.5, hint=told)
        side, shift = ("end", -9) if x(best) > (left + right) / 2 else ("start", 9)
        figure.add("text", f"label {side}", told, x=x(best) + shift, y=max(y(top_value) - 11, 13))
    return figure.markup()


def _epochs(last: int) -> list[int]:
    """Whole epochs to write under the axis."""
    inner = [int(tick) for tick in ticks(1, last, 5) if 1 < tick < last and tick == int(tick)]
    gap = last / 12
    return [1, *(tick for tick in inner if 1 + gap < tick < last - gap), *([last] if last > 1 else [])]


def intervals(scorers: Sequence[Scorer], protocol: str, metric: str) -> Markup:
    """A metric of every scorer with its 95% interval, one below the other."""
    rows = [
        (scorer.name, scorer.figures[protocol][metric]) for scorer in scorers if protocol in scorer.figures
    ]
    name = METRICS[metric]
    told = "; ".join(f"{who} {each.value:.4f} ({each.low:.4f} to {each.high:.4f})" for who, each in rows)
    figure = Figure(
        f"metric-{metric.replace('@', '-')}",
        f"{name} with 95% intervals",
        told,
        width=340,
        height=46 + 40 * len(rows),
    )
    marks = ticks(0, max((each.high for _, each in rows), default=1.0), 3)
    x = Scale(0, marks[-1], 12, 322)
    bottom = 20 + 40 * len(rows)
    for tick in marks:
        figure.add("line", "grid", x1=x(tick), x2=x(tick), y1=10, y2=bottom)
        figure.add("text", "tick middle", f"{tick:g}", x=x(tick), y=bottom + 17)
    for row, (who, each) in enumerate(rows):
        kind, y = KINDS[who], 40 + 40 * row
        figure.add("line", f"whisker {kind}", x1=x(each.low), x2=x(each.high), y1=y, y2=y)
        figure.add("circle", f"mark {kind}", cx=x(each.value), cy=y, r=5, hint=f"{who}: {each.value:.4f}")
        # on the side where there is room
        side = "start" if x(each.value) < 170 else "end"
        at = 12 if side == "start" else 322
        figure.add("text", f"label {side}", f"{who} {each.value:.4f}", x=at, y=y - 12)
    return figure.markup()


def by_history_length(buckets: Sequence[Mapping[str, Any]], protocol: str) -> Markup:
    """HR@10 of users with histories of similar length: the model's bar, and the baselines' beside it."""
    rows = [(length(bucket["history_length"]), _hit_rates(bucket, protocol)) for bucket in buckets]
    return _bars("lengths", "HR@10 by length of history", rows, SCORERS, "events")


def by_item_age(buckets: Sequence[Mapping[str, Any]], protocol: str) -> Markup:
    """HR@10 on test items of similar age: the model's bar, and the baselines' beside it; none without users."""
    rows = [(age_name(bucket["item_age_days"]), _hit_rates(bucket, protocol)) for bucket in buckets]
    return _bars("ages", "HR@10 by age of the test item", rows, SCORERS, "days")


def shares_by_item_age(buckets: Sequence[Mapping[str, Any]]) -> Markup:
    """The share, in %, that items of similar age have of the catalogue, of recent events and of what is recommended."""
    rows = [
        (age_name(bucket["item_age_days"]), [
            100 * bucket["share_of_catalogue"],
            100 * bucket["share_of_recent_events"],
            100 * bucket["share_of_recommendations"]["model"],
        ])
        for bucket in buckets
    ]  # fmt: skip
    return _bars("shares", "Shares by age of the item", rows, SHARES, "days", digits=1, unit="%")


def _hit_rates(bucket: Mapping[str, Any], protocol: str) -> list[float | None]:
    """HR@10 of each of SCORERS; None without users."""
    baselines = bucket["baselines"]
    of = (bucket, baselines["recent_popularity"], baselines["popularity"])
    return [figures[protocol] and figures[protocol]["hr@10"] for figures in of]


def _bars(
    name: str,
    title: str,
    rows: Sequence[tuple[str, Sequence[float | None]]],
    series: Mapping[str, str],
    what: str,
    *,
    digits: int = 4,
    unit: str = "",
) -> Markup:
    """A group of bars per row, one bar per series.

    Args:
        rows: label and a value per series; None has no bar.
        series: name → class of its colour.
        what: the labels count.
        digits, unit: of the values, where they are told.
    """
    hints = [
        [
            "" if value is None else f"{who} {value:.{digits}f}{unit}"
            for who, value in zip(series, values, strict=True)
        ]
        for _, values in rows
    ]
    told = "; ".join(
        f"{label} {what}: {', '.join(filter(None, own)) or 'none'}"
        for (label, _), own in zip(rows, hints, strict=True)
    )
    figure = Figure(name, title, told, width=480, height=226)
    left, right, top, bottom = 50, 470, 34, 200
    known = [value for _, values in rows for value in values if value is not None]
    marks = ticks(0, max(known, default=0.0) or 1.0)
    y = Scale(0, marks[-1], bottom, top)
    figure.y_axis(y, marks, left, right)
    slot = (right - left) / max(len(rows), 1)
    wide = min(slot * 0.8, 96) / len(series)
    for place, (label, values) in enumerate(rows):
        middle = left + slot * (place + 0.5)
        for bar, (kind, value) in enumerate(zip(series.values(), values, strict=True)):
            if value is None:
                continue
            figure.add(
                "rect",
                f"bar {kind}",
                x=middle + wide * (bar - len(series) / 2),
                y=y(value),
                width=max(wide - 1.5, 1),
                height=bottom - y(value),
                hint=f"{label} {what}: {hints[place][bar]}",
            )
        figure.add("text", "tick middle", label, x=middle, y=bottom + 18)
    legend(figure, list(series.items()), left, 16)
    return figure.markup()


def length(bounds: Sequence[int | None]) -> str:
    """A bucket of history lengths: 5–9, 200+."""
    least, most = bounds
    return f"{least}+" if most is None else f"{least}" if least == most else f"{least}–{most}"


def legend(figure: Figure, names: Sequence[tuple[str, str]], x: float, y: float) -> None:
    """Names beside their colour, in a row."""
    for name, kind in names:
        figure.add("rect", f"bar {kind}", x=x, y=y - 9, width=10, height=10)
        figure.add("text", "label start", name, x=x + 15, y=y)
        x += 34 + 7.2 * len(name)


def seconds_bar(seconds: float, longest: float) -> Markup:
    """A bar beside a number that says the same; nothing for a screen reader."""
    figure = Figure("bar", "", "", width=100, height=10)
    for child in list(figure.root):
        figure.root.remove(child)
    figure.root.attrib.pop("aria-labelledby")
    figure.root.attrib.pop("role")
    figure.root.set("aria-hidden", "true")
    figure.root.set("preserveAspectRatio", "none")
    share = seconds / longest if longest else 0.0
    figure.add("rect", "bar model", x=0.0, y=1.0, width=max(100 * share, 0.5), height=8.0)
    return figure.markup()
