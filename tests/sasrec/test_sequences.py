from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import compress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.sequences import HeldOut, LeaveLastTwoOut, Sequences

Make = Callable[..., Sequences]
Events = list[list[tuple[int, float]]]  # per user: item, outcome

users_events: st.SearchStrategy[Events] = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1.0, 2.0, 3.0])), max_size=9), max_size=7
)


def build(sequences: Make, events: Events) -> Sequences:
    return sequences([[i for i, _ in row] for row in events], [[o for _, o in row] for row in events])


def lists(events: Sequences) -> Events:
    return [
        list(zip(events.items[start:end].tolist(), events.outcomes[start:end].tolist(), strict=True))
        for start, end in zip(events.starts, events.ends, strict=True)
    ]


@given(events=users_events, others=users_events, data=st.data())
@settings(deadline=None)
def test_joined_and_renumbered_are_those_of_lists(
    sequences: Make, events: Events, others: Events, data: st.DataObject
) -> None:
    users = min(len(events), len(others))
    one, other = build(sequences, events[:users]), build(sequences, others[:users])
    chosen = data.draw(st.lists(st.integers(0, users - 1), max_size=5)) if users else []
    some = np.array(chosen, dtype=np.int64)
    both = one.select(some).joined(other.select(some))
    assert lists(both) == [events[user] + others[user] for user in chosen]
    index = np.array([0, *data.draw(st.permutations(range(9)))])
    assert lists(one.select(some).renumbered(index)) == [
        [(int(index[item]), outcome) for item, outcome in events[user]] for user in chosen
    ]


@given(events=users_events, n=st.integers(0, 12), data=st.data())
@settings(deadline=None)
def test_slices_are_those_of_lists(sequences: Make, events: Events, n: int, data: st.DataObject) -> None:
    whole = build(sequences, events)
    assert lists(whole) == events
    assert len(whole) == len(events)
    assert whole.lengths.tolist() == [len(row) for row in events]
    assert lists(whole.last(n)) == [row[max(len(row) - n, 0) :] for row in events]
    assert lists(whole.without_last(n)) == [row[: max(len(row) - n, 0)] for row in events]
    chosen = data.draw(st.lists(st.integers(0, len(events) - 1), max_size=9)) if events else []
    assert lists(whole.select(np.array(chosen, dtype=np.int64))) == [events[user] for user in chosen]


@given(events=users_events, back=st.integers(0, 4), n=st.integers(0, 6))
@settings(deadline=None)
def test_flat_and_padded_show_each_event_in_its_place(
    sequences: Make, events: Events, back: int, n: int
) -> None:
    part = build(sequences, events).without_last(back).last(n)
    expected = [[item for item, _ in row] for row in lists(part)]
    rows, columns, positions = part.flat()
    places = list(zip(rows.tolist(), columns.tolist(), part.items[positions].tolist(), strict=True))
    assert places == [(u, t, item) for u, row in enumerate(expected) for t, item in enumerate(row)]
    width = max([len(row) for row in expected] + [1])
    assert part.padded().tolist() == [row + [0] * (width - len(row)) for row in expected]
    num_items = max([item for row in expected for item in row], default=1)
    counted = [sum(row.count(item) for row in expected) for item in range(num_items + 1)]
    assert part.item_counts(num_items).tolist() == counted


def reference_split(events: Events, min_outcome: float, min_user_events: int) -> dict[str, list[object]]:
    """Leave the last two out, event by event."""
    out: dict[str, list[object]] = {"train": [], "whole": [], "validation": [], "test": []}
    for user, row in enumerate(events):
        kept = [place for place, (_, outcome) in enumerate(row) if outcome >= min_outcome]
        positives = [row[place] for place in kept]
        out["whole"].append(positives)
        if len(positives) < min_user_events:
            continue
        if len(positives) < 3:
            out["train"].append(positives)
            continue
        out["train"].append(positives[:-2])
        for name, back in (("validation", 2), ("test", 1)):
            target, outcome = positives[-back]
            out[name].append((user, target, outcome, positives[:-back], row[: kept[-back]]))
    return out


def listed(held_out: HeldOut) -> list[object]:
    columns = [held_out.users.tolist(), held_out.targets.tolist(), held_out.outcomes.tolist()]
    return list(zip(*columns, lists(held_out.history), lists(held_out.seen), strict=True))


