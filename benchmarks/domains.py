"""Made-up interactions of other kinds than films, to see whether the defaults hold elsewhere.

    python benchmarks/domains.py --out .demo/domains --seed 0

Writes a parquet file per domain. A user's next item is one of their own once more, or one of the few
that tend to follow the last one, or what is popular at that moment: how often each, how long items live
and how long histories are is what the domains differ in.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Float64 = npt.NDArray[np.float64]

START, YEAR = 1_735_689_600, 365 * 24 * 3600  # seconds: 2025, as long as a year
SLICES = 200  # of the period, in each of which the popular items stay the same
NEIGHBOURS = 30  # an item's followers are released at most so many items before or after it
FOLLOWERS = np.array([0.5, 0.25, 0.15, 0.1])  # how often each of an item's followers comes


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What tells a kind of interactions from others."""

    users: int
    items: int
    events: float  # per user, median
    spread: float  # of its logarithm
    life: float | None  # how fast an item is forgotten, as a share of the period; None: never
    repeats: float  # share of events that are one of the user's own items
    follows: float  # share of events that follow from the last item


DOMAINS = {
    "shop": Domain(users=8000, items=5000, events=5, spread=0.6, life=0.3, repeats=0.05, follows=0.5),
    "news": Domain(users=5000, items=2000, events=12, spread=0.7, life=0.02, repeats=0.0, follows=0.3),
    "music": Domain(users=1500, items=3000, events=60, spread=0.5, life=None, repeats=0.4, follows=0.4),
    "courses": Domain(users=3000, items=200, events=7, spread=0.3, life=None, repeats=0.0, follows=0.8),
    "small": Domain(users=300, items=120, events=10, spread=0.4, life=None, repeats=0.1, follows=0.6),
}


def main() -> None:
    """Write the domains."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--out", type=Path, default=Path(".demo/domains"), help="folder")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for number, (name, domain) in enumerate(DOMAINS.items()):
        table = interactions(domain, np.random.default_rng([options.seed, number]))
        pq.write_table(table, options.out / f"{name}.parquet")
        print(f"{name}: {domain.users:,} users, {table.num_rows:,} events")


def interactions(domain: Domain, random: np.random.Generator) -> pa.Table:
    """The events of all users, shuffled; at least three each."""
    popular = popularity(domain, random).cumsum(1)
    offsets = random.integers(1, NEIGHBOURS, size=(domain.items, len(FOLLOWERS)))
    followers = (
        np.arange(domain.items)[:, None] + offsets * random.choice([-1, 1], offsets.shape)
    ) % domain.items
    ids = random.permutation(domain.items)  # numbers don't tell when an item was released
    users, items, times = [], [], []
    for user in range(domain.users):
        length = max(round(random.lognormal(np.log(domain.events), domain.spread)), 3)
        moments = np.sort(random.uniform(random.uniform(0, 0.9), 1, size=length))
        history: list[int] = []
        for moment in moments:
            draw = random.random()
            if history and draw < domain.repeats:
                item = history[-1 - int(random.integers(min(len(history), 20)))]
            elif history and draw < domain.repeats + domain.follows:
                item = int(random.choice(followers[history[-1]], p=FOLLOWERS))
            else:
                shares = popular[int(moment * SLICES)]
                item = int(np.searchsorted(shares, random.random() * shares[-1]))
            history.append(item)
        users += [f"u{user}"] * length
        items += [f"i{ids[item]}" for item in history]
        times += [START + int(moment * YEAR) for moment in moments]
    order = random.permutation(len(users))
    table = pa.table(
        {
            "USER_ID": users,
            "ITEM_ID": items,
            "OUTCOME": np.ones(len(users)),
            "TIMESTAMP": pa.array(times, pa.int64()),
        }
    )
    return table.take(order)


def popularity(domain: Domain, random: np.random.Generator) -> Float64:
    """(SLICES, items): Zipf's law; an item that is forgotten is unknown before its release."""
    weights = random.permutation((np.arange(domain.items) + 10.0) ** -1)
    if domain.life is None:
        return np.repeat(weights[None], SLICES, 0)
    age = np.arange(SLICES)[:, None] / SLICES - np.linspace(-domain.life, 1, domain.items)[None]
    fresh = np.where(age >= 0, np.exp(-np.maximum(age, 0) / domain.life), 0)
    return np.asarray(weights * fresh)


if __name__ == "__main__":
    main()
