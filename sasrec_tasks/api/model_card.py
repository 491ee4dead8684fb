"""The card of a model that was trained in a notebook: a JSON for programs, and the same as Markdown for people."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sasrec_tasks.api.estimators import SASRecEstimator
from sasrec_tasks.sasrec.advice import LIMITS
from sasrec_tasks.sasrec.metrics import bootstrap, interval, per_user
from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.ranking import rank_all
from sasrec_tasks.sasrec.scoring import Scorer, constant_scorer, model_scorer
from sasrec_tasks.sasrec.sequences import Float32, HeldOut, Sequences

Card = dict[str, Any]

SAMPLES = 1000
"""Of the bootstrap that intervals come from."""


def model_card(
    estimator: SASRecEstimator,
    model: SASRec,
    train: Sequences,
    validation: HeldOut | None,
    popularity: Float32,
    period: tuple[str, str] | None,
) -> Card:
    """What a model was trained on and how, and how it ranks the validation interactions beside popularity.

    Args:
        popularity: (num_items + 1,) what popularity ranks by.
        period: the first and the last TIMESTAMP of the tables, as they are told.
    """
    assert estimator.result is not None
    best = estimator.result.history[estimator.result.best_epoch - 1]
    metrics = None
    if validation is not None and len(validation):
        metrics = {
            "model": _figures(model_scorer(model, validation.history), validation),
            "popularity": _figures(constant_scorer(popularity), validation),
        }
    return {
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("sasrec-tasks", "torch", "numpy")},
        "estimator": type(estimator).__name__,
        "sizes": model.config.as_dict(),
        "data": {
            "users": int((train.lengths > 0).sum()),
            "items": model.config.num_items,
            "events": int(train.lengths.sum()),
            "period": period,
            "validation_events": 0 if validation is None else len(validation),
        },
        "training": {
            "epochs": len(estimator.result.history),
            "best_epoch": estimator.result.best_epoch,
            "stopped": estimator.result.stopped,
            "loss": best.loss,
            "metric": best.metric,
        },
        "metrics": metrics,
        "settings": {name: value for name, value in estimator.settings.items() if name != "device"},
        "limits": list(LIMITS),
    }


def _figures(score: Scorer, held_out: HeldOut) -> dict[str, Any]:
    """HR@10, NDCG@10 and MRR among all items that come unseen, with 95% intervals."""
    values = per_user(rank_all(score, held_out)[0])
    names, means = bootstrap(values, samples=SAMPLES, random_state=0)
    return {
        **{name: float(values[name].mean()) for name in names},
        "ci95": {name: list(interval(means[:, column])) for column, name in enumerate(names)},
    }


def as_markdown(card: Card) -> str:
    """The card for people."""
    data, training, sizes = card["data"], card["training"], card["sizes"]
    period = f" from {data['period'][0]} to {data['period'][1]}" if data["period"] else ""
    lines = [
        "# SASRec, trained in a notebook",
        f"{card['estimator']}, {', '.join(f'{name} {size}' for name, size in sizes.items())}. Written "
        f"{card['written_at']} by {', '.join(f'{name} {number}' for name, number in card['versions'].items())}.",
        "## Data",
        f"{data['events']:,} training events of {data['users']:,} users and {data['items']:,} items{period}; "
        f"{data['validation_events']:,} validation events.",
        "## Training",
        f"{training['epochs']} epochs, the best was {training['best_epoch']}, ended by {training['stopped']}; loss "
        f"{training['loss']:.4f}.",
        "## Metrics",
    ]
    if card["metrics"] is None:
        lines.append("None: it was trained without validation interactions.")
    else:
        lines += [
            "On the validation interactions, which early stopping has looked at, among all items that the user had not "
            "seen; with 95% intervals (bootstrap).",
            "\n".join(
                [
                    "| | HR@10 | NDCG@10 | MRR |",
                    "| --- | --- | --- | --- |",
                    *(_row(name, figures) for name, figures in card["metrics"].items()),
                ]
            ),
        ]
    lines += [
        "## Limits",
        "\n".join(f"- {limit}" for limit in card["limits"]),
        "## Settings",
        "\n".join(f"- `{name}`: `{value}`" for name, value in card["settings"].items()),
    ]
    return "\n\n".join(lines) + "\n"


def _row(name: str, figures: dict[str, Any]) -> str:
    cells = [
        f"{figures[metric]:.4f} ({figures['ci95'][metric][0]:.4f}–{figures['ci95'][metric][1]:.4f})"
        for metric in ("hr@10", "ndcg@10", "mrr")
    ]
    return f"| {name} | {' | '.join(cells)} |"
