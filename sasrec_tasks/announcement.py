"""What consumers are told of a version of the table, whether a run was published or an earlier one is served again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("table", "version", "previous_version", "as_of", "rows", "users", "metrics")


def facts(summary: Mapping[str, Any], *, run_id: str, instead_of: str | None = None) -> dict[str, Any]:
    """The facts, as JSON can hold them.

    Args:
        summary: of `export`, or of `roll_back`.
        run_id: whose rows are served.
        instead_of: the run that was rolled back; None where a new one was published.

    Returns:
        table, version, previous_version, as_of, rows, users (with rows), metrics, run_id, instead_of.
    """
    without_rows = summary.get("users_by_origin", {}).get("none", 0)
    found = {name: summary[name] for name in NAMES}
    return {
        **found,
        "users": found["users"] - without_rows,
        "run_id": run_id,
        "instead_of": instead_of,
    }


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """`full.ndcg@10` and the like, of metrics by protocol; those that are there."""
    return {
        f"{protocol}.{metric}": metrics[protocol][metric]
        for protocol in ("sampled", "full")
        for metric in ("hr@10", "ndcg@10")
        if metric in metrics.get(protocol, {})
    }
