"""`refit` on a cluster, as `train` is."""

from __future__ import annotations

from sasrec_tasks import refit
from sasrec_tasks.config import Settings
from sasrec_tasks.fitting import Training
from sasrec_tasks.on_ray.train import run
from sasrec_tasks.shards import Shards

__all__ = ["prepared", "run"]


def prepared(shards: Shards, settings: Settings) -> Training:
    """What is trained further."""
    return refit.prepared(shards.store, settings)
