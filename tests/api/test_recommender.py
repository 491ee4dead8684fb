from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from sasrec_tasks.api import (
    InteractionsDataset,
    ItemsDataset,
    SASRecClassifierEstimator,
    SequentialRecommender,
    SequentialScorer,
)
from sasrec_tasks.schema import interactions_schema_file

Train = Callable[..., SequentialRecommender]
Table = Callable[[list[Any]], pd.DataFrame]
Write = Callable[[pd.DataFrame, str], Path]
Tiny = Callable[..., SASRecClassifierEstimator]

KEY = ["USER_ID", "ITEM_ID", "TIMESTAMP"]
ITEMS = [f"i{item}" for item in range(12)]
CATALOGUE = pd.DataFrame({"ITEM_ID": ITEMS})


def events(user: Any, *items: Any) -> pd.DataFrame:
    return pd.DataFrame({"USER_ID": user, "ITEM_ID": items, "TIMESTAMP": range(len(items))})


def weights(recommender: SequentialRecommender) -> dict[str, Tensor]:
    model = recommender.scorer.estimator.model
    assert model is not None
    return model.state_dict()


def same(one: SequentialRecommender, other: SequentialRecommender) -> bool:
    """Whether both were trained on the same events: weights and popularity are equal to the bit."""
    ours, theirs = weights(one), weights(other)
    return all(torch.equal(ours[name], theirs[name]) for name in ours) and np.array_equal(
        one.scorer.popularity, other.scorer.popularity
    )


# What is trained on


def test_a_tiny_data_set_is_learned_by_heart(learned: SequentialRecommender, circle: pd.DataFrame) -> None:
    first = learned.recommend(circle)
    assert first["USER_ID"].tolist() == sorted(circle["USER_ID"].unique())
    assert first["ITEM_ID"].tolist() == [f"i{(int(user[1:]) + 6) % 12}" for user in first["USER_ID"]]


@pytest.mark.parametrize("inside", [True, False], ids=["in the training table", "only in its own table"])
@pytest.mark.parametrize("later", [True, False])
def test_a_validation_event_and_what_follows_it_is_never_trained_on(
    train: Train, circle: pd.DataFrame, inside: bool, later: bool
) -> None:
    back = circle.groupby("USER_ID").cumcount(ascending=False)
    given = circle[(back >= 2) | ((back == 1) & inside) | ((back == 0) & later)]
    found = train(given, items=CATALOGUE, validation=circle[back == 1], restore_best_weights=False)
    assert same(found, train(circle[back >= 2], items=CATALOGUE))
    assert not same(found, train(circle, items=CATALOGUE))


def test_users_without_a_validation_event_are_trained_on_whole(train: Train, circle: pd.DataFrame) -> None:
    validation = circle[(circle["USER_ID"] == "u3") & (circle["TIMESTAMP"] == 103)]
    found = train(circle, items=CATALOGUE, validation=validation, restore_best_weights=False)
    kept = circle[(circle["USER_ID"] != "u3") | (circle["TIMESTAMP"] < 103)]
    assert same(found, train(kept, items=CATALOGUE))


@pytest.mark.parametrize("inside", [True, False])
def test_train_on_all_trains_on_validation_events_as_well(
    train: Train, circle: pd.DataFrame, inside: bool
) -> None:
    back = circle.groupby("USER_ID").cumcount(ascending=False)
    given = circle if inside else circle[back != 1]
    found = train(given, validation=circle[back == 1], train_on_all=True, restore_best_weights=False)
    assert same(found, train(circle))


def test_order_of_rows_of_different_times_does_not_matter(train: Train, circle: pd.DataFrame) -> None:
    shuffled = circle.sample(frac=1, random_state=0)
    assert same(train(circle), train(shuffled))


def test_rows_of_the_same_time_keep_their_order(train: Train, circle: pd.DataFrame) -> None:
    tied = circle.assign(TIMESTAMP=7)
    assert same(train(circle), train(tied))
    assert not same(train(circle), train(tied.iloc[::-1]))


