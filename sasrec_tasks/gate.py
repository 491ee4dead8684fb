"""Task 6: may the new model replace what is published?

It must be better than popularity, and not worse than the champion, the model behind the table's
newest rows. The champion is scored anew, on today's test items and against the same random items:
yesterday's figures are of yesterday's data. A refusal leaves the table as it is.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from torch import Tensor

from sasrec_tasks import contents, trained
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.champion import earlier_publishes, index_in
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import METRICS, RANKS, VERDICT
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.measures import rank, summarise, unseen_items
from sasrec_tasks.sasrec.metrics import Float64, Ranks, bootstrap, interval, per_user
from sasrec_tasks.sasrec.scoring import Scorer, model_scorer
from sasrec_tasks.sasrec.sequences import PADDING, HeldOut, Int64, Sequences
from sasrec_tasks.tables import Published

log = logging.getLogger(__name__)

METRIC = "ndcg@10"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule, the figure it looked at, and what it found."""

    rule: str
    passed: bool
    reason: str
    figure: float | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The champion beside the new model, on the same users and items."""

    run_id: str
    metrics: dict[str, Any]  # protocol → figures
    difference: float  # new − champion
    ci95: tuple[float, float]  # of the difference, paired bootstrap
    unknown_targets: int  # test items that the champion does not know: misses
    on_known: dict[str, float] = field(default_factory=dict)  # both models where both know the target


def run(store: RunStore, settings: Settings) -> Summary:
    """Write `verdict.json`.

    Returns:
        publish, forced, reasons, champion (run id or None).

    Raises:
        GateRefused: the model may not be published.
    """
    earlier = earlier_publishes(store, settings, settings.gate.recent_publishes)
    summary = store.once(
        "gate",
        lambda folder: _decide(store, settings, earlier, folder),
        reads=["split", "train", "evaluate"],
        settings=settings.gate.model_dump(mode="json")
        | {
            "champion": earlier[0].run_id if earlier else None,
            "protocol": protocol(settings),
        },
    )
    if not summary["publish"]:
        raise GateRefused(
            "the table is left as it is: " + "; ".join(summary["reasons"]) + ". "
            "gate.force_publish=true publishes anyway, and is recorded"
        )
    return summary


def protocol(settings: Settings) -> str:
    """The ranking that is served: with or without seen items."""
    return "full" if settings.export.exclude_seen else "full_with_seen"


def _decide(store: RunStore, settings: Settings, earlier: list[Published], folder: Path) -> Summary:
    metrics = store.read_json("evaluate", METRICS)
    if metrics["model"] != trained.model_hash(store):
        raise BadSettings(
            f"{store.uri}: `evaluate` measured other weights than `train` holds now: run it again"
        )
    served = protocol(settings)
    rules = [_beats_popularity(metrics, served)]
    comparison: Comparison | None = None
    if not earlier:
        log.info("gate: no champion: nothing of an as_of up to this one is published")
    else:
        comparison, rule = _against_champion(store, settings, earlier[0])
        rules.append(rule)
        plausible = metrics[served]["ci95"][METRIC][1]
        if comparison:
            plausible = comparison.metrics[served][METRIC] + comparison.ci95[1]
        rules.append(_against_recent(earlier, plausible, settings))
    passed = all(rule.passed for rule in rules)
    forced = settings.gate.force_publish and not passed
    verdict = {
        "publish": passed or forced,
        "passed": passed,
        "forced": forced,
        "protocol": served,
        "metric": METRIC,
        "model": metrics["model"],
        "reasons": [rule.reason for rule in sorted(rules, key=lambda rule: rule.passed)],  # worst first
        "rules": [asdict(rule) for rule in rules],
        "champion": asdict(comparison) if comparison else None,
    }
    write_json(folder / VERDICT, verdict)
    for rule in rules:
        log.log(logging.INFO if rule.passed else logging.ERROR, "gate: %s", rule.reason)
    if forced:
        log.warning("gate: refused, but gate.force_publish is set: publishing anyway")
    return {
        "publish": verdict["publish"],
        "forced": forced,
        "reasons": verdict["reasons"],
        "champion": earlier[0].run_id if earlier else None,
    }


def _beats_popularity(metrics: dict[str, Any], served: str) -> Rule:
    new, popular = metrics[served][METRIC], metrics["baselines"]["popularity"][served][METRIC]
    passed = new > popular
    return Rule(
        rule="popularity",
        passed=passed,
        figure=new,
        limit=popular,
        reason=f"{served} NDCG@10 {new:.4f} is {'better' if passed else 'not better'} than popularity's {popular:.4f}",
    )


def _against_champion(
    store: RunStore, settings: Settings, champion: Published
) -> tuple[Comparison | None, Rule]:
    trained.device(settings)  # that there is no GPU is not the champion's fault
    try:
        comparison = compare(store, settings, champion.run_id)
    except (ConnectionError, TimeoutError):
        raise  # the network's fault: trying again helps
    except (BadSettings, OSError, ValueError, FloatingPointError) as error:
        reason = (
            f"champion {champion.run_id} (version {champion.version}) could not be compared with, "
            f"its weights are gone or unreadable: {error}"
        )
        log.warning("gate: %s", reason)
        return None, Rule(rule="champion", passed=True, reason=reason)
    old = comparison.metrics[protocol(settings)][METRIC]
    limit = -settings.gate.tolerance * old
    low, high = comparison.ci95
    passed = high >= limit
    return comparison, Rule(
        rule="champion",
        passed=passed,
        figure=high,
        limit=limit,
        reason=(
            f"{protocol(settings)} NDCG@10 differs from the champion's ({old:.4f}, run {champion.run_id}) by "
            f"{comparison.difference:+.4f} (95% interval {low:+.4f} to {high:+.4f}), "
            f"{'not worse' if passed else 'worse'} than the tolerated {limit:+.4f}"
        ),
    )


def _against_recent(earlier: list[Published], plausible: float, settings: Settings) -> Rule:
    """Small losses night after night must not add up."""
    served = protocol(settings)
    recent = [
        float(published.metadata["metrics"][served][METRIC])
        for published in earlier
        if served in (published.metadata.get("metrics") or {})
    ]
    if not recent:
        return Rule(rule="recent", passed=True, reason="no metrics of recent publishes are known")
    limit = max(recent) * (1 - 2 * settings.gate.tolerance)
    passed = plausible >= limit
    return Rule(
        rule="recent",
        passed=passed,
        figure=plausible,
        limit=limit,
        reason=(
            f"{served} NDCG@10 of at most {plausible:.4f} (upper end of the 95% interval) is "
            f"{'within' if passed else 'below'} {limit:.4f}, the best of the last {len(recent)} publishes "
            f"less {2 * settings.gate.tolerance:.0%}"
        ),
    )


def compare(store: RunStore, settings: Settings, champion: str) -> Comparison:
    """Score the champion on this run's test split and compare user by user.

    Raises:
        BadSettings: the champion's run is not in the store.
        OSError, ValueError: its files are damaged.
    """
    data = contents.interactions(store, settings)
    test = data.split.test
    scorer, index = champion_scorer(store.sibling(champion), settings, contents.item_ids(store), test)
    ranks = rank(scorer, test, unseen_items(data, settings))
    served = protocol(settings)
    old = per_user(ranks[served])[METRIC]
    new = per_user(_own_ranks(store, served))[METRIC]
    names, means = bootstrap(
        {"new": new, "old": old},
        samples=settings.evaluate.bootstrap_samples,
        random_state=settings.evaluate.random_state,
    )
    known = index[test.targets] != PADDING
    return Comparison(
        run_id=champion,
        metrics=summarise({"champion": ranks}, settings)["champion"],
        difference=float((new - old).mean()),
        ci95=interval(means[:, names.index("new")] - means[:, names.index("old")]),
        unknown_targets=int((~known).sum()),
        on_known=_means(new[known], old[known]),
    )


def _own_ranks(store: RunStore, served: str) -> Ranks:
    columns = pq.read_table(
        store.folder("evaluate") / RANKS, columns=[f"model.{served}.better", f"model.{served}.tied"]
    )
    better, tied = (column.to_numpy() for column in columns.columns)
    return Ranks(better=better, tied=tied)


def _means(new: Float64, old: Float64) -> dict[str, float]:
    if not len(new):
        return {"users": 0}
    return {"users": len(new), "new": float(new.mean()), "champion": float(old.mean())}


def champion_scorer(
    champion: RunStore, settings: Settings, items: list[str], test: HeldOut
) -> tuple[Scorer, Int64]:
    """The champion's scores of today's catalogue, −inf for items that it does not know.

    Returns:
        The scorer, and the champion's index of each of today's items: (num_items + 1,), 0 if unknown.
    """
    model = trained.model(champion, settings)
    index = index_in(champion, items)
    score_theirs = model_scorer(model, _translated(test.history, index))
    unknown = np.flatnonzero(index == PADDING)

    def score(rows: Int64) -> Tensor:
        scores = score_theirs(rows)[:, index]
        scores[:, unknown] = -np.inf
        return scores

    return score, index


def _translated(histories: Sequences, index: Int64) -> Sequences:
    """Histories in another catalogue's indices, without what it does not know."""
    rows, _, positions = histories.flat()
    items = index[histories.items[positions]]
    known = items != PADDING
    ends = np.cumsum(np.bincount(rows[known], minlength=len(histories)))
    return Sequences(
        starts=np.concatenate([[0], ends[:-1]]),
        ends=ends,
        items=items[known].astype(np.int32),
        outcomes=histories.outcomes[positions[known]],
    )
