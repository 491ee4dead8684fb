"""Made-up interactions with a structure that can be learned, and how well it can be.

Every item has a category and a style; about ``CROWD`` items share both. What comes next hangs on
the last two items: its category follows from the category of the last one, its style from the style
of the one before. Of the items with that category and style one is drawn by popularity. With
probability ``NOISE`` popularity alone decides.

Two small tables thus say what follows any pair of items, so that a few hundred thousand events are
enough to learn it, while nobody who looks at the last item alone can know the style.

The chance of an item given the last two is known, and so is the law of the pairs: sequences start
in it and stay in it. The best HR@10 of anybody who knows two items, one, or none is a sum over both,
with no sampling in it. It speaks of the last event of a user, ranked among all items, the seen ones
included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

MIN_ITEMS = 2000
MIN_USER_EVENTS = 5
MAX_MEAN_EVENTS = 10_000  # per user; more would not fit into a year of distinct seconds
CROWD = 20  # items per category and style: the number of either grows with the root of the items
NOISE = 0.25
ZIPF = 0.8  # popularity of the k-th most popular item: k ** -ZIPF
ACTIVITY = 0.8  # spread (sigma) of the log-normal that says how active a user is
END = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
YEAR = 365 * 24 * 3600  # seconds
K = 10
ID = 1
STYLES = 4
CATS = 8
SHIFT = 5

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was written, and what can be reached on it: HR@10, seen items among the candidates."""

    path: Path  # the parquet file
    users: int
    items: int
    events: int
    seed: int
    best_hr10: float  # by the true probabilities
    first_order_hr10: float  # the most that can be had from the last item alone
    popularity_hr10: float  # the most that can be had from one list for everybody

    def as_dict(self) -> dict[str, str | int | float]:
        return {**asdict(self), "path": str(self.path)}