def test_order_of_rows_of_the_same_time_matters_to_recommendations_too(
    learned: SequentialRecommender,
) -> None:
    asked = events("v", "i3", "i4", "i5")
    want = learned.recommend(asked, top_k=12)
    pd.testing.assert_frame_equal(learned.recommend(asked.assign(TIMESTAMP=0), top_k=12), want)
    turned = learned.recommend(asked.assign(TIMESTAMP=0).iloc[::-1], top_k=12)
    assert turned["SCORE"].tolist() != want["SCORE"].tolist()


def test_early_stopping_without_validation_is_refused_when_training(circle: pd.DataFrame, tiny: Tiny) -> None:
    recommender = SequentialRecommender(SequentialScorer(tiny(early_stopping_patience=5)))
    with pytest.raises(ValueError, match=r"early_stopping_patience=5 needs .*valid_interactions_ds"):
        recommender.train(interactions_ds=circle)


def test_validation_events_that_all_come_first_are_refused(train: Train, circle: pd.DataFrame) -> None:
    with (
        pytest.warns(UserWarning, match="20 of 20 validation interactions are left out"),
        pytest.raises(ValueError, match="nothing to validate on"),
    ):
        train(circle, validation=circle[circle["TIMESTAMP"] == 100])


def test_histories_of_one_event_are_nothing_to_train_on(train: Train, circle: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        train(circle[circle["TIMESTAMP"] == 100])


@pytest.mark.parametrize("column", KEY)
def test_a_missing_column_is_named_with_the_schema(
    train: Train, learned: SequentialRecommender, circle: pd.DataFrame, column: str
) -> None:
    without = circle.drop(columns=column)
    said = rf"no column {column}\b.*{interactions_schema_file().name}"
    for table in (without, InteractionsDataset(without)):
        with pytest.raises(ValueError, match=said):
            train(table)
        with pytest.raises(ValueError, match=said):
            train(circle, validation=table)
        with pytest.raises(ValueError, match=said):
            learned.recommend(table)
        with pytest.raises(ValueError, match=said):
            learned.score_items(table)


def test_outcome_is_needed_to_train(train: Train, circle: pd.DataFrame, write: Write) -> None:
    without = circle.drop(columns="OUTCOME")
    with pytest.raises(ValueError, match=r"t\.csv: no column OUTCOME.*set it to 1\.0"):
        train(InteractionsDataset(write(without, "t.csv")))
    with pytest.raises(ValueError, match=r"^valid_interactions_ds \(a DataFrame\): no column OUTCOME"):
        train(circle, validation=without)


def test_warnings_point_at_the_callers_line(
    learned: SequentialRecommender, circle: pd.DataFrame, train: Train
) -> None:
    unknown = pd.concat([circle, circle.head(1).assign(ITEM_ID="?")])
    for call in (learned.recommend, learned.score_items):
        with pytest.warns(UserWarning, match="rows are skipped") as caught:
            call(unknown)
        assert [warning.filename for warning in caught] == [__file__]
    recommender = SequentialRecommender(SequentialScorer(learned.scorer.estimator), learned.max_len)
    with pytest.warns(UserWarning, match="rows are skipped") as caught:
        recommender.train(interactions_ds=unknown, items_ds=circle[["ITEM_ID"]].drop_duplicates())
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("name", ["exclude_seen", "replace", "as_array"])
def test_what_is_neither_true_nor_false_is_refused(
    learned: SequentialRecommender, circle: pd.DataFrame, name: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, not 'no'"):
        learned.recommend(circle, **{name: "no"})  # type: ignore[call-overload]


def test_a_no_in_words_does_not_train_on_what_is_held_out(train: Train, circle: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"^train_on_all must be .*, not 'no'"):
        train(circle, validation=circle.tail(3), train_on_all="no")


def test_outcome_that_the_given_schema_leaves_out_is_told_as_the_schemas_fault(
    train: Train, circle: pd.DataFrame, write: Write, tmp_path: Path
) -> None:
    schema = tmp_path / "key.yaml"
    kinds = zip(KEY, ("str", "str", "int"), strict=True)
    schema.write_text("columns:\n" + "".join(f"- {{name: {name}, type: {kind}}}\n" for name, kind in kinds))
    dataset = InteractionsDataset(write(circle, "t.csv"), client_schema_path=schema)
    with pytest.raises(ValueError, match=r"key\.yaml: no column OUTCOME, .*t\.csv: add it to this schema"):
        train(dataset)


def test_the_training_schema_serves_to_recommend_without_outcomes(
    learned: SequentialRecommender, circle: pd.DataFrame, write: Write
) -> None:
    want = learned.recommend(circle, top_k=3)
    file = write(circle[KEY], "rec.csv")
    asked = InteractionsDataset(file, client_schema_path=interactions_schema_file())
    pd.testing.assert_frame_equal(learned.recommend(asked, top_k=3), want)
    pd.testing.assert_frame_equal(learned.score_items(asked), learned.score_items(circle))


@pytest.mark.parametrize("outcome", [5.0, float("nan"), "good", None])
def test_outcome_is_not_read_to_recommend(
    learned: SequentialRecommender, circle: pd.DataFrame, outcome: Any
) -> None:
    want = learned.recommend(circle[KEY], top_k=3)
    pd.testing.assert_frame_equal(learned.recommend(circle.assign(OUTCOME=outcome), top_k=3), want)


def test_a_bad_value_is_told_with_its_file(train: Train, circle: pd.DataFrame, write: Write) -> None:
    bad = circle.copy()
    bad.loc[4, "ITEM_ID"] = None
    validation = write(bad.iloc[3:6], "valid.csv")
    with pytest.raises(
        ValueError, match=r"valid\.csv.*: ITEM_ID: 1 of 3 values are missing, the first in row 1"
    ):
        train(circle, validation=InteractionsDataset(validation))
    with pytest.raises(ValueError, match=r"train\.csv: ITEM_ID: 1 of 120 .* row 4"):
        train(InteractionsDataset(write(bad, "train.csv")))
    with pytest.raises(ValueError, match=r"items\.csv: ITEM_ID: 1 of 120 .* row 4"):
        train(circle, items=ItemsDataset(write(bad, "items.csv")))


def test_the_catalogue_says_which_items_there_are(train: Train, circle: pd.DataFrame) -> None:
    catalogue = pd.DataFrame({"ITEM_ID": [*ITEMS[:10], "new"], "TITLE": "?"})
    unknown = circle["ITEM_ID"].isin(ITEMS[10:]).sum()
    with pytest.warns(UserWarning, match=rf"interactions_ds .*: {unknown} of 120 rows are skipped"):
        recommender = train(circle, items=catalogue)
    assert recommender.score_items(events("v", "i1")).columns.tolist() == sorted([*ITEMS[:10], "new"])


# max_len


@pytest.mark.parametrize(("of_estimator", "of_recommender", "used"), [
    (50, 3, 3), (7, 50, 50), ("auto", 50, 50), ("auto", 3, 3), (50, "auto", 20),
])  # fmt: skip
def test_different_max_len_warns_and_that_of_the_recommender_is_used(
    circle: pd.DataFrame, tiny: Tiny, of_estimator: Any, of_recommender: Any, used: int
) -> None:
    recommender = SequentialRecommender(SequentialScorer(tiny(max_len=of_estimator)), max_len=of_recommender)
    said = f"max_len={of_recommender} of SequentialRecommender replaces max_len={of_estimator} of SASRecCl"
    with pytest.warns(UserWarning, match=said):
        recommender.train(interactions_ds=circle)
    model = recommender.scorer.estimator.model
    assert model is not None
    assert model.config.max_len == used
    assert recommender.scorer.estimator.max_len == recommender.max_len == of_recommender


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("of_estimator", "of_recommender"),
    [(7, 7), ("auto", "auto"), ("auto", None), (50, None), (7, None), (7, np.int64(7))],
)
def test_the_same_max_len_or_only_that_of_the_estimator_does_not_warn(
    circle: pd.DataFrame, tiny: Tiny, of_estimator: Any, of_recommender: Any
) -> None:
    arguments = {} if of_recommender is None else {"max_len": of_recommender}
    recommender = SequentialRecommender(SequentialScorer(tiny(max_len=of_estimator)), **arguments)
    assert recommender.max_len == of_estimator
    recommender.train(interactions_ds=circle)
    model = recommender.scorer.estimator.model
    assert model is not None
    assert model.config.max_len == (20 if of_estimator == "auto" else of_estimator)


def test_only_the_last_max_len_items_are_read(train: Train, circle: pd.DataFrame) -> None:
    recommender = train(circle, max_len=4)

    def scores(*items: str) -> Any:
        return recommender.score_items(events("v", *items)).to_numpy()[0].tolist()

    want = scores("i1", "i2", "i3", "i4")
    assert scores("i9", "i8", "i1", "i2", "i3", "i4") == want
    assert scores("i8", "i2", "i3", "i4") != want


# Recommendations


def test_recommendations_are_ranked_rows_in_order_of_user(
    learned: SequentialRecommender, circle: pd.DataFrame
) -> None:
    found = learned.recommend(circle.sample(frac=1, random_state=1), top_k=3)
    assert found.columns.tolist() == ["USER_ID", "RANK", "ITEM_ID", "SCORE", "ORIGIN"]
    assert found["USER_ID"].tolist() == np.repeat(sorted(circle["USER_ID"].unique()), 3).tolist()
    assert found["RANK"].tolist() == [1, 2, 3] * 20
    assert (found.groupby("USER_ID")["SCORE"].diff().dropna() <= 0).all()
    assert set(found["ORIGIN"]) == {"model"}
    assert found.index.tolist() == list(range(60))


def test_scores_of_all_items_agree_with_recommendations(
    learned: SequentialRecommender, circle: pd.DataFrame
) -> None:
    scores = learned.score_items(circle)
    assert scores.shape == (20, 12)
    assert scores.index.name == "USER_ID"
    assert scores.columns.name == "ITEM_ID"
    for user, found in learned.recommend(circle, top_k=12).groupby("USER_ID"):
        ranked = scores.T[user].sort_values(ascending=False)
        assert found["ITEM_ID"].tolist() == ranked.index.tolist()
        assert found["SCORE"].tolist() == ranked.tolist()


def test_a_user_is_recommended_the_same_alone_or_among_many(learned: SequentialRecommender) -> None:
    many = pd.concat([events(f"v{user:03}", *ITEMS[: 1 + user % 9]) for user in range(600)])
    among = learned.recommend(many, top_k=2)
    for user in ("v000", "v300", "v599"):
        alone = learned.recommend(many[many["USER_ID"] == user], top_k=2)
        found = among[among["USER_ID"] == user].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, alone, atol=1e-5)


