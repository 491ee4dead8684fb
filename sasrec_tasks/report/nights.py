"""What a report tells of the nights of a table: its runs, what became of each, and how good it was."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from sasrec_tasks import runs
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.report.svg import Figure, Scale, ticks

log = logging.getLogger(__name__)

SHOWN = 100
"""Newest runs on the page."""

COLUMNS = (
    "RUN_ID",
    "AS_OF",
    "ENDING",
    "TASK",
    "REASON",
    "VERSION",
    "ROWS",
    "USERS",
    "NDCG",
    "NDCG_LOW",
    "NDCG_HIGH",
    "HR",
    "POPULARITY_NDCG",
    "SECONDS",
    "PEAK_MB",
)

ENDINGS = ("published", runs.ROLLED_BACK, "superseded", "refused", "failed")


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run that a scheduler knows and the table of runs does not: at work, or ended without a reason."""

    run_id: str
    at: datetime | None
    state: str


@dataclass(frozen=True, kw_only=True)
class NightsReport:
    """The newest runs of a table, oldest first."""

    name: str  # of the DAG, or the table
    table: str
    nights: Sequence[Mapping[str, Any]]
    unfinished: Sequence[Unfinished] = ()
    more: int = 0  # older runs that are not shown
    problem: str = ""  # why the nights can't be shown

    @property
    def endings(self) -> Mapping[str, int]:
        """How many ended in which way."""
        counts = Counter(night["ENDING"] for night in self.nights)
        return {ending: counts[ending] for ending in ENDINGS if counts[ending]}

    @property
    def newest(self) -> Mapping[str, Any] | None:
        """The run that was published last, without what was rolled back."""
        return next((night for night in reversed(self.nights) if night["ENDING"] == "published"), None)


def read(name: str, table: str, store: str, unfinished: Sequence[Unfinished] = ()) -> NightsReport:
    """The nights of a table.

    Args:
        store: where its runs are kept.

    Raises:
        BadSettings, OSError: the table of runs can't be read.
    """
    found = runs.read(runs.url_of(table, store), COLUMNS)
    known = set(found["RUN_ID"].to_pylist())
    if len(found):
        try:
            found = runs.with_rollbacks(found, table)
        except (BadSettings, OSError) as error:  # a web server may not reach a database that tasks reach
            log.warning("nights of %s: what was rolled back is not shown: %s", name, error)
    return NightsReport(
        name=name,
        table=table,
        nights=found.slice(max(len(found) - SHOWN, 0)).to_pylist(),
        unfinished=[each for each in unfinished if each.run_id not in known],
        more=max(len(found) - SHOWN, 0),
    )


def quality(nights: Sequence[Mapping[str, Any]]) -> Markup:
    """NDCG@10 over the nights with its 95% interval beside popularity's; a mark for what became of each."""
    rated = [night for night in nights if night["NDCG"] is not None]
    counts = Counter(night["ENDING"] for night in nights)
    told = ", ".join(f"{counts[ending]} {ending}" for ending in ENDINGS if counts[ending])
    figure = Figure("quality", "NDCG@10 by night", f"{told}.", width=520, height=252)
    left, right, top, bottom = 50, 512, 40, 226
    marks = ticks(0, max((night["NDCG_HIGH"] for night in rated), default=1.0))
    y = Scale(0, marks[-1], bottom, top)
    x = _time(nights, left + 12, right - 12)
    figure.y_axis(y, marks, left, right)
    _dates(figure, nights, x, bottom + 20)
    published = [night for night in rated if night["ENDING"] == "published"]
    figure.area(
        "band model",
        [(x(_at(night)), y(night["NDCG_HIGH"])) for night in published],
        [(x(_at(night)), y(night["NDCG_LOW"])) for night in published],
    )
    popular = [night for night in rated if night["POPULARITY_NDCG"] is not None]
    figure.line(
        "series popularity dashed", [(x(_at(night)), y(night["POPULARITY_NDCG"])) for night in popular]
    )
    figure.line("series model", [(x(_at(night)), y(night["NDCG"])) for night in published])
    for night in nights:
        _mark(figure, night["ENDING"], x(_at(night)), y(night["NDCG"] or 0.0), _told(night))
    at = float(left)
    for ending in ENDINGS:
        if counts[ending]:
            _mark(figure, ending, at + 6, 15, "")
            figure.add("text", "label start", ending, x=at + 17, y=19)
            at += 38 + 7.2 * len(ending)
    if popular:
        figure.line("series popularity dashed", [(at, 15), (at + 20, 15)])
        figure.add("text", "label start", "popularity", x=at + 26, y=19)
    return figure.markup()


