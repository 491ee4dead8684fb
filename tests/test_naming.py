from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.config import GROUPS, Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import (
    as_names,
    describe_settings,
    fields,
    form,
    from_names,
    is_operator_only,
    parse_assignments,
    read_yaml,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
some_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def settings(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 4))
    loss, outcome = draw(
        st.sampled_from(
            [("auto", "rating"), ("bce", "implicit"), ("bce", "soft"), ("mse", "implicit"), ("mse", "rating")]
        )
    )
    values = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "source": some_text,
                "table": some_text,
                "as_of": st.datetimes(timezones=st.just(UTC)) | st.none(),
                "ingest.columns": st.dictionaries(some_text, some_text, max_size=3),
                "ingest.default_outcome": finite | st.none(),
                "ingest.allowed_roots": st.lists(some_text, max_size=3).map(tuple) | st.none(),
                "ingest.cast_ids": st.booleans(),
                "validate.max_rejected_share": st.floats(0, 1),
                "validate.schema_file": some_text | st.none(),
                "split.min_outcome": finite | st.none(),
                "split.memory_limit": st.sampled_from(["1GB", "1.5 GiB", "200MB"]),
                "train.early_stopping_patience": st.integers(1, 10**9) | st.none(),
                "train.max_minutes": st.floats(0, 1e9, exclude_min=True) | st.none(),
                "train.learning_rate": st.floats(0, 1, exclude_min=True),
                "gate.force_publish": st.booleans(),
                "export.top_k": st.integers(1, 1000),
            },
        )
    )
    fitting = {"train.num_heads": heads, "train.hidden_units": 2 * heads * draw(st.integers(1, 64))}
    return values | fitting | {"train.loss": loss, "train.outcome": outcome}


@given(settings())
def test_names_and_settings_are_each_others_inverse_through_json(values: dict[str, Any]) -> None:
    made = from_names(values)
    through_json = json.loads(json.dumps(as_names(made), allow_nan=False))
    assert from_names(through_json) == made
    kept = as_names(made)
    assert all(
        kept[name] == value for name, value in values.items() if not isinstance(value, datetime | tuple)
    )


def test_names_are_all_there_and_dotted_by_task() -> None:
    names = set(as_names(Settings()))
    assert names == {name for name, _ in fields()}
    assert {"source", "store", "table", "as_of", "data_interval_start", "engine"} == {
        name for name in names if "." not in name
    }
    assert {name.partition(".")[0] for name in names if "." in name} == set(GROUPS)
    promised = {
        "ingest.columns", "validate.max_rejected_share", "split.min_outcome", "train.epochs",
        "train.hidden_units", "train.loss", "evaluate.negatives", "gate.tolerance", "gate.force_publish",
        "export.top_k",
    }  # fmt: skip
    assert promised <= names


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("train.epoch", "train.epochs"),
        ("train.hiden_units", "train.hidden_units"),
        ("epochs", "train.epochs"),
        ("top_k", "export.top_k"),
        ("validation.max_rejected_share", "validate.max_rejected_share"),
        ("sorce", "source"),
        ("epoch", "train.epochs"),
        ("evaluate.max_minutes", "train.max_minutes"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(BadSettings) as raised:
        from_names({wrong: 1})
    assert f"{wrong}: no such setting, did you mean {right}?" in str(raised.value)


def test_a_name_that_resembles_none_suggests_none() -> None:
    with pytest.raises(BadSettings) as raised:
        from_names({"qqqqqqqq": 1})
    assert "qqqqqqqq: no such setting" in str(raised.value)
    assert "did you mean" not in str(raised.value)


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(BadSettings) as raised:
        from_names({"train.epochs": 0, "export.top_k": -1, "nothing": 1, "train.lr": 2}, where="conf")
    for part in ("conf", "train.epochs=0", "export.top_k=-1", "nothing", "train.lr"):
        assert part in str(raised.value)


def test_groups_may_be_nested_dotted_or_both() -> None:
    nested = from_names({"train": {"epochs": 5}, "train.max_len": 7, "export": {"top_k": 3}})
    assert nested == from_names({"train.epochs": 5, "train.max_len": 7, "export.top_k": 3})
    assert (nested.train.epochs, nested.train.max_len, nested.export.top_k) == (5, 7, 3)


def test_a_value_in_place_of_a_group_is_told_apart_from_an_unknown_name() -> None:
    with pytest.raises(BadSettings, match=r"train=5: is a group of settings"):
        from_names({"train": 5})


def test_yaml_file_nested_and_dotted(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "source: data\nas_of: 2024-05-01T00:00:00Z\ntrain: {epochs: 5}\nsplit.min_outcome: 4\n"
        "validate:\n  max_rejected_share: 0.5\nevaluate:\n",
        encoding="utf-8",
    )
    made = from_names(read_yaml(file))
    assert (made.source, made.train.epochs, made.split.min_outcome) == ("data", 5, 4)
    assert made.validate_.max_rejected_share == 0.5
    assert made.as_of == datetime(2024, 5, 1, tzinfo=UTC)


def test_an_empty_yaml_file_holds_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("# nothing yet\n", encoding="utf-8")
    assert from_names(read_yaml(file)) == Settings()


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"a: [1\n", b"\xff\xfe\x00", b"just words"])
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(BadSettings, match=r"settings\.yaml"):
        from_names(read_yaml(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"nowhere\.yaml"):
        read_yaml(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("train.epochs=5", "train.epochs", 5),
        ("train.learning_rate=1e-3", "train.learning_rate", 0.001),
        ("ingest.columns={user_id: USER_ID}", "ingest.columns", {"user_id": "USER_ID"}),
        ('ingest.columns={"a=b": "USER_ID"}', "ingest.columns", {"a=b": "USER_ID"}),
        ("train.early_stopping_patience=null", "train.early_stopping_patience", None),
        ("gate.force_publish=true", "gate.force_publish", True),
        ("source=12", "source", "12"),
        ("source=memory://a=b", "source", "memory://a=b"),
        ("as_of=2024-05-01", "as_of", "2024-05-01T00:00:00Z"),
        ("split.memory_limit=1GB", "split.memory_limit", "1GB"),
    ],
)
def test_set(assignment: str, name: str, value: Any) -> None:
    assert as_names(from_names(parse_assignments([assignment])))[name] == value