def test_seen_items_are_left_out_only_on_demand(train: Train, circle: pd.DataFrame) -> None:
    recommender = train(circle, max_len=2)
    asked = events("v", "i3", "i4", "i5", "i6")  # i3 is older than what the model reads
    assert sorted(recommender.recommend(asked, top_k=12)["ITEM_ID"]) == sorted(ITEMS)
    unseen = recommender.recommend(asked, top_k=12, exclude_seen=True)
    assert sorted(unseen["ITEM_ID"]) == sorted(set(ITEMS) - {"i3", "i4", "i5", "i6"})
    assert unseen["RANK"].tolist() == list(range(1, 9))


def test_a_user_who_has_seen_everything_gets_no_row(learned: SequentialRecommender) -> None:
    asked = pd.concat([events("all", *ITEMS), events("few", "i1")])
    assert set(learned.recommend(asked, top_k=2, exclude_seen=True)["USER_ID"]) == {"few"}


def test_more_than_there_is_gives_all_there_is(learned: SequentialRecommender) -> None:
    assert sorted(learned.recommend(events("v", "i1"), top_k=10**9)["ITEM_ID"]) == sorted(ITEMS)


def test_unknown_items_are_skipped_with_a_count(learned: SequentialRecommender) -> None:
    with pytest.warns(UserWarning, match=r"2 of 4 rows are skipped, the model does not know their items"):
        found = learned.recommend(events("v", "i3", "?", "i4", "!"), top_k=3)
    pd.testing.assert_frame_equal(found, learned.recommend(events("v", "i3", "i4"), top_k=3))


