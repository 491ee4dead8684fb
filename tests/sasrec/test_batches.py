from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.batches import Batch, Batches, bucketed, by_slots, round_up, windows
from sasrec_tasks.sasrec.negatives import Negatives
from sasrec_tasks.sasrec.sequences import LeaveLastTwoOut, Sequences

Make = Callable[..., Sequences]
lengths_of_users = st.lists(st.integers(0, 12), min_size=1, max_size=40)


def distinct_items(lengths: list[int]) -> list[list[int]]:
    """Sequences in which every event has an item of its own: 1, 2, 3, …"""
    items = iter(range(1, sum(lengths) + 1))
    return [[next(items) for _ in range(length)] for length in lengths]


def batches(sequences: Sequences, **changes: Any) -> Batches:
    settings: dict[str, Any] = {
        "max_len": 5,
        "windows": "last",
        "batch_size": 4,
        "batch_slots": None,
        "negatives": Negatives(sampling="other", number=3, num_items=max(2, len(sequences.items))),
        "implicit": True,
        "random_state": 1,
    }
    return Batches(sequences=sequences, **{**settings, **changes})


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.tensors.keys() == y.tensors.keys()
        and all(torch.equal(x.tensors[name], y.tensors[name]) for name in x.tensors)
        for x, y in zip(a, b, strict=True)
    )


@given(lengths=lengths_of_users, max_len=st.integers(1, 8), epoch=st.integers(0, 3))
@settings(deadline=None)
def test_every_training_position_appears_once_an_epoch(
    sequences: Make, lengths: list[int], max_len: int, epoch: int
) -> None:
    rows = distinct_items(lengths)
    drawn = batches(sequences(rows), max_len=max_len)
    targets = [target for batch in drawn.epoch(epoch) for target in batch.targets.tolist()]
    expected = [item for row in rows for item in row[1:][-max_len:]]
    assert Counter(targets) == Counter(expected)
    assert drawn.positions == len(expected)


@given(lengths=lengths_of_users, max_len=st.integers(1, 8))
@settings(deadline=None)
def test_each_target_follows_its_input(sequences: Make, lengths: list[int], max_len: int) -> None:
    rows = distinct_items(lengths)
    follower = {item: after for row in rows for item, after in pairwise(row)}
    for batch in batches(sequences(rows), max_len=max_len).epoch(1):
        assert batch.inputs.shape[1] <= max_len
        inputs = batch.inputs.flatten()[batch.slots].tolist()
        assert [follower[item] for item in inputs] == batch.targets.tolist()


@given(lengths=lengths_of_users)
@settings(deadline=None)
def test_rows_are_oldest_first_with_all_padding_at_the_end(sequences: Make, lengths: list[int]) -> None:
    for batch in batches(sequences(distinct_items(lengths))).epoch(1):
        assert len(batch.inputs) <= 4
        real = batch.inputs != 0
        assert not (real[:, 1:] & ~real[:, :-1]).any()
        assert real[:, 0].all()
        assert real.any(0).all()  # no column of padding alone
        assert torch.equal(real.flatten().nonzero()[:, 0], batch.slots)
        consecutive = (batch.inputs[:, 1:] - batch.inputs[:, :-1])[real[:, 1:]]
        assert (consecutive == 1).all()


@given(lengths=lengths_of_users, max_len=st.integers(1, 8), all_windows=st.booleans())
@settings(deadline=None)
def test_unseen_negatives_are_of_no_window_of_the_same_user(
    sequences: Make, lengths: list[int], max_len: int, all_windows: bool
) -> None:
    rows = distinct_items(lengths)
    owner = {item: set(row) for row in rows for item in row}
    negatives = Negatives(sampling="unseen", number=5, num_items=sum(lengths) + 3)
    drawn = batches(
        sequences(rows), max_len=max_len, negatives=negatives, windows="all" if all_windows else "last"
    )
    for batch in drawn.epoch(1):
        assert batch.negatives.shape == (len(batch.targets), 5)
        for target, found in zip(batch.targets.tolist(), batch.negatives.tolist(), strict=True):
            assert not owner[target] & set(found)


@given(lengths=lengths_of_users, max_len=st.integers(1, 8), slots=st.none() | st.integers(1, 30))
@settings(deadline=None)
def test_with_all_windows_every_event_but_the_first_is_a_target_once(
    sequences: Make, lengths: list[int], max_len: int, slots: int | None
) -> None:
    rows = distinct_items(lengths)
    drawn = batches(sequences(rows), max_len=max_len, windows="all", batch_slots=slots)
    targets = [target for batch in drawn.epoch(1) for target in batch.targets.tolist()]
    assert sorted(targets) == sorted(item for row in rows for item in row[1:])
    assert drawn.positions == len(targets)