def test_the_later_set_wins() -> None:
    assert parse_assignments(["train.epochs=5", "train.epochs=6"]) == {"train.epochs": 6}


@pytest.mark.parametrize("assignment", ["train.epochs", "train.epochs 5", "ingest.columns={a: [", ""])
def test_set_that_is_no_assignment_is_repeated(assignment: str) -> None:
    with pytest.raises(BadSettings) as raised:
        parse_assignments([assignment])
    assert f"--set {assignment}" in str(raised.value)


# The form


def test_the_form_has_every_setting_but_the_operators() -> None:
    names = {name for name, _, _ in form()}
    operators = {name for name, field in fields() if is_operator_only(field)}
    assert names == set(as_names(Settings())) - operators
    assert operators == {
        "ingest.allowed_roots",
        "ingest.query",
        "validate.schema_file",
        "split.spill_folder",
        "export.eligible_items",
        "export.excluded_pairs",
        "metrics.textfile",
        "prune.keep_versions",
        "prune.keep_days",
        "prune.keep_runs_days",
        "engine",
        *(name for name, _ in fields() if name.startswith("ray.")),
    }


@pytest.mark.parametrize(("name", "default", "schema"), list(form()), ids=[name for name, _, _ in form()])
def test_the_forms_schemas_are_flat_and_complete(name: str, default: Any, schema: dict[str, Any]) -> None:
    assert schema["section"] in {"data", "model", "training", "evaluation", "publishing"}
    assert schema["title"]
    assert schema["description_md"]
    assert not {"anyOf", "allOf", "$ref", "default", "description", "operator_only"} & set(schema)
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert set(types) <= {"string", "number", "integer", "boolean", "object", "null"}
    json.dumps(schema, allow_nan=False)
    assert default is not None or "null" in types
    if default is not None:
        assert from_names({name: default}) == Settings()


def test_the_form_knows_bounds_choices_and_what_may_be_empty() -> None:
    schemas = {name: schema for name, _, schema in form()}
    assert schemas["train.epochs"]["minimum"] == 1
    assert schemas["validate.max_rejected_share"]["maximum"] == 1
    assert schemas["train.dropout_rate"]["exclusiveMaximum"] == 1
    assert schemas["train.loss"]["enum"] == ["auto", "bce", "gbce", "mse", "sampled_softmax", "softmax"]
    assert schemas["train.early_stopping_patience"]["type"] == ["integer", "null"]
    assert schemas["train.early_stopping_patience"]["minimum"] == 1
    assert schemas["as_of"]["format"] == "date-time"
    assert schemas["ingest.columns"]["type"] == "object"
    assert schemas["train.hidden_units"]["section"] == "model"
    assert schemas["train.epochs"]["section"] == "training"
    assert schemas["gate.tolerance"]["section"] == "publishing"


def test_the_form_says_every_bound_in_the_help() -> None:
    help_of = {name: schema["description_md"] for name, _, schema in form()}
    assert help_of["train.epochs"].endswith(" (1 to 100,000)")
    assert help_of["train.dropout_rate"].endswith(" (≥ 0, < 1)")
    assert help_of["ingest.lookback_days"].endswith(" (> 0, ≤ 100,000)")
    assert help_of["split.min_user_events"].endswith(" (≥ 1)")
    for name, _, schema in form():
        bounds = [schema[key] for key in schema if key.endswith(("inimum", "aximum"))]
        said = help_of[name].rpartition(". (")[2]
        assert all(f"{bound:,}" in said for bound in bounds), name
        assert bounds or said == help_of[name], name


def test_sections_come_in_the_order_of_the_tasks() -> None:
    seen = dict.fromkeys(schema["section"] for _, _, schema in form())
    assert list(seen) == ["data", "model", "training", "evaluation", "publishing"]


def test_a_described_setting_is_one_row_of_a_table() -> None:
    for parts in describe_settings():
        assert not any("\n" in part for part in parts)