@pytest.mark.filterwarnings("ignore:.*rows are skipped")
def test_a_user_with_no_known_item_gets_what_is_popular_in_training(train: Train, table: Table) -> None:
    rows = [(f"u{n}", item, 1.0, time) for n, items in enumerate(["abc", "bca", "bc", "b"]) for time, item in
            enumerate(items)]  # fmt: skip
    validation = table([(f"u{n}", "d", 1.0, 9) for n in range(4)])
    recommender = train(table(rows), validation=validation)
    found = recommender.recommend(pd.concat([events("known", "a"), events("new", "?")]), top_k=4)
    new = found[found["USER_ID"] == "new"]
    assert new["ITEM_ID"].tolist() == ["b", "c", "a"]  # d is not trained on
    assert new["ORIGIN"].tolist() == ["popular"] * 3
    assert new["SCORE"].tolist() == pytest.approx([4 / 9, 3 / 9, 2 / 9])
    assert set(found[found["USER_ID"] == "known"]["ORIGIN"]) == {"model"}
    assert recommender.score_items(events("new", "?")).isna().all(axis=None)


def test_the_plain_array_holds_the_item_ids(learned: SequentialRecommender, circle: pd.DataFrame) -> None:
    array = learned.recommend(circle, top_k=3, as_array=True)
    frame = learned.recommend(circle, top_k=3)
    assert isinstance(array, np.ndarray)
    assert array.shape == (20, 3)
    assert array.ravel().tolist() == frame["ITEM_ID"].tolist()


