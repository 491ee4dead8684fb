"""Made-up interactions with a structure that can be learned, and how well it can be.

Every item is of one of ``GENRES`` genres. The next item is, with probability

- ``BACK``, of the genre of the item before the last: people go to and fro between two genres;
- ``STAY``, of the genre of the last item;
- ``NOISE``, of any genre.

Of the items in question one is drawn by popularity. So any two items have a law of what follows
them, and genres are few enough to be learned from some 200,000 events; but who looks at the last
item alone does not know which genre its user is about to go back to.

What can be reached has a closed form, since a sequence that starts in the stationary law stays in
it. With ``q`` the popularity of the genres, each summed over its items:

- an item at any place is drawn by popularity, and its genre therefore by ``q``;
- two successive items are of one genre with probability ``SAME``, else of independent ones.

(Let ``P[x, y]`` be the chance that genre y follows x, both unknown. Stationary means ``P =
NOISE q qᵀ + STAY diag(q) + BACK Pᵀ``; solved by ``P = (1 − SAME) q qᵀ + SAME diag(q)``.)
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
MAX_MEAN_EVENTS = 10_000  # per user; with more, the busiest might not fit into a year of seconds
GENRES = 20
BACK, STAY, NOISE = 0.78, 0.12, 0.10
SAME = STAY / (STAY + NOISE)
HEAD = 5  # popularity by Zipf and Mandelbrot's law: (k + HEAD) ** -2 for the k-th item of a genre
ACTIVITY = 0.5  # spread (sigma) of the log-normal that says how active a user is
YEAR = 365 * 24 * 3600  # seconds
END = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
K = 10

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was written, and the HR@10 that can be expected on it.

    That of each user's last event among all items, the seen ones included.
    """

    path: Path  # the parquet file
    users: int
    items: int
    events: int
    seed: int
    best_hr10: float  # of the best predictor there is: by the true probabilities
    first_order_hr10: float  # of the best that looks at the last item alone
    popularity_hr10: float  # of the best list for everybody: the most popular items

    def as_dict(self) -> dict[str, str | int | float]:
        """All of it, as JSON can hold it."""
        return {**asdict(self), "path": str(self.path)}