def seconds(nights: Sequence[Mapping[str, Any]]) -> Markup:
    """Seconds of all tasks over the nights."""
    return _bars("seconds", "Seconds of all tasks by night", nights, "SECONDS")


def rows(nights: Sequence[Mapping[str, Any]]) -> Markup:
    """Rows that were read over the nights."""
    return _bars("rows", "Rows read by night", nights, "ROWS")


def _bars(name: str, title: str, nights: Sequence[Mapping[str, Any]], column: str) -> Markup:
    known = [night for night in nights if night[column] is not None]
    values = [night[column] for night in known]
    told = f"From {min(values):,.6g} to {max(values):,.6g}." if values else "None is known."
    figure = Figure(name, title, told, width=480, height=164)
    left, right, top, bottom = 58, 470, 14, 136
    marks = ticks(0, max(values, default=0) or 1, 3)
    y = Scale(0, marks[-1], bottom, top)
    x = _time(nights, left + 12, right - 12)
    figure.y_axis(y, marks, left, right)
    _dates(figure, nights, x, bottom + 20)
    wide = min(14.0, max((right - left) / max(len(nights), 1) * 0.7, 1.5))
    for night in known:
        figure.add(
            "rect",
            f"bar {_kind(night['ENDING'])}",
            x=x(_at(night)) - wide / 2,
            y=y(night[column]),
            width=wide,
            height=bottom - y(night[column]),
            hint=f"{night['AS_OF']:%Y-%m-%d}: {night[column]:,.6g}",
        )
    return figure.markup()


def _at(night: Mapping[str, Any]) -> float:
    moment: datetime = night["AS_OF"]
    return moment.timestamp()


def _time(nights: Sequence[Mapping[str, Any]], start: float, end: float) -> Scale:
    moments = [_at(night) for night in nights] or [0.0]
    low, high = min(moments), max(moments)
    return Scale(low, high, start, end) if high > low else Scale(low - 1, low + 1, start, end)


def _dates(figure: Figure, nights: Sequence[Mapping[str, Any]], x: Scale, y: float) -> None:
    """The first, the last and a few days between."""
    days = {f"{night['AS_OF']:%Y-%m-%d}": x(_at(night)) for night in nights}
    if not days:
        return
    last, last_x = list(days.items())[-1]
    room = 104.0
    at = -room
    for day, place in days.items():
        if place - at >= room and (day == last or last_x - place >= room):
            at = place
            side = "start" if place < 90 else "end" if place > figure.width - 60 else "middle"
            figure.add(
                "text",
                f"tick {side}",
                day,
                x=place - (12 if side == "start" else -12 if side == "end" else 0),
                y=y,
            )


def _told(night: Mapping[str, Any]) -> str:
    figure = "" if night["NDCG"] is None else f", NDCG@10 {night['NDCG']:.4f}"
    version = "" if night["VERSION"] is None else f" as version {night['VERSION']}"
    return f"{night['AS_OF']:%Y-%m-%d %H:%M}: {night['ENDING']}{version}{figure}"


def _kind(ending: str) -> str:
    """An ending as one class of the style sheet."""
    return ending.replace(" ", "-")


def _mark(figure: Figure, ending: str, x: float, y: float, hint: str) -> None:
    """Endings differ in form, not in colour alone."""
    kind = f"mark {_kind(ending)}"
    if ending == "published":
        figure.add("circle", kind, cx=x, cy=y, r=4, hint=hint)
    elif ending == runs.ROLLED_BACK:
        figure.add("path", kind, d=f"M{x - 5:.1f} {y - 4:.1f} h10 l-5 9 z", hint=hint)
    elif ending == "superseded":
        figure.add("path", kind, d=f"M{x - 5:.1f} {y:.1f} l5 -5 l5 5 l-5 5 z", hint=hint)
    elif ending == "refused":
        cross = f"M{x - 4:.1f} {y - 4:.1f} l8 8 m0 -8 l-8 8"
        figure.add("path", f"{kind} cross", d=cross, hint=hint)
    else:
        figure.add("rect", kind, x=x - 4, y=y - 4, width=8, height=8, hint=hint)