def test_the_plain_array_holds_none_where_a_user_has_fewer(learned: SequentialRecommender) -> None:
    asked = pd.concat([events("all", *ITEMS[:11]), events("few", "i1")])
    array = learned.recommend(asked, top_k=2, exclude_seen=True, as_array=True)
    assert array[0].tolist() == ["i11", None]
    assert None not in array[1].tolist()


# Ids


def numbered(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with integers as ids, whose order is that of their texts."""
    ids = {column: frame[column].str[1:].astype(int) + 100 for column in ("USER_ID", "ITEM_ID")}
    return frame.assign(**ids)


def test_integers_come_back_as_integers(train: Train, circle: pd.DataFrame) -> None:
    recommender = train(numbered(circle))
    found = recommender.recommend(numbered(circle), top_k=3)
    assert found["USER_ID"].dtype == found["ITEM_ID"].dtype == np.int64
    assert found["USER_ID"].tolist() == np.repeat(np.arange(100, 120), 3).tolist()
    array = recommender.recommend(numbered(circle), top_k=3, as_array=True)
    assert array.dtype == np.int64
    assert array.ravel().tolist() == found["ITEM_ID"].tolist()
    assert recommender.score_items(numbered(circle)).columns.equals(pd.Index(range(100, 112)))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_odd_ids_come_back_as_they_went_in(train: Train, table: Table, write: Write, name: str) -> None:
    odd = ["NA", "007", 'say "hi"', "a,b", "two\nlines", "\U0001f3ac"]
    file = write(table([(user, item, 1.0, time) for user in odd for time, item in enumerate(odd)]), name)
    found = train(InteractionsDataset(file)).recommend(InteractionsDataset(file), top_k=6)
    assert found["USER_ID"].unique().tolist() == sorted(odd)
    for _, rows in found.groupby("USER_ID"):
        assert sorted(rows["ITEM_ID"]) == sorted(odd)


def test_a_csv_with_and_without_a_schema_train_and_ask_the_same(
    train: Train, circle: pd.DataFrame, write: Write
) -> None:
    file, part = write(numbered(circle), "t.csv"), write(numbered(circle)[4::6], "v.csv")
    bare = InteractionsDataset(file), InteractionsDataset(part)
    typed = [
        InteractionsDataset(each, client_schema_path=interactions_schema_file()) for each in (file, part)
    ]
    recommender = train(bare[0], validation=bare[1])
    want = recommender.recommend(bare[0], top_k=3, as_array=True)
    assert np.array_equal(recommender.recommend(typed[0], top_k=3, as_array=True), want)
    for interactions in (bare[0], typed[0]):
        for validation in (bare[1], typed[1]):
            assert same(train(interactions, validation=validation), recommender)


def test_a_validation_csv_of_numbers_cut_out_of_one_with_other_ids_is_still_held_out(
    train: Train, table: Table, write: Write
) -> None:
    rows = [(user, item, 1.0, time) for user in ("1", "x") for time, item in enumerate(["5", "y", "6", "7"])]
    whole, part = table(rows), table(rows[2:3])
    found = train(
        InteractionsDataset(write(whole, "t.csv")),
        validation=InteractionsDataset(write(part, "v.csv")),
        restore_best_weights=False,
    )
    assert same(found, train(table([*rows[:2], *rows[4:]])))


# Drawing


def test_drawing_is_seeded(learned: SequentialRecommender, circle: pd.DataFrame) -> None:
    def drawn(random_state: int | None) -> list[str]:
        return learned.recommend(
            circle, top_k=5, sampling_temperature=2.0, random_state=random_state
        )["ITEM_ID"].tolist()  # fmt: skip

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(None) == drawn(learned.scorer.estimator.random_state)


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_drawn_for_a_user_does_not_hang_on_who_else_is_asked_for(
    learned: SequentialRecommender, replace: bool
) -> None:
    crowd = pd.concat([events(user, "i3", "i4") for user in range(600)])
    among = learned.recommend(crowd, 4, 3.0, replace)
    for user in (0, 300, 599):
        want = among[among["USER_ID"] == user]["ITEM_ID"].tolist()
        for name in (user, str(user)):
            assert learned.recommend(events(name, "i3", "i4"), 4, 3.0, replace)["ITEM_ID"].tolist() == want
    assert among.groupby("USER_ID")["ITEM_ID"].agg(tuple).nunique() > 100


def test_no_temperature_is_none(learned: SequentialRecommender, circle: pd.DataFrame) -> None:
    found = learned.recommend(circle, top_k=3, sampling_temperature=None)
    pd.testing.assert_frame_equal(found, learned.recommend(circle, top_k=3, sampling_temperature=0))


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 5e-324])
def test_near_temperature_0_drawing_is_ranking(
    learned: SequentialRecommender, circle: pd.DataFrame, temperature: float
) -> None:
    want = learned.recommend(circle, top_k=12)
    pd.testing.assert_frame_equal(learned.recommend(circle, top_k=12, sampling_temperature=temperature), want)
    again = learned.recommend(circle, top_k=4, sampling_temperature=temperature, replace=True)
    assert again["ITEM_ID"].tolist() == np.repeat(want[want["RANK"] == 1]["ITEM_ID"], 4).tolist()


def test_without_replacement_no_item_is_drawn_twice(
    learned: SequentialRecommender, circle: pd.DataFrame
) -> None:
    drawn = learned.recommend(circle, top_k=12, sampling_temperature=5.0, as_array=True)
    assert all(sorted(row) == sorted(ITEMS) for row in drawn)


def test_with_replacement_more_can_be_drawn_than_there_is(
    learned: SequentialRecommender, circle: pd.DataFrame
) -> None:
    drawn = learned.recommend(circle, top_k=40, sampling_temperature=5.0, replace=True, as_array=True)
    assert drawn.shape == (20, 40)
    assert all(len(set(row)) <= 12 for row in drawn)


def test_drawing_leaves_out_seen_items_too(learned: SequentialRecommender, circle: pd.DataFrame) -> None:
    seen = set(zip(circle["USER_ID"], circle["ITEM_ID"], strict=True))
    for replace in (True, False):
        drawn = learned.recommend(
            circle, top_k=6, sampling_temperature=50.0, replace=replace, exclude_seen=True
        )  # fmt: skip
        assert len(drawn) == 120
        assert not seen & set(zip(drawn["USER_ID"], drawn["ITEM_ID"], strict=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_items_are_drawn_as_often_as_the_softmax_of_their_scores_says(
    learned: SequentialRecommender, temperature: float
) -> None:
    scores = learned.score_items(events("v", "i3", "i4")).loc["v"].to_numpy(np.float64)
    expected = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    crowd = pd.concat([events(user, "i3", "i4") for user in range(3000)])
    drawn = learned.recommend(crowd, top_k=1, sampling_temperature=temperature)
    shares = drawn["ITEM_ID"].value_counts(normalize=True).reindex(sorted(ITEMS), fill_value=0).to_numpy()
    assert shares == pytest.approx(expected, abs=4 * (0.25 / 3000) ** 0.5)


def test_the_score_of_a_drawn_item_is_its_own(learned: SequentialRecommender, circle: pd.DataFrame) -> None:
    scores = learned.score_items(circle)
    drawn = learned.recommend(circle, top_k=4, sampling_temperature=3.0)
    want = [scores.loc[user, item] for user, item in zip(drawn["USER_ID"], drawn["ITEM_ID"], strict=True)]
    assert drawn["SCORE"].tolist() == want


# Refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"top_k": 0}, "top_k must be a whole number of at least 1, not 0"),
        ({"top_k": 2.5}, "top_k must be a whole number of at least 1, not 2.5"),
        ({"top_k": True}, "top_k must be .*, not True"),
        ({"top_k": None}, "top_k must be .*, not None"),
        ({"sampling_temperature": -0.1}, "sampling_temperature must be .* at least 0, not -0.1"),
        ({"sampling_temperature": float("nan")}, "sampling_temperature must be .*, not nan"),
        ({"sampling_temperature": float("inf")}, "sampling_temperature must be a finite .*, not inf"),
        ({"sampling_temperature": "hot"}, "sampling_temperature must be .*, not 'hot'"),
        ({"random_state": -1}, "random_state must be .* of at least 0 .*, not -1"),
        ({"random_state": "x"}, "random_state must be .*, not 'x'"),
    ],
)
def test_arguments_out_of_bounds_are_refused_by_name(
    learned: SequentialRecommender, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        learned.recommend(events("v", "i1"), **arguments)


@pytest.mark.parametrize("max_len", ["x", 5.5, 0, True])
def test_a_max_len_that_is_none_is_refused_at_once(tiny: Tiny, max_len: Any) -> None:
    scorer = SequentialScorer(tiny())
    said = rf'max_len must be a whole number of at least 1 or "auto", not {max_len!r}'
    with pytest.raises(ValueError, match=said):
        SequentialRecommender(scorer, max_len=max_len)
    with pytest.raises(ValueError, match=said):
        SequentialRecommender(scorer).max_len = max_len


def test_numbers_of_numpy_are_numbers(learned: SequentialRecommender, circle: pd.DataFrame) -> None:
    want = learned.recommend(circle, 3, 2.0, random_state=5)
    got = learned.recommend(circle, np.int64(3), np.float32(2), random_state=np.int64(5))  # type: ignore[call-overload]
    pd.testing.assert_frame_equal(got, want)


def test_a_forgotten_scorer_is_told_with_where_it_goes(tiny: Tiny) -> None:
    with pytest.raises(TypeError, match=r"not SASRecClassifierEstimator: .*SequentialScorer\(estimator\)"):
        SequentialRecommender(tiny())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"estimator must be .*, not .*SASRecClassifierEstimator"):
        SequentialScorer(SASRecClassifierEstimator)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, "train.csv", [1, 2]])
def test_what_is_no_table_is_refused_by_the_name_of_the_argument(
    learned: SequentialRecommender, tiny: Tiny, circle: pd.DataFrame, given: Any
) -> None:
    recommender = SequentialRecommender(SequentialScorer(tiny()))
    told = "list" if isinstance(given, list) else repr(given)
    with pytest.raises(TypeError, match=f"^interactions_ds must be an InteractionsDataset .*, not {told}"):
        recommender.train(interactions_ds=given)
    with pytest.raises(TypeError, match=f"^interactions must be an InteractionsDataset .*, not {told}"):
        learned.recommend(given)
    if given is not None:
        with pytest.raises(TypeError, match=f"^items_ds must be .*, not {told}"):
            recommender.train(interactions_ds=circle, items_ds=given)
        with pytest.raises(TypeError, match=f"^valid_interactions_ds must be .*, not {told}"):
            recommender.train(interactions_ds=circle, valid_interactions_ds=given)


def test_before_training_there_is_nothing_to_recommend(tiny: Tiny) -> None:
    recommender = SequentialRecommender(SequentialScorer(tiny()))
    for ask in (recommender.recommend, recommender.score_items):
        with pytest.raises(RuntimeError, match="not trained yet"):
            ask(events("v", "i1"))


def test_a_table_without_rows_is_refused(learned: SequentialRecommender) -> None:
    with pytest.raises(ValueError, match="no rows"):
        learned.recommend(events("v"))


def test_tables_that_are_handed_over_are_left_as_they_were(train: Train, circle: pd.DataFrame) -> None:
    given, validation = numbered(circle), numbered(circle)[4::6].astype({"USER_ID": str, "TIMESTAMP": float})
    before = given.copy(), validation.copy()
    recommender = train(given, validation=validation)
    recommender.recommend(given)
    pd.testing.assert_frame_equal(given, before[0])
    pd.testing.assert_frame_equal(validation, before[1])
