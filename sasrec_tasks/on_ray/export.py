"""`export` on a cluster: every user's rows, part by part."""

from __future__ import annotations

import pyarrow as pa

from sasrec_tasks import trained
from sasrec_tasks.config import Settings
from sasrec_tasks.on_ray import parts
from sasrec_tasks.rows import Rows
from sasrec_tasks.shards import Shards
from sasrec_tasks.tables.protocol import RECOMMENDATIONS


def run(shards: Shards, settings: Settings) -> None:
    """Leave the rows."""
    rows = Rows(shards.store, settings)
    users = rows.parts(parts.users_of_part(len(rows.data.events), len(rows.among)))
    parts.make_all(users, _maker, shards, settings)


def _maker(shards: Shards, settings: Settings) -> parts.Make:
    rows = Rows(shards.store, settings)
    model = trained.model(shards.store, settings, trained.served_by(settings))
    return lambda users: pa.Table.from_batches(rows.part(users, model), RECOMMENDATIONS)
