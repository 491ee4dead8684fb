"""`evaluate` on a cluster: what the model and the baselines make of the test items, part by part."""

from __future__ import annotations

from sasrec_tasks import contents
from sasrec_tasks.config import Settings
from sasrec_tasks.evaluate import COUNTS
from sasrec_tasks.measured import Measuring, as_table
from sasrec_tasks.measures import test_users
from sasrec_tasks.on_ray import parts
from sasrec_tasks.sasrec.sequences import ranges
from sasrec_tasks.shards import Shards


def run(shards: Shards, settings: Settings) -> None:
    """Leave ranks and top ten of every test user."""
    data = contents.interactions(shards.store, settings)
    users = len(test_users(data, settings))
    parts.make_all(ranges(users, parts.users_of_part(users, data.num_items)), _maker, shards, settings)


def _maker(shards: Shards, settings: Settings) -> parts.Make:
    measuring = Measuring(shards.store, settings, shards.read(COUNTS))
    return lambda users: as_table(measuring.part(users))