def generate(
    out: Path, *, users: int = 12_000, items: int = 2000, events: int = 200_000, seed: int = 0
) -> Generated:
    """Write interactions, and beside them what can be reached on them, as ``<stem>.json``.

    The table has the columns USER_ID and ITEM_ID (string), OUTCOME (float64, always 1) and
    TIMESTAMP (int64, epoch seconds in the year before 2026, distinct within a user), and is in
    order of TIMESTAMP. The same arguments give the same bytes; no reader meets half a file.

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
            "USER_ID": _names("user", 6, random.permutation(users), rows[order]),
            "ITEM_ID": _names("item", 5, process.labels, drawn[order]),
            "OUTCOME": np.ones(events),
            "TIMESTAMP": times[order],
        }
    )
    path = out if out.suffix == ".parquet" else out / "interactions.parquet"
    result = Generated(
        path=path,
        users=users,
        items=items,
        events=events,
        seed=seed,
        best_hr10=process.best(),
        first_order_hr10=process.first_order(),
        popularity_hr10=_top(process.popularity),
    )
    figures = {name: value for name, value in result.as_dict().items() if name != "path"}
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda file: pq.write_table(table, file))
    _replace(path.with_suffix(".json"), lambda file: file.write_text(json.dumps(figures, indent=2) + "\n"))
    return result


@dataclass(frozen=True, kw_only=True)
class Process:
    """The law the sequences are drawn from. Items are numbered 0…N − 1, genre by genre."""

    genre: Int64  # (N,) 0…GENRES − 1, rising
    popularity: Float64  # (N,), sums to 1
    labels: Int64  # (N,) the number in each item's id, which tells neither genre nor popularity

    @classmethod
    def of(cls, items: int, random: np.random.Generator) -> Process:
        """Deal the items out to the genres, in rounds from the most popular item down."""
        rounds = [random.permutation(GENRES) for _ in range(-(-items // GENRES))]
        genre = np.concatenate(rounds)[:items]
        order = np.argsort(genre, kind="stable")
        popularity = (np.arange(items) / GENRES + HEAD + 1) ** -2
        return cls(
            genre=genre[order],
            popularity=popularity[order] / popularity.sum(),
            labels=random.permutation(items),
        )

    @property
    def genres(self) -> Float64:
        """Popularity of each genre, (GENRES,)."""
        return np.bincount(self.genre, self.popularity).astype(np.float64)

    def probabilities(self, before: int, last: int) -> Float64:
        """Law of the next item, (N,), after an item of genre ``before`` and one of ``last``."""
        chosen = BACK * (self.genre == before) + STAY * (self.genre == last)
        law: Float64 = self.popularity * (NOISE + chosen / self.genres[self.genre])
        return law

    def best(self) -> float:
        """The highest HR@10 that can be expected of who knows the last two items, or more."""
        hits = np.array(
            [[_top(self.probabilities(x, y)) for y in range(GENRES)] for x in range(GENRES)]
        )  # (GENRES, GENRES)
        genres = self.genres
        return float(SAME * (genres @ hits.diagonal()) + (1 - SAME) * (genres @ hits @ genres))

    def first_order(self) -> float:
        """The highest HR@10 that can be expected of who knows the last item only.

        Of that item only the genre counts: within a genre, items are drawn by popularity alone.
        """
        stays = STAY + BACK * SAME  # chance that the genre is the last one; else it can be any
        genres = self.genres
        laws = [self.popularity * (1 - stays + stays * (self.genre == y) / genres[y]) for y in range(GENRES)]
        return float(genres @ [_top(law) for law in laws])

    def sample(self, lengths: Int64, random: np.random.Generator) -> tuple[Int64, Int64]:
        """Draw the sequences of all users, a step of all at a time.

        Args:
            lengths: (users,) events of each, at least 2, falling.

        Returns:
            The user and the item of each event, (events,) each; by user, oldest first.
        """
        bounds = np.searchsorted(self.genre, np.arange(GENRES + 1))  # where each genre starts and ends
        cumulative = np.concatenate([[0.0], np.cumsum(self.popularity)])

        def draw(genres: Int64, anything: npt.NDArray[np.bool_]) -> Int64:
            """One item each by popularity, of the genre given or of all."""
            low = np.where(anything, 0, bounds[genres])
            high = np.where(anything, len(self.genre), bounds[genres + 1])
            at = random.random(len(genres)) * (cumulative[high] - cumulative[low]) + cumulative[low]
            found = np.searchsorted(cumulative, at, side="right") - 1
            items: Int64 = np.minimum(found, high - 1)  # rounding can lift ``at`` to its upper bound
            return items

        start = np.zeros(len(lengths), dtype=np.int64)
        steps = [draw(start, start == 0)]
        steps.append(draw(self.genre[steps[0]], random.random(len(lengths)) >= SAME))
        for step in range(2, int(lengths[0])):
            going = int(np.searchsorted(-lengths, -step))  # how many users have more events than that
            chance = random.random(going)
            genres = self.genre[np.where(chance < BACK, steps[-2][:going], steps[-1][:going])]
            steps.append(draw(genres, chance >= BACK + STAY))
        users = np.concatenate([np.arange(len(drawn)) for drawn in steps])
        by_user = np.argsort(users, kind="stable")
        return users[by_user], np.concatenate(steps)[by_user]


def _top(law: Float64) -> float:
    """Chance that the next item is among the ten likeliest."""
    return float(np.partition(law, -K)[-K:].sum())


def _lengths(users: int, events: int, random: np.random.Generator) -> Int64:
    """Events of each user, (users,), falling."""
    activity = random.lognormal(sigma=ACTIVITY, size=users)
    extra: Int64 = random.multinomial(events - MIN_USER_EVENTS * users, activity / activity.sum())
    return MIN_USER_EVENTS + np.sort(extra)[::-1]


def _times(rows: Int64, lengths: Int64, random: np.random.Generator) -> Int64:
    """Epoch seconds of each event, (events,), rising strictly within a user; ``rows`` is sorted."""
    spare = YEAR - lengths  # seconds that are left when each event has one of its own
    joined = random.uniform(0, 0.75, len(lengths)) * spare
    drawn = (joined[rows] + random.random(len(rows)) * (spare - joined)[rows]).astype(np.int64)
    drawn = drawn[np.lexsort((drawn, rows))]
    place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return END - YEAR + drawn + place


def _names(kind: str, width: int, labels: Int64, numbers: Int64) -> pa.Array:
    names = pa.array([f"{kind}-{label:0{width}d}" for label in labels.tolist()])
    return names.take(pa.array(numbers))


def _check(*, users: int, items: int, events: int, seed: int) -> None:
    if users < 1:
        raise ValueError(f"users is {users}: give at least 1")
    if items < MIN_ITEMS:
        raise ValueError(f"items is {items}: give at least {MIN_ITEMS}")
    low, high = MIN_USER_EVENTS * users, MAX_MEAN_EVENTS * users
    if events < low:
        raise ValueError(f"events is {events}: for {users} users give at least {low}, or give fewer users")
    if events > high:
        raise ValueError(f"events is {events}: for {users} users give at most {high}, or give more users")
    if seed < 0:
        raise ValueError(f"seed is {seed}: give 0 or more")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put a file in its place in one step."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
