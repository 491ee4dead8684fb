"""The model card: what a trained model is, what it was trained on, how good it is, and its limits.

After "Model Cards for Model Reporting" (Mitchell et al., FAT* 2019): a JSON for programs, and the same
as Markdown for people.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sasrec_tasks import contents
from sasrec_tasks.artifacts import RunStore
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import Interactions
from sasrec_tasks.item_age import age_name
from sasrec_tasks.measures import PROTOCOLS
from sasrec_tasks.naming import as_names
from sasrec_tasks.sasrec.advice import LIMITS

Card = dict[str, Any]

SHOWN = ("hr@10", "ndcg@10", "mrr")


def model_card(store: RunStore, settings: Settings, data: Interactions, metrics: dict[str, Any]) -> Card:
    """The card of a run's model, as JSON can hold it."""
    summaries = {
        task: marker.summary for task in ("validate", "split", "train") if (marker := store.marker(task))
    }
    names = as_names(settings)
    first, last = contents.period(store, data)
    return {
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("sasrec-tasks", "torch", "numpy")},
        "run_id": store.run_id,
        "weights_sha256": metrics["model"],
        "data": {
            "source": settings.source,
            "first_event": first,
            "last_event": last,
            "as_of": names["as_of"],
            "rows": summaries["validate"]["rows"],
            "rejected_rows": summaries["validate"]["rejected"],
            **{name: summaries["split"][name] for name in ("events", "users", "items")},
            "split": metrics["split"],
        },
        "training": summaries["train"],
        "settings": {
            name: value for name, value in names.items() if name.startswith(("train.", "split.", "evaluate."))
        },
        "metrics": metrics,
        **contents.refit_note(settings),
        "limits": list(LIMITS),
    }


def as_markdown(card: Card) -> str:
    """The card for people."""
    data, training, metrics, settings = (card[part] for part in ("data", "training", "metrics", "settings"))
    sizes = ", ".join(
        f"{name} {settings[f'train.{name}']}"
        for name in ("hidden_units", "num_blocks", "num_heads", "max_len")
    )
    parts = [
        f"# SASRec of run {_code(card['run_id'])}",
        f"Weights {_code(card['weights_sha256'][:16])}; {sizes}; loss {_code(training['loss'])}. Written "
        f"{card['written_at']} by {', '.join(f'{name} {number}' for name, number in card['versions'].items())}.",
        "## Data",
        f"{_code(data['source'])}: {data['events']:,} events of {data['users']:,} users and {data['items']:,} items, "
        f"from {data['first_event']} to {data['last_event']}; {data['rejected_rows']:,} of {data['rows']:,} rows "
        f"rejected. Events from {data['as_of']} on were not read. Split: {data['split']}.",
        "## Training",
        f"{training['epochs']} epochs, the best was {training['best_epoch']}, ended by {training['stopped']}, on "
        f"{training['device']}; random state {settings['train.random_state']}.",
        "## Metrics",
        f"On the test items of {metrics['users_evaluated']:,} users, with 95% intervals (bootstrap over users). "
        f"`sampled`: among {metrics['negatives']} random unseen items; `full`: among all unseen items, as served; "
        "`full_with_seen`: among all items.",
        *([card["refit"]] if "refit" in card else []),
        _table(
            ["", "protocol", "HR@10", "NDCG@10", "MRR"],
            [
                [name, protocol, *(_figure(figures[protocol], metric) for metric in SHOWN)]
                for name, figures in {"this model": metrics, **metrics["baselines"]}.items()
                for protocol in PROTOCOLS
            ],
        ),
        _table(
            ["", "coverage@10", "novelty@10, bits", "average popularity@10, events"],
            [
                [
                    name,
                    f"{metrics['coverage@10'][name]:.1%}",
                    f"{metrics['novelty@10'][name]:.2f}",
                    f"{metrics['average_popularity@10'][name]:,.0f}",
                ]
                for name in metrics["coverage@10"]
            ],
        ),
        "By length of history:",
        _table(
            ["events", "users", "HR@10, full", "NDCG@10, full", "recent popularity's NDCG@10"],
            [
                [
                    _range(bucket["history_length"]),
                    f"{bucket['users']:,}",
                    f"{bucket['full']['hr@10']:.4f}",
                    f"{bucket['full']['ndcg@10']:.4f}",
                    f"{bucket['baselines']['recent_popularity']['full']['ndcg@10']:.4f}",
                ]
                for bucket in metrics["by_history_length"]
            ],
        ),
        "By age of the test item, in days from its first event to `as_of`; last, the items of any age without a "
        "training event. Shares are of the catalogue's items, of the newest "
        f"{settings['evaluate.recent_share']:.0%} of the events, and of the top 10 lists of the test users:",
        _table(
            [
                "days",
                "users",
                "HR@10, full",
                "NDCG@10, full",
                "items",
                "of the catalogue",
                "of recent events",
                "of recommendations",
                "items recommended",
            ],
            [
                *(_by_age(age_name(of["item_age_days"]), of) for of in metrics["by_item_age"]),
                _by_age("no training event", metrics["never_trained_on"]),
            ],
        ),
        "## Limits",
        "\n".join(f"- {limit}" for limit in card["limits"]),
        "## Settings",
        _table(["setting", "value"], [[_code(name), _code(str(value))] for name, value in settings.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _figure(figures: dict[str, Any], metric: str) -> str:
    low, high = figures["ci95"][metric]
    return f"{figures[metric]:.4f} ({low:.4f}–{high:.4f})"


def _by_age(name: str, of: dict[str, Any]) -> list[str]:
    return [
        name,
        f"{of['users']:,}",
        *(f"{of['full'][metric]:.4f}" if of["users"] else "" for metric in ("hr@10", "ndcg@10")),
        f"{of['items']:,}",
        *(f"{of[f'share_of_{what}']:.1%}" for what in ("catalogue", "recent_events")),
        f"{of['share_of_recommendations']['model']:.1%}",
        f"{of['items_recommended']['model']:,}",
    ]


def _range(bounds: list[int | None]) -> str:
    least, most = bounds
    return f"{least} and more" if most is None else f"{least}–{most}"


def _code(text: str) -> str:
    """Text that is shown as it is, whatever is in it."""
    text = " ".join(str(text).split()).replace("|", "\\|")
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"
