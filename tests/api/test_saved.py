from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sasrec_tasks.api import SequentialRecommender, SequentialScorer, saved
from sasrec_tasks.api.saved import FILE
from sasrec_tasks.sasrec.weights import CONFIG_FILE, WEIGHTS_FILE

FILES = [FILE, CONFIG_FILE, WEIGHTS_FILE, "model_card.json", "model_card.md"]

Train = Callable[..., SequentialRecommender]


@pytest.fixture(scope="module")
def good(learned: SequentialRecommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    learned.save(folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    """Edit the content of a JSON file in place, and its digest with it."""
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    digests = content.pop("sha256", None)
    if digests is not None:
        if isinstance(digests, dict):
            digests[FILE] = saved._digest(content)
        content["sha256"] = digests
    file.write_text(json.dumps(content), encoding="utf-8")


def test_what_is_loaded_recommends_the_same(
    learned: SequentialRecommender, folder: Path, circle: pd.DataFrame
) -> None:
    loaded = SequentialRecommender.load(folder)
    asked = pd.concat([circle, pd.DataFrame({"USER_ID": ["new"], "ITEM_ID": ["?"], "TIMESTAMP": [0]})])
    with pytest.warns(UserWarning, match="1 of 121 rows are skipped"):
        got, want = loaded.recommend(asked, top_k=12), learned.recommend(asked, top_k=12)
    assert set(got["ORIGIN"]) == {"model", "popular"}
    pd.testing.assert_frame_equal(got, want)
    pd.testing.assert_frame_equal(loaded.score_items(circle), learned.score_items(circle))
    drawn, again = (each.recommend(circle, top_k=3, sampling_temperature=1.0) for each in (loaded, learned))
    pd.testing.assert_frame_equal(drawn, again)


def test_settings_come_back(train: Train, circle: pd.DataFrame, tmp_path: Path) -> None:
    saved = train(
        circle, regressor=True, max_len="auto", random_state=np.int64(7), learning_rate=np.float32(0.5)
    )
    saved.save(tmp_path)
    loaded = SequentialRecommender.load(tmp_path)
    assert type(loaded.scorer.estimator) is type(saved.scorer.estimator)
    settings = {**saved.scorer.estimator.settings, "device": None}  # a matter of the machine
    assert loaded.scorer.estimator.settings == settings
    assert loaded.max_len == "auto"
    assert loaded.scorer.estimator.model is not None
    assert loaded.scorer.estimator.model.config.max_len == 20


@pytest.mark.parametrize("ids", [[3, -5, 2**62], ["NA", "007", 'a "b",\n\U0001f3ac']])
def test_ids_come_back_as_they_went_in(train: Train, ids: list[Any], tmp_path: Path) -> None:
    rows = pd.DataFrame({"USER_ID": "u", "ITEM_ID": ids, "OUTCOME": 1.0, "TIMESTAMP": [0, 1, 2]})
    train(rows).save(tmp_path)
    loaded = SequentialRecommender.load(tmp_path)
    found = loaded.recommend(rows, top_k=3)["ITEM_ID"].tolist()
    assert sorted(found) == sorted(ids)
    assert {type(id_) for id_ in found} == {type(id_) for id_ in ids}
    assert loaded.score_items(rows).columns.tolist() == sorted(ids)


def test_what_is_loaded_can_be_trained_again(folder: Path, circle: pd.DataFrame) -> None:
    loaded = SequentialRecommender.load(folder)
    before = loaded.score_items(circle)
    loaded.train(interactions_ds=circle)  # same data, same settings, same seed
    pd.testing.assert_frame_equal(loaded.score_items(circle), before)


def test_saving_over_another_model_replaces_it(
    train: Train, learned: SequentialRecommender, folder: Path, circle: pd.DataFrame
) -> None:
    other = train(circle, random_state=9)
    other.save(folder)
    loaded = SequentialRecommender.load(folder)
    pd.testing.assert_frame_equal(loaded.score_items(circle), other.score_items(circle))
    assert not np.allclose(loaded.score_items(circle), learned.score_items(circle))


def test_what_was_trained_with_numbers_of_numpy_is_saved(
    train: Train, circle: pd.DataFrame, tmp_path: Path
) -> None:
    saved = train(circle, hidden_units=np.int64(8), max_len=np.int32(5), dropout_rate=np.float32(0))
    saved.save(tmp_path)
    loaded = SequentialRecommender.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.score_items(circle), saved.score_items(circle))
    assert loaded.max_len == 5


@pytest.mark.parametrize("broken", ["save_model", "_digests", "json.dumps"])
def test_a_save_that_fails_leaves_what_was_saved_before(
    train: Train,
    learned: SequentialRecommender,
    folder: Path,
    circle: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    other = train(circle, random_state=9)
    with monkeypatch.context() as patch:
        patch.setattr(f"sasrec_tasks.api.saved.{broken}", fail)
        with pytest.raises(OSError, match="no space left"):
            other.save(folder)
    loaded = SequentialRecommender.load(folder)
    pd.testing.assert_frame_equal(loaded.score_items(circle), learned.score_items(circle))
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)


def test_settings_changed_after_training_are_not_those_of_what_is_saved(train: Train, tmp_path: Path) -> None:
    rows = {"USER_ID": "u", "ITEM_ID": ["a", "b"], "OUTCOME": 1.0, "TIMESTAMP": [0, 1]}
    trained = train(pd.DataFrame(rows))
    before = trained.scorer.estimator.settings
    trained.scorer.estimator.hidden_units = 64
    trained.scorer.estimator.dropout_rate = float("nan")
    trained.save(tmp_path)
    loaded = SequentialRecommender.load(tmp_path).scorer
    assert loaded.estimator.settings == {**before, "device": None}
    assert loaded.model.config.hidden_units == before["hidden_units"]


def test_each_of_two_recommenders_of_one_estimator_keeps_its_model(
    learned: SequentialRecommender, train: Train, circle: pd.DataFrame, tmp_path: Path
) -> None:
    first = train(circle)
    want = first.recommend(circle, top_k=3)
    second = SequentialRecommender(SequentialScorer(first.scorer.estimator), max_len=first.max_len)
    second.train(interactions_ds=circle[circle["ITEM_ID"].isin(circle["ITEM_ID"].unique()[:5])])
    pd.testing.assert_frame_equal(first.recommend(circle, top_k=3), want)
    first.save(tmp_path)
    pd.testing.assert_frame_equal(SequentialRecommender.load(tmp_path).recommend(circle, top_k=3), want)


def test_nothing_is_pickled(good: Path) -> None:
    assert sorted(file.name for file in good.iterdir()) == sorted(FILES)
    for name in (FILE, CONFIG_FILE):
        json.loads((good / name).read_text(encoding="utf-8"))


def test_an_untrained_recommender_is_not_saved(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not trained yet"):
        SequentialRecommender(SequentialScorer(tiny())).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match=str(folder)) as raised:
        SequentialRecommender.load(folder)
    said = str(raised.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.0])
