"""Task 6: may the new model replace what is published?

It must be better than popularity, and not worse than the champion, the model behind the table's
newest rows; and what it would serve must not be too far from what is served now. A rule is passed,
asks for a person's approval, or is refused. A refusal leaves the table as it is.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sasrec_tasks import change, drift, eligible, examples, trained
from sasrec_tasks.artifacts import RunStore, Summary, write_json
from sasrec_tasks.champion import earlier_publishes
from sasrec_tasks.comparison import METRIC, ChampionGone, Comparison, compare
from sasrec_tasks.config import Settings
from sasrec_tasks.contents import METRICS, VERDICT, protocol, refit_note
from sasrec_tasks.errors import BadSettings, GateRefused
from sasrec_tasks.rows import Rows
from sasrec_tasks.rules import Rule, at_least, at_most, worst_first
from sasrec_tasks.tables import NotKept, Published, Tables, open_tables

log = logging.getLogger(__name__)

LEVELS = {"passed": logging.INFO, "asks": logging.WARNING, "refused": logging.ERROR}


def run(store: RunStore, settings: Settings) -> Summary:
    """Write `verdict.json`.

    Returns:
        publish, forced, refused and asks (reasons to refuse, and to ask a person), champion (run id or None).

    Raises:
        GateRefused: the model may not be published.
        Damaged: files of this run are not those that its tasks wrote.
        OSError: what is published, or the champion, can't be read to compare with. Trying again is safe.
    """
    narrowed = eligible.freeze(store, settings, ended=store.marker("export") is not None)
    reads = ["split", "train", "evaluate", *narrowed]
    hangs_on = _hangs_on(settings)
    summary = _of_ended(store, settings, reads, hangs_on)
    if summary is None:
        earlier = earlier_publishes(store, settings, settings.gate.recent_publishes)
        summary = store.once(
            "gate",
            lambda folder: _decide(store, settings, earlier, folder),
            reads=reads,
            settings=hangs_on | {"champion": earlier[0].run_id if earlier else None},
        )
    if not summary["publish"]:
        raise GateRefused(
            "the table is left as it is: " + "; ".join(summary["refused"]) + ". "
            "gate.force_publish=true publishes anyway, and is recorded"
        )
    return summary


def _hangs_on(settings: Settings) -> dict[str, Any]:
    """What the verdict hangs on beside the champion."""
    of_new_items = {"new_item_days", "new_item_slots"} if settings.export.new_item_days else set()
    return (
        settings.gate.model_dump(mode="json")
        | settings.export.model_dump(mode="json", include={"top_k", "active_within_days"} | of_new_items)
        | {"protocol": protocol(settings)}
        | ({"refit": True} if settings.refit.enabled else {})
    )


def _of_ended(
    store: RunStore, settings: Settings, reads: list[str], hangs_on: dict[str, Any]
) -> Summary | None:
    """The verdict by which a run has ended: it stays on the same inputs and settings, whoever is the champion by now.

    None of a run that is to be published, for the first time or, after a rollback, anew.
    """
    done, ended = store.marker("gate"), store.marker("export")
    if not done or not ended or not done.summary["publish"] or ended.summary["table"] != settings.table:
        return None
    if ended.summary["published"] and not any(
        each.run_id == store.run_id for each in open_tables(settings.table).published()
    ):
        return None  # rolled back since
    champion = {"champion": done.summary["champion"]}
    if not store.is_done("gate", store.fingerprint("gate", reads, hangs_on | champion)):
        return None
    log.info("gate: nothing to do, done at %s: the run has ended", done.finished_at)
    return done.summary


def _decide(store: RunStore, settings: Settings, earlier: list[Published], folder: Path) -> Summary:
    metrics = store.read_json("evaluate", METRICS)
    if metrics["model"] != trained.model_hash(store):
        raise BadSettings(
            f"{store.uri}: `evaluate` measured other weights than `train` holds now: run it again"
        )
    served = protocol(settings)
    gate = settings.gate
    covered = metrics["coverage@10"]["model"]
    rules = [
        _beats_popularity(metrics, served),
        at_least(
            "coverage",
            "share of the catalogue in somebody's top 10",
            covered,
            gate.min_coverage,
            gate.ask_coverage,
        ),
        *_drifted(store, settings),
    ]
    comparison: Comparison | None = None
    if not earlier:
        log.info("gate: no champion: nothing of an as_of before this one is published")
    else:
        comparison, rule = _against_champion(store, settings, earlier[0])
        rules += [rule, _against_recent(earlier, metrics[served]["ci95"][METRIC][1], settings)]
        rules += _against_table(store, settings, earlier[0])
    rules = worst_first(rules)
    refused, asks = (
        [rule.reason for rule in rules if rule.outcome == outcome] for outcome in ("refused", "asks")
    )
    forced = settings.gate.force_publish and bool(refused or asks)
    verdict = {
        "publish": not refused or forced,
        "passed": not refused and not asks,
        "forced": forced,
        "asks": [] if refused or forced else asks,
        "protocol": served,
        "metric": METRIC,
        "model": metrics["model"],
        **refit_note(settings),
        "reasons": [rule.reason for rule in rules],
        "rules": [asdict(rule) for rule in rules],
        "champion": asdict(comparison) if comparison else None,
    }
    write_json(folder / VERDICT, verdict)
    examples.write(folder, Rows(store, settings))
    for rule in rules:
        log.log(LEVELS[rule.outcome], "gate: %s: %s", rule.outcome, rule.reason)
    for note in refit_note(settings).values():
        log.info("gate: %s", note)
    if forced:
        log.warning("gate: gate.force_publish is set: publishing anyway")
    return {
        "publish": verdict["publish"],
        "forced": forced,
        "refused": refused,
        "asks": verdict["asks"],
        "champion": earlier[0].run_id if earlier else None,
    }


def _beats_popularity(metrics: dict[str, Any], served: str) -> Rule:
    new, popular = metrics[served][METRIC], metrics["baselines"]["popularity"][served][METRIC]
    is_better = new > popular
    return Rule(
        rule="popularity",
        outcome="passed" if is_better else "refused",
        figure=new,
        limit=popular,
        reason=f"popularity: {served} NDCG@10 {new:.4f} is {'' if is_better else 'not '}better than popularity's "
        f"{popular:.4f}",
    )


def _drifted(store: RunStore, settings: Settings) -> list[Rule]:
    """What `validate` would not let pass has failed there; here a person may be asked."""
    checked = store.marker("validate")
    furthest = next(iter(drift.of(checked.summary)), None) if checked else None
    if furthest is None:
        return []
    asks = settings.validate_.drift_warn if settings.gate.ask_drift else None
    rule = at_most("drift", f"{furthest}, factor", furthest.factor, None, asks, ".3g")
    # What has fallen to nothing has an infinite factor, let through by validate.drift_fail; JSON knows no infinity.
    return [rule if math.isfinite(furthest.factor) else replace(rule, figure=None)]


def _against_champion(
    store: RunStore, settings: Settings, champion: Published
) -> tuple[Comparison | None, Rule]:
    trained.device(settings)  # that there is no GPU is not the champion's fault
    try:
        comparison = compare(store, settings, champion.run_id)
    except ChampionGone as error:
        reason = (
            f"champion {champion.run_id} (version {champion.version}) could not be compared with, "
            f"its weights are gone or unreadable: {error}"
        )
        log.warning("gate: %s", reason)
        return None, Rule(rule="champion", outcome="passed", reason=reason)
    old = comparison.metrics[protocol(settings)][METRIC]
    low, high = comparison.ci95
    return comparison, at_least(
        "champion",
        f"{protocol(settings)} NDCG@10 differs from the champion's ({old:.4f}, run {champion.run_id}) by "
        f"{comparison.difference:+.4f}, 95% interval {low:+.4f} to",
        high,
        -settings.gate.tolerance * old,
        None if settings.gate.ask_tolerance is None else -settings.gate.ask_tolerance * old,
        "+.4f",
    )


def _against_table(store: RunStore, settings: Settings, published: Published) -> list[Rule]:
    """What would be served beside what is."""
    gate, rows, tables = settings.gate, Rows(store, settings), open_tables(settings.table)
    try:
        found = change.measure(
            tables,
            published,
            tonight=rows.user_ids(),
            lists=rows.of_users,
            users=gate.compared_users,
            random_state=settings.evaluate.random_state,
        )
    except change.NotReadable as error:
        return [_not_compared(tables, published, settings, error.why)]
    rules = [
        at_most(
            "users_lost",
            f"of {found.users_before:,} users of version {published.version} the share who would have no rows:",
            found.users_lost,
            gate.max_users_lost,
            gate.ask_users_lost,
        )
    ]
    if found.overlap is not None and found.lists_changed is not None:
        compared = f"of {found.users_compared:,} users' lists"
        rules += [
            at_least(
                "overlap",
                f"{compared} the share that would stay:",
                found.overlap,
                gate.min_overlap,
                gate.ask_overlap,
            ),
            at_most(
                "lists_changed",
                f"{compared} the share that would be wholly other ones:",
                found.lists_changed,
                gate.max_lists_changed,
                gate.ask_lists_changed,
            ),
        ]
    return rules


def _not_compared(tables: Tables, published: Published, settings: Settings, error: Exception) -> Rule:
    """Where the rows that are published can't be read.

    Raises:
        OSError: they should be there. Trying again is safe.
    """
    version, newest = f"version {published.version}", next(tables.published(), None)
    is_past = newest is not None and newest.version != published.version
    if is_past and isinstance(error, NotKept):  # its rows were pruned
        reason = f"users_lost: {version} could not be compared with: {error}"
        log.warning("gate: %s", reason)
        return Rule(rule="users_lost", outcome="passed", reason=reason)
    reason = f"users_lost: {version}, which is published, can't be read to compare with: {error}"
    if not settings.gate.force_publish:
        raise OSError(
            f"{reason}: a passing fault is over at the next try; if it stays, see to the table's files and the right "
            "to read them, or publish without comparing by gate.force_publish=true, which is recorded"
        ) from error
    return Rule(rule="users_lost", outcome="refused", reason=reason)


def _against_recent(earlier: list[Published], plausible: float, settings: Settings) -> Rule:
    """Small losses night after night must not add up.

    Each night has test items of its own, so that both sides get the benefit of the doubt: the upper end of tonight's
    interval is held against the lower ends of theirs.
    """
    served = protocol(settings)
    recent = [
        float(found.get("ci95", {}).get(METRIC, [found[METRIC]])[0])
        for published in earlier
        if (found := (published.metadata.get("metrics") or {}).get(served))
    ]
    if not recent:
        return Rule(rule="recent", outcome="passed", reason="no metrics of recent publishes are known")
    return at_least(
        "recent",
        f"beside the last {len(recent)} publishes, of which the best has at least {max(recent):.4f} (lower end of its "
        f"95% interval), the upper end of tonight's interval of {served} NDCG@10 is",
        plausible,
        max(recent) * (1 - 2 * settings.gate.tolerance),
    )