def generate(
    out: Path, *, users: int = 6000, items: int = 2000, events: int = 200_000, seed: int = 0
) -> Generated:
    """Write interactions, and beside them, as ``<stem>.json``, what can be reached on them.

    The table has the columns USER_ID and ITEM_ID (string), OUTCOME (float64, always 1) and
    TIMESTAMP (int64, epoch seconds; within the year before 2026, distinct for a user), and is in
    order of TIMESTAMP. The same arguments give the same bytes. Both files appear whole or not at all.

    Args:
        out: a file if it ends in ``.parquet``, else a folder that gets ``interactions.parquet``;
            created where missing.
        users: how many; each has at least ``MIN_USER_EVENTS`` events.
        items: size of the catalogue; where events are few, rare items may not occur.
        events: rows, exactly.
        seed: of everything random.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(users=users, items=items, events=events, seed=seed)
    random = np.random.default_rng(seed)
    process = Process.of(items, random)
    lengths = _lengths(users, events, random)
    rows, drawn = process.sample(lengths, random)
    times = _times(rows, lengths, random)
    order = np.lexsort((rows, times))
    table = pa.table(
        {
            "USER_ID": _names("user", users, 6, rows[order]),
            "ITEM_ID": _names("item", items, 5, drawn[order]),
            "OUTCOME": np.ones(events),
            "TIMESTAMP": times[order],
        }
    )
    path = out if out.suffix == ".parquet" else out / "interactions.parquet"
    best, first_order, popularity = process.reachable()
    result = Generated(
        path=path,
        users=users,
        items=items,
        events=events,
        seed=seed,
        best_hr10=best,
        first_order_hr10=first_order,
        popularity_hr10=popularity,
    )
    figures = {name: value for name, value in result.as_dict().items() if name != "path"}
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda file: pq.write_table(table, file))
    _replace(path.with_suffix(".json"), lambda file: file.write_text(json.dumps(figures, indent=2) + "\n"))
    return result


@dataclass(frozen=True, kw_only=True)
class Process:
    """The law the sequences are drawn from: of order two, stationary from the second event on.

    Items are numbered 0…N − 1 in order of their crowd; the items of crowd ``x`` have category
    ``x // S`` and style ``x % S``.
    """

    crowd: Int64  # (N,), rising
    popularity: Float64  # (N,), sums to 1
    labels: Int64  # (N,) the number in an item's id, which says nothing about crowd or popularity
    next_category: Int64  # (S,) a permutation: after the category of the last item
    next_style: Int64  # (S,) a permutation: after the style of the item before it
    pairs: Float64  # (S, S * S) law of (style of the item before last, crowd of the last item)

    @classmethod
    def of(cls, items: int, random: np.random.Generator) -> Process:
        """Draw the tables and deal the items out to the crowds."""
        categories = CATS
        crowds = categories * STYLES
        # Dealt out in rounds by popularity: each crowd gets its share of popular and of rare items.
        rounds = [random.permutation(crowds) for _ in range(-(-items // crowds))]
        dealt = np.concatenate(rounds)[:items]
        order = np.argsort(dealt, kind="stable")
        popularity = (np.arange(1, items + 1)[order] / crowds + SHIFT) ** -ZIPF
        popularity /= popularity.sum()
        crowd, next_category, next_style = (
            dealt[order],
            random.permutation(categories),
            (np.arange(STYLES) if ID else random.permutation(STYLES)),
        )
        return cls(
            crowd=crowd,
            popularity=popularity,
            labels=random.permutation(items),
            next_category=next_category,
            next_style=next_style,
            pairs=_stationary(np.bincount(crowd, popularity), next_category, next_style),
        )

    def following(self, style_before: Int64, last_crowd: Int64) -> Int64:
        """The crowd the next item is from, noise apart; arrays of one shape."""
        side = len(self.next_style)
        return self.next_category[last_crowd // side] * side + self.next_style[style_before]

    def probabilities(self, target: Float64) -> Float64:
        """Law of the next item, (N,), given the law of the crowd it is from, noise apart (S * S,)."""
        within = target / np.bincount(self.crowd, self.popularity)
        return self.popularity * (NOISE + (1 - NOISE) * within[self.crowd])

    def sample(self, lengths: Int64, random: np.random.Generator) -> tuple[Int64, Int64]:
        """Draw the sequences of all users.

        Args:
            lengths: (users,) events of each, at least 2, falling.

        Returns:
            User and item label of each event, (events,) each; by user, in order of time.
        """
        side, users = len(self.next_style), len(lengths)
        categories, crowds = len(self.next_category), self.pairs.shape[1]
        cumulative = np.cumsum(self.popularity)
        cumulative /= cumulative[-1]
        bounds = np.concatenate([[0.0], cumulative[np.searchsorted(self.crowd, range(crowds), "right") - 1]])

        def draw(crowds: Int64, noise: npt.NDArray[np.bool_] | bool = False) -> Int64:
            """One item by popularity, of the crowd or (noise) of all."""
            low, high = np.where(noise, 0.0, bounds[crowds]), np.where(noise, 1.0, bounds[crowds + 1])
            at = low + (high - low) * random.random(len(crowds))
            return np.minimum(np.searchsorted(cumulative, at, side="right"), len(cumulative) - 1)

        style, crowd = divmod(random.choice(self.pairs.size, users, p=self.pairs.ravel()), crowds)
        steps = [draw(random.integers(categories, size=users) * side + style), draw(crowd)]
        for step in range(2, int(lengths[0])):
            going = int(np.searchsorted(-lengths, -step))  # users with more events than that
            before, last = self.crowd[steps[-2][:going]], self.crowd[steps[-1][:going]]
            steps.append(draw(self.following(before % side, last), random.random(going) < NOISE))
        rows = np.concatenate([np.arange(len(items)) for items in steps])
        by_user = np.argsort(rows, kind="stable")
        return rows[by_user], self.labels[np.concatenate(steps)[by_user]]

    def reachable(self) -> tuple[float, float, float]:
        """The highest expected HR@10 for who knows the last two items, the last one, none."""
        side, crowds = self.pairs.shape
        target = self.following(np.arange(side)[:, None], np.arange(crowds)[None, :])  # (S, S * S)
        overall = np.bincount(target.ravel(), self.pairs.ravel(), minlength=crowds)
        # Within its crowd an item is drawn by popularity alone: of the last item only the crowd counts.
        last = self.pairs.sum(0)
        given_last = np.zeros((crowds, crowds))
        given_last[np.arange(crowds), target] = self.pairs / last
        return (
            self._hr(np.eye(crowds), overall),
            self._hr(given_last, last),
            self._hr(overall[None], np.ones(1)),
        )

    def _hr(self, targets: Float64, weights: Float64) -> float:
        """Mean chance of the ten likeliest items; targets (n, S * S) as known, weights (n,)."""
        hits = [np.partition(self.probabilities(target), -K)[-K:].sum() for target in targets]
        return float(weights @ hits)


def _stationary(crowds: Float64, next_category: Int64, next_style: Int64) -> Float64:
    """``Process.pairs``, given the popularity of the crowds (S * S,)."""
    side = len(next_style)
    crowds = crowds.reshape(-1, side)
    pairs = np.broadcast_to(crowds / side, (side, *crowds.shape))  # style before, category, style
    for _ in range(400):  # each pass leaves at most 1 − NOISE of the error
        noise = pairs.sum((0, 1))[:, None, None] * crowds
        follow = pairs.transpose(2, 1, 0)[:, np.argsort(next_category)][:, :, np.argsort(next_style)]
        pairs = NOISE * noise + (1 - NOISE) * follow
    result: Float64 = (pairs / pairs.sum()).reshape(side, -1)
    return result


def _lengths(users: int, events: int, random: np.random.Generator) -> Int64:
    """Events of each user, (users,), falling: a few users have a large part of the events."""
    activity = random.lognormal(sigma=ACTIVITY, size=users)
    extra = random.multinomial(events - MIN_USER_EVENTS * users, activity / activity.sum())
    return MIN_USER_EVENTS + np.sort(extra)[::-1]


def _times(rows: Int64, lengths: Int64, random: np.random.Generator) -> Int64:
    """Epoch seconds of each event, (events,), rising strictly within a user (rows is sorted)."""
    spare = YEAR - lengths
    joined = random.uniform(0, 0.75, len(lengths)) * spare
    drawn = (joined[rows] + random.random(len(rows)) * (spare - joined)[rows]).astype(np.int64)
    drawn = drawn[np.lexsort((drawn, rows))]
    place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return END - YEAR + drawn + place  # + place: no two of a user's events share a second


def _names(kind: str, count: int, width: int, numbers: Int64) -> pa.Array:
    names = pa.array([f"{kind}-{number:0{width}d}" for number in range(count)])
    return pa.DictionaryArray.from_arrays(pa.array(numbers), names).dictionary_decode()


def _check(*, users: int, items: int, events: int, seed: int) -> None:
    if users < 1:
        raise ValueError(f"users is {users}: give at least 1")
    if items < MIN_ITEMS:
        raise ValueError(f"items is {items}: give at least {MIN_ITEMS}")
    low, high = MIN_USER_EVENTS * users, MAX_MEAN_EVENTS * users
    if events < low:
        raise ValueError(
            f"events is {events}: give at least {low} ({MIN_USER_EVENTS} a user), or fewer users"
        )
    if events > high:
        raise ValueError(f"events is {events}: give at most {high} ({MAX_MEAN_EVENTS} a user), or more users")
    if seed < 0:
        raise ValueError(f"seed is {seed}: give 0 or more")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put a file in its place in one step, so that no reader meets half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        os.replace(unfinished, path)  # noqa: PTH105
    finally:
        unfinished.unlink(missing_ok=True)
