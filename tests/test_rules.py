"""A figure, its limits, and what follows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.rules import WORST_FIRST, Rule, at_least, at_most, worst_first

FIGURES = st.floats(-1, 1)
BOUNDS = st.none() | FIGURES


@given(FIGURES, BOUNDS, BOUNDS)
def test_beyond_the_limit_is_refused_and_beyond_the_other_is_asked(
    figure: float, limit: float | None, ask: float | None
) -> None:
    found = at_least("x", "what", figure, limit, ask)
    if limit is not None and figure < limit:
        assert found.outcome == "refused"
    elif ask is not None and figure < ask:
        assert found.outcome == "asks"
    else:
        assert found.outcome == "passed"
    assert (found.figure, found.limit, found.ask) == (figure, limit, ask)


@given(FIGURES, BOUNDS, BOUNDS)
def test_at_most_is_at_least_turned_round(figure: float, limit: float | None, ask: float | None) -> None:
    low, lower = (None if bound is None else -bound for bound in (limit, ask))
    turned = at_least("x", "", -figure, low, lower)
    assert at_most("x", "", figure, limit, ask).outcome == turned.outcome


def test_what_is_told_names_figure_and_limits() -> None:
    assert (
        at_least("coverage", "share", 0.25, 0.3).reason
        == "coverage: share 0.2500 (at least 0.3000 is needed)"
    )
    told = at_most("users lost", "share", 0.25, 0.5, 0.2, ".0%").reason
    assert told == "users lost: share 25% (at most 50% is allowed, at most 20% without approval)"
    assert at_most("x", "figure", 1.0, None).reason == "x: figure 1.0000"


@given(st.lists(st.sampled_from(WORST_FIRST)))
def test_the_worst_comes_first_and_equals_stay_in_order(outcomes: list[str]) -> None:
    rules = [Rule(rule=str(n), outcome=outcome, reason="") for n, outcome in enumerate(outcomes)]  # type: ignore[arg-type]
    ordered = worst_first(rules)
    assert sorted(ordered, key=lambda rule: int(rule.rule)) == rules
    keys = [(WORST_FIRST.index(rule.outcome), int(rule.rule)) for rule in ordered]
    assert keys == sorted(keys)