@given(
    events=users_events,
    min_outcome=st.sampled_from([None, 1.0, 2.0, 2.5, 9.0]),
    min_user_events=st.integers(1, 5),
)
@settings(deadline=None, max_examples=150)
def test_split_equals_an_event_by_event_reference(
    sequences: Make, events: Events, min_outcome: float | None, min_user_events: int
) -> None:
    split = LeaveLastTwoOut.of(
        build(sequences, events), min_outcome=min_outcome, min_user_events=min_user_events
    )
    expected = reference_split(events, min_outcome or 0.0, min_user_events)
    assert lists(split.train) == expected["train"]
    assert lists(split.whole) == expected["whole"]
    assert len(split.whole) == len(events)
    of_train = [len(row) >= min_user_events for row in lists(split.whole)]
    assert lists(split.unsplit) == list(compress(lists(split.whole), of_train))
    assert len(split.unsplit) == len(split.train)
    assert listed(split.validation) == expected["validation"]
    assert listed(split.test) == expected["test"]


def test_last_event_is_test_and_the_one_before_validation(sequences: Make) -> None:
    split = LeaveLastTwoOut.of(sequences([[1, 2, 3, 4]]))
    assert lists(split.train) == [[(1, 1.0), (2, 1.0)]]
    assert split.validation.targets.tolist() == [3]
    assert split.test.targets.tolist() == [4]
    assert lists(split.test.history) == [[(1, 1.0), (2, 1.0), (3, 1.0)]]


def test_users_with_fewer_than_three_events_are_trained_whole_and_not_evaluated(sequences: Make) -> None:
    split = LeaveLastTwoOut.of(sequences([[1], [2, 3], [4, 5, 6], []]))
    assert lists(split.train)[:2] == [[(1, 1.0)], [(2, 1.0), (3, 1.0)]]
    assert split.validation.users.tolist() == split.test.users.tolist() == [2]


def test_low_outcomes_are_seen_but_never_read_or_a_target(sequences: Make) -> None:
    events = sequences([[1, 2, 3, 4, 5, 6]], [[5.0, 1.0, 5.0, 1.0, 5.0, 1.0]])
    split = LeaveLastTwoOut.of(events, min_outcome=4.0)
    assert split.test.targets.tolist() == [5]
    assert [item for item, _ in lists(split.test.history)[0]] == [1, 3]
    assert [item for item, _ in lists(split.test.seen)[0]] == [1, 2, 3, 4]  # 6 came after the target
    assert [item for item, _ in lists(split.validation.seen)[0]] == [1, 2]


def test_held_out_users_can_be_selected(random_split: LeaveLastTwoOut) -> None:
    chosen = np.array([5, 0, 5])
    rows = listed(random_split.test)
    assert listed(random_split.test.select(chosen)) == [rows[5], rows[0], rows[5]]


def test_some_held_out_are_drawn_in_order(random_split: LeaveLastTwoOut) -> None:
    test = random_split.test
    assert test.sample(None, 0) is test.sample(len(test), 0) is test
    some = test.sample(4, 0)
    assert len(some) == 4
    assert (np.diff(some.users) > 0).all()
    assert some.users.tolist() == test.sample(4, 0).users.tolist()
    assert len({tuple(test.sample(4, seed).users) for seed in range(9)}) > 1


@pytest.mark.parametrize("min_outcome", [None, 2.0])
def test_memory_mapped_arrays_are_read_and_never_written(
    sequences: Make, mapped: Callable[[Sequences], Sequences], min_outcome: float | None
) -> None:
    random = np.random.default_rng(0)
    events: Events = [
        [(int(item), float(item % 3 + 1)) for item in random.integers(1, 10, size=size)] for size in range(12)
    ]
    in_memory = build(sequences, events)
    on_disk = mapped(in_memory)
    with warnings.catch_warnings(action="error"):
        got = LeaveLastTwoOut.of(on_disk, min_outcome=min_outcome)
        want = LeaveLastTwoOut.of(in_memory, min_outcome=min_outcome)
        assert lists(got.train) == lists(want.train)
        assert listed(got.test) == listed(want.test)
        assert got.train.padded().tolist() == want.train.padded().tolist()