@given(lengths=lengths_of_users, events=st.integers(2, 9))
def test_windows_cut_from_the_end_and_share_one_event(
    sequences: Make, lengths: list[int], events: int
) -> None:
    every = sequences(distinct_items(lengths))
    cut, owner = windows(every, events)
    assert (cut.lengths <= events).all()
    for user in range(len(every)):
        own = owner == user
        starts, ends = cut.starts[own], cut.ends[own]
        assert own.any()
        if every.lengths[user]:
            assert ends[0] == every.ends[user]
            assert starts[-1] == every.starts[user]
            assert (starts[:-1] == ends[1:] - 1).all()
            assert (cut.lengths[own][:-1] == events).all()


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60), slots=st.integers(1, 100))
def test_batches_by_slots_hold_no_more_than_asked_or_one_row(lengths: list[int], slots: int) -> None:
    array = np.array(lengths)
    blocks = list(by_slots(np.argsort(array, kind="stable"), array, slots))
    assert all(len(rows) == 1 or len(rows) * array[rows].max() <= slots for rows in blocks)
    assert np.sort(np.concatenate(blocks)).tolist() == list(range(len(array)))


@given(lengths=st.lists(st.integers(2, 30), min_size=1, max_size=60), slots=st.integers(1, 100))
@settings(deadline=None)
def test_little_data_is_cut_into_32_batches_where_it_has_rows_for_them(
    sequences: Make, lengths: list[int], slots: int
) -> None:
    drawn = batches(sequences(distinct_items(lengths)), max_len=30, windows="all", batch_slots=slots)
    made = list(drawn.epoch(1))
    assert len(made) >= min(32, len(lengths) // 2)
    assert all(
        len(batch.inputs) == 1 or batch.inputs.numel() <= min(slots, drawn.positions) for batch in made
    )
    alone = [batch for batch in made if len(batch.inputs) == 1]
    assert len(made) >= 32 or alone or drawn.positions < 32


@given(lengths=lengths_of_users, slots=st.none() | st.integers(1, 30))
@settings(deadline=None)
def test_each_position_weighs_the_same_whatever_its_batch(
    sequences: Make, lengths: list[int], slots: int | None
) -> None:
    made = list(batches(sequences(distinct_items(lengths)), max_len=30, batch_slots=slots).epoch(1))
    of_a_position = [float(batch.weight) / len(batch.targets) for batch in made]
    assert of_a_position == pytest.approx([of_a_position[0]] * len(made)) if made else True
    assert sum(float(batch.weight) for batch in made) == pytest.approx(len(made))


@given(lengths=lengths_of_users, slots=st.none() | st.integers(1, 30), parts=st.integers(1, 5))
@settings(deadline=None)
def test_the_parts_of_a_batch_are_its_rows_and_weigh_as_much(
    sequences: Make, lengths: list[int], slots: int | None, parts: int
) -> None:
    for sampling in ("shared", "other"):
        negatives = Negatives(sampling=sampling, number=2, num_items=sum(lengths) + 2)
        made = batches(sequences(distinct_items(lengths)), batch_slots=slots, negatives=negatives)
        for batch in made.epoch(0):
            cut = batch.parts(parts)
            assert len(cut) == min(parts, len(batch.inputs))
            assert max(len(part.inputs) for part in cut) - min(len(part.inputs) for part in cut) <= 1
            for name in ("inputs", "targets", "labels"):
                assert torch.equal(torch.cat([getattr(part, name) for part in cut]), getattr(batch, name))
            inputs = torch.cat([part.inputs.flatten()[part.slots] for part in cut])
            assert torch.equal(inputs, batch.inputs.flatten()[batch.slots])
            assert float(sum(part.weight for part in cut)) == pytest.approx(float(batch.weight))
            if sampling == "shared":
                assert all(torch.equal(part.negatives, batch.negatives) for part in cut)
            else:
                assert torch.equal(torch.cat([part.negatives for part in cut]), batch.negatives)


@given(number=st.integers(1, 10**6))
def test_round_numbers_are_few_and_at_most_an_eighth_more(number: int) -> None:
    assert number <= round_up(number) <= number * 9 / 8
    assert round_up(round_up(number)) == round_up(number)
    assert len({round_up(each) for each in range(1, 2000)}) <= 8 * 11


@given(lengths=lengths_of_users, slots=st.none() | st.integers(1, 30))
@settings(deadline=None)
def test_a_padded_batch_has_the_same_targets_and_negatives_for_the_same_inputs(
    sequences: Make, lengths: list[int], slots: int | None
) -> None:
    for sampling in ("shared", "other"):
        negatives = Negatives(sampling=sampling, number=2, num_items=sum(lengths) + 2)
        for batch in batches(
            sequences(distinct_items(lengths)), batch_slots=slots, negatives=negatives
        ).epoch(0):
            padded = batch.padded(max_len=5)
            assert padded.inputs.shape[1] <= 5
            assert padded.counts is not None
            real = padded.counts > 0
            assert padded.positions == batch.positions == len(batch.targets)
            assert torch.equal(
                padded.inputs.flatten()[padded.slots][real], batch.inputs.flatten()[batch.slots]
            )
            assert torch.equal(padded.targets[real], batch.targets)
            assert torch.equal(padded.labels[real], batch.labels)
            of_real = padded.negatives if sampling == "shared" else padded.negatives[real]
            assert torch.equal(of_real, batch.negatives)
            assert torch.equal(padded.weight, batch.weight)
            assert float(padded.counts.mean()) == pytest.approx(1)


def test_an_epoch_is_drawn_from_random_state_and_number_alone(sequences: Make) -> None:
    drawn = batches(sequences(distinct_items([7] * 30)))
    first, second = list(drawn.epoch(1)), list(drawn.epoch(2))
    np.random.default_rng().random(5)
    torch.rand(5)
    again = batches(sequences(distinct_items([7] * 30)))
    assert same(list(again.epoch(2)), second)
    assert same(list(again.epoch(1)), first)
    assert not same(first, second)
    other = batches(sequences(distinct_items([7] * 30)), random_state=2)
    assert not same(list(other.epoch(1)), first)


def test_users_meet_others_in_each_epoch(sequences: Make) -> None:
    drawn = batches(sequences(distinct_items([3] * 40)))

    def company(epoch: int) -> set[frozenset[int]]:
        return {frozenset(batch.inputs[:, 0].tolist()) for batch in drawn.epoch(epoch)}

    assert len(company(1) & company(2)) < 3


@given(lengths=lengths_of_users)
@settings(deadline=None)
def test_nothing_from_held_out_events_is_in_training(sequences: Make, lengths: list[int]) -> None:
    rows = distinct_items(lengths)
    split = LeaveLastTwoOut.of(sequences(rows))
    held_out = {item for row in rows if len(row) >= 3 for item in row[-2:]}
    for batch in batches(split.train).epoch(1):
        assert not held_out & set(batch.inputs.flatten().tolist())
        assert not held_out & set(batch.targets.tolist())


@pytest.mark.parametrize("implicit", [True, False])
def test_labels_are_the_targets_outcomes_unless_implicit(sequences: Make, implicit: bool) -> None:
    rows = distinct_items([4, 6, 2])
    events = sequences(rows, [[item / 16 for item in row] for row in rows])
    for batch in batches(events, implicit=implicit).epoch(1):
        expected = torch.ones(len(batch.targets)) if implicit else batch.targets / 16
        assert torch.equal(batch.labels, expected)
        assert batch.labels.dtype == torch.float32


def test_memory_mapped_sequences_give_the_same_batches(
    random_split: LeaveLastTwoOut, mapped: Callable[[Sequences], Sequences]
) -> None:
    on_disk = batches(mapped(random_split.train))
    in_memory = batches(random_split.train)
    assert same(list(on_disk.epoch(1)), list(in_memory.epoch(1)))


@given(lengths=st.lists(st.integers(1, 50), max_size=300), batch_size=st.integers(1, 20))
@settings(deadline=None)
def test_every_row_is_in_one_batch(lengths: list[int], batch_size: int) -> None:
    got = list(bucketed(np.array(lengths, dtype=np.int64), batch_size, np.random.default_rng(0)))
    assert all(1 <= len(rows) <= batch_size for rows in got)
    assert sorted(np.concatenate([*got, np.array([], dtype=np.int64)]).tolist()) == list(range(len(lengths)))


def test_rows_of_a_batch_are_of_similar_length_and_batches_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=3000)
    got = [lengths[rows] for rows in bucketed(lengths, 32, np.random.default_rng(1))]
    slots = sum(len(batch) * batch.max() for batch in got)
    assert lengths.sum() / slots > 0.9
    longest = np.array([batch.max() for batch in got])
    assert abs(np.corrcoef(longest[1:], longest[:-1])[0, 1]) < 0.4
