"""Several pipelines from one installation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.instances import Instance, check_arguments
from sasrec_tasks.naming import form
from sasrec_tasks.pipeline import triggered_settings

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT = {"source": "/data", "store": "/runs", "table": "/table", "prune_keep_versions": "5"}


def settings_of(own: Instance, conf: dict[str, Any] | None = None) -> Any:
    params = own.params({name: default for name, default, _ in own.form()})
    return triggered_settings(params, conf or {}, own.deployment(DEPLOYMENT.get), AS_OF)


def test_the_deployment_s_own_pipeline_has_its_places_and_the_defaults() -> None:
    own = Instance("sasrec_nightly")
    assert list(own.form()) == list(form())
    settings = settings_of(own)
    assert (settings.source, settings.store, settings.table) == ("/data", "/runs", "/table")
    assert settings.prune.keep_versions == 5


def test_the_deployment_s_own_has_what_the_environment_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"user": "USER_ID", "track": "ITEM_ID"}
    environment = {"ingest": {"columns": columns}, "ingest.query": "SELECT 1", "train.epochs": 7}
    monkeypatch.setenv("SASREC_SETTINGS", json.dumps(environment))
    own = Instance("sasrec_nightly")
    assert {name: default for name, default, _ in own.form()}["train.epochs"] == 7
    settings = settings_of(own)
    assert (settings.ingest.columns, settings.ingest.query) == (columns, "SELECT 1")
    assert settings_of(own, {"train.epochs": 3}).train.epochs == 3
    assert settings_of(Instance("sasrec_nightly", {"train.epochs": 5})).train.epochs == 5
    shop = settings_of(Instance("shop", {"store": "/shop/runs", "table": "/shop/table"}))
    assert shop.train.epochs != 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ingest.cast_ids=true", "SASREC_SETTINGS='ingest.cast_ids=true': is no JSON such as"),
        ("[1]", "SASREC_SETTINGS='\\[1\\]': is no JSON such as"),
        ('{"train.epoch": 7}', "SASREC_SETTINGS: train.epoch: no such setting, did you mean train.epochs?"),
        ('{"train.epochs": 0}', "SASREC_SETTINGS: train.epochs=0"),
    ],
)
def test_an_environment_that_cant_be_used_says_so(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SASREC_SETTINGS", text)
    with pytest.raises(BadSettings, match=said):
        Instance("sasrec_nightly")


def test_another_has_what_it_is_given_and_else_what_the_deployment_has() -> None:
    own = Instance(
        "shop",
        {
            "store": "/shop/runs",
            "table": "/shop/table",
            "train": {"epochs": 7},
            "prune": {"keep_versions": 9, "keep_days": None},
            "export.eligible_items": "/shop/items",
            "ingest.query": "SELECT * FROM events",
        },
    )
    settings = settings_of(own)
    assert (settings.source, settings.store, settings.table) == ("/data", "/shop/runs", "/shop/table")
    assert settings.train.epochs == 7
    assert (settings.prune.keep_versions, settings.prune.keep_days) == (9, None)
    assert settings.export.eligible_items == "/shop/items"
    assert settings.ingest.query == "SELECT * FROM events"
    assert settings_of(own, {"train.epochs": 3}).train.epochs == 3


def test_who_triggers_may_not_leave_its_places(tmp_path: Path) -> None:
    own = Instance("shop", {"store": f"{tmp_path}/runs", "table": f"{tmp_path}/table"})
    assert settings_of(own, {"store": f"{tmp_path}/runs"}).store == f"{tmp_path}/runs"
    with pytest.raises(BadSettings, match="table"):
        settings_of(own, {"table": f"{tmp_path}/elsewhere"})
    with pytest.raises(BadSettings, match="only the operator"):
        settings_of(own, {"prune.keep_versions": 2})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "store is not set: each pipeline needs a store and a table of its own"),
        ({"store": "/shop/runs"}, "table is not set"),
        (
            {"store": "/s", "table": "/t", "train.epoch": 1},
            "train.epoch: no such setting, did you mean train.epochs",
        ),
        ({"store": "/s", "table": "/t", "train.epochs": 0}, "train.epochs=0: "),
    ],
)
def test_what_cannot_be_used_is_an_error_of_its_dag_file(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(BadSettings, match=rf"^make_dag\('shop'\): .*{told}"):
        Instance("shop", settings)


@pytest.mark.parametrize(
    ("own", "deployment", "expected"),
    [
        ({"metrics.textfile": "/x/shop.prom"}, "/x/main.prom", "/x/shop.prom"),
        ({"metrics.textfile": "/x/shop.prom"}, None, "/x/shop.prom"),
        ({"metrics.textfile": None}, "/x/main.prom", None),
        ({}, "/x/main.prom", "/x/main-shop.prom"),
        ({}, "null", None),
        ({}, None, None),
    ],
)
def test_no_two_pipelines_write_their_figures_into_one_file(
    own: dict[str, Any], deployment: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEPLOYMENT, "metrics_textfile", deployment or "")
    shop = Instance("shop", {"store": "/shop/runs", "table": "/shop/table", **own})
    assert settings_of(shop).metrics.textfile == expected
    nightly = settings_of(Instance("sasrec_nightly")).metrics.textfile
    assert nightly == (deployment if deployment != "null" else None)


@pytest.mark.parametrize(
    ("name", "settings", "arguments", "told"),
    [
        ("shop", {}, {"params": {"x": 1}}, "params={'x': 1}: the trigger form is made of the settings"),
        ("shop", {}, {"dag_id": "market"}, "dag_id='market': it is the first argument"),
        ("sasrec_nightly", {"train.epochs": 1}, {}, "is the deployment's own, .* SASREC_SETTINGS: give"),
        ("sasrec_nightly", {}, {"schedule": None}, "is the deployment's own"),
    ],
)
def test_what_a_dag_file_may_not_give_is_told_in_a_sentence(
    name: str, settings: dict[str, Any], arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadSettings, match=rf"^make_dag\('{name}'\): {told}"):
        check_arguments(name, settings, arguments)


def test_what_a_dag_file_may_give_is_taken() -> None:
    check_arguments("sasrec_nightly", {}, {})
    check_arguments("shop", {"train.epochs": 1}, {"schedule": None, "default_args": {"owner": "ann"}})
