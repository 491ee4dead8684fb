"""What the model and two baselines make of the test items: of all users, or of some of them at a time.

The baselines are popularity in the training events, and in the newest of them. Every scorer meets the same random
items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sasrec_tasks import contents, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.measures import PROTOCOLS, by_protocol, popularity, test_users, unseen_items
from sasrec_tasks.sasrec.metrics import Ranks
from sasrec_tasks.sasrec.ranking import Placed, rank, rank_constant
from sasrec_tasks.sasrec.scoring import model_scorer
from sasrec_tasks.sasrec.sequences import HeldOut, Int64

BASELINES = ("popularity", "recent_popularity")
SCORERS = ("model", *BASELINES)

SERVED = 10
"""How many of a user's best items are looked at."""

Done = Callable[[int, str], None]
"""`done(scorers, name)`: so many have scored all test users of a part, and which was the last."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one scorer makes of n test users."""

    ranks: dict[str, Ranks]  # protocol → (n,) each
    served: Int64  # (n, 10) the ten best unseen items, padding where there are fewer

    @property
    def items(self) -> Int64:
        """What is served, one user after another."""
        return self.served[self.served > 0]


class Measuring:
    """The scorers, and the items they meet.

    Args:
        counted: `counts` of another process, instead of counting again.
    """

    def __init__(self, store: RunStore, settings: Settings, counted: pa.Table | None = None) -> None:
        self.data = contents.interactions(store, settings)
        self.test = test_users(self.data, settings)
        self.negatives = unseen_items(self.data, self.test, settings)
        if counted is None:
            self.popular, self.recent = popularity(self.data, settings)
        else:
            self.popular, self.recent = (counted[name].to_numpy() for name in BASELINES)
        self._model = trained.model(store, settings)
        self._settings = settings

    def counts(self) -> pa.Table:
        """What the baselines score by, a row per item, padding first."""
        return pa.table(dict(zip(BASELINES, (self.popular, self.recent), strict=True)))

    def part(self, users: range, done: Done = lambda scorers, name: None) -> dict[str, Measured]:
        """Scorer → what it makes of some consecutive test users.

        Raises:
            BadSettings: the model's weights are not finite.
        """
        test, negatives = self.test, self.negatives
        if len(users) < len(test):
            chosen = np.asarray(users)
            test, negatives = test.select(chosen), negatives[chosen]
        found = {}
        for number, (name, placed) in enumerate(self._placed(test, negatives), 1):
            found[name] = Measured(ranks=by_protocol(placed), served=placed.best)
            done(number, name)
        return found

    def _placed(self, test: HeldOut, negatives: Int64) -> Iterator[tuple[str, Placed]]:
        try:
            yield "model", rank(model_scorer(self._model, test.history), test, negatives, SERVED)
        except FloatingPointError as error:
            rate = self._settings.train.learning_rate
            raise BadSettings(f"train.learning_rate={rate:g}: {error}") from error
        for name, counts in zip(BASELINES, (self.popular, self.recent), strict=True):
            yield name, rank_constant(counts, test, negatives, SERVED)


def as_table(measured: dict[str, Measured]) -> pa.Table:
    """A row per test user."""
    columns = {}
    for scorer, each in measured.items():
        for protocol, ranks in each.ranks.items():
            columns[f"{scorer}.{protocol}.better"] = pa.array(ranks.better)
            columns[f"{scorer}.{protocol}.tied"] = pa.array(ranks.tied)
        width = each.served.shape[1]
        columns[f"{scorer}.served"] = pa.FixedSizeListArray.from_arrays(each.served.reshape(-1), width)
    return pa.table(columns)


def from_tables(tables: Iterable[pa.Table]) -> dict[str, Measured]:
    """Of all users, from `as_table` of parts of them in order."""
    table = pa.concat_tables(tables)

    def ranks(name: str) -> Ranks:
        better, tied = (table[f"{name}.{which}"].to_numpy() for which in ("better", "tied"))
        return Ranks(better=better, tied=tied)

    return {
        scorer: Measured(
            ranks={protocol: ranks(f"{scorer}.{protocol}") for protocol in PROTOCOLS},
            served=np.concatenate(
                [chunk.flatten().to_numpy() for chunk in table[f"{scorer}.served"].chunks]
            ).reshape(len(table), -1),
        )
        for scorer in SCORERS
    }