def test_an_unknown_version_is_refused(folder: Path, version: Any) -> None:
    change(folder / FILE, lambda content: content.update(version=version))
    assert f"is of version {version!r}, this program reads version 1" in refused(folder)


@pytest.mark.parametrize("name", [FILE, CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refused(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [FILE, CONFIG_FILE, WEIGHTS_FILE])
def test_a_file_that_was_cut_short_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert name in refused(folder)


def test_tampered_weights_are_refused(folder: Path) -> None:
    weights = bytearray((folder / WEIGHTS_FILE).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(weights)
    assert f"{WEIGHTS_FILE} is not the file that was saved with it" in refused(folder)


@pytest.mark.parametrize(
    "sizes", [{"num_items": 13}, {"hidden_units": 8}, {"num_blocks": 1}, {"max_len": 51}, {"num_heads": 2}]
)
def test_sizes_that_were_changed_are_refused(folder: Path, sizes: dict[str, int]) -> None:
    change(folder / CONFIG_FILE, lambda content: content["config"].update(sizes))
    assert CONFIG_FILE in refused(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["items"].reverse(),
        lambda content: content["items"].pop(),
        lambda content: content["popularity"].pop(),
        lambda content: content["items"].append(content["items"][0]),
        lambda content: content.update(estimator="Guess"),
        lambda content: content["settings"].update(magic=1),
        lambda content: content["settings"].update(num_negatives=0),
        lambda content: content.pop("max_len"),
        lambda content: content.pop("sha256"),
        lambda content: content.update(popularity=["much"]),
        lambda content: content.update(settings=[1]),
        lambda content: content["settings"].update(random_state="x"),
        lambda content: content["settings"].update(random_state=None),
        lambda content: content["settings"].update(hidden_units=8.0),
        lambda content: content["settings"].update(verbose=True, device="foo"),
        lambda content: content.update(estimator=["SASRecClassifierEstimator"]),
        lambda content: content.update(max_len="x"),
        lambda content: content.update(max_len=None),
        lambda content: content.update(max_len=0),
        lambda content: content.update(items=dict.fromkeys(content["items"], 1)),
        lambda content: content.update(items="abcdefghijkl"),
        lambda content: content.update(popularity=dict.fromkeys(content["items"], 0.1)),
        lambda content: content.update(popularity=["NaN", *content["popularity"][1:]]),
        lambda content: content.update(popularity=[float("nan"), *content["popularity"][1:]]),
        lambda content: content.update(popularity=[-0.1, *content["popularity"][1:]]),
        lambda content: content.update(popularity=[True, *content["popularity"][1:]]),
        lambda content: content.update(popularity=None),
        lambda content: content.update(sha256=[]),
        lambda content: content["settings"].update(hidden_units=64),
        lambda content: content["settings"].update(temperature=0.1),
        lambda content: content["settings"].update(blocks="gated"),
        lambda content: content["settings"].pop("epochs"),
        lambda content: content.update(max_len=7),
    ],
)
def test_a_description_that_does_not_fit_is_refused(folder: Path, edit: Callable[[Any], None]) -> None:
    change(folder / FILE, edit)
    assert f"{FILE}: does not fit" in refused(folder)


def test_an_item_id_that_was_changed_by_hand_is_refused(folder: Path) -> None:
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    content["items"][-1] += "z"
    (folder / FILE).write_text(json.dumps(content), encoding="utf-8")
    assert f"{FILE} is not the file that was saved with it" in refused(folder)


def test_a_file_that_holds_another_kind_of_json_is_refused(folder: Path) -> None:
    (folder / FILE).write_text("[1]")
    assert "is of version None" in refused(folder)
