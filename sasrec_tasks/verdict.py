"""Whether the gate lets a run's weights go on to the table: what every task after it asks first."""

from __future__ import annotations

from sasrec_tasks import approval, trained
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.contents import VERDICT
from sasrec_tasks.errors import BadSettings, GateRefused


def require(store: RunStore) -> None:
    """That the verdict is on the weights that `train` holds, and allows them to be published.

    Raises:
        GateRefused: it does not, or asks for an approval that nobody has given.
        BadSettings: there is none on these weights.
    """
    if not store.marker("gate"):
        raise BadSettings(f"{store.uri}: `gate` has not finished in this run: run it first")
    verdict = store.read_json("gate", VERDICT)
    if verdict["model"] != trained.model_hash(store):
        raise BadSettings(
            f"{store.uri}: the verdict of `gate` is on other weights than `train` holds now: "
            "run `evaluate` and `gate` again"
        )
    if not verdict["publish"]:
        raise GateRefused("the verdict in gate/verdict.json does not allow a publish")
    approval.require(store, verdict)
