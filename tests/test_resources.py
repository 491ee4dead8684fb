"""Where tasks run and what they may use, from JSON to the pod that differs."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.pipeline import TASKS
from sasrec_tasks.resources import Resources, read


def test_nothing_is_asked_for_by_default() -> None:
    assert read("", TASKS) == read("{}", TASKS) == {}
    assert Resources().pod() is None
    assert Resources(queue="gpu").pod() is None
    assert Resources(pool="training").pod() is None


def test_a_pod_has_what_is_asked_for() -> None:
    text = (
        '{"train": {"memory": "16Gi", "cpu": "4", "gpu": 1, "ephemeral_storage": "50Gi",'
        ' "node_selector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}}'
    )
    assert read(text, TASKS)["train"].pod() == {
        "spec": {
            "containers": [
                {
                    "name": "base",
                    "resources": {
                        "requests": {"memory": "16Gi", "cpu": "4", "ephemeral-storage": "50Gi"},
                        "limits": {"memory": "16Gi", "ephemeral-storage": "50Gi", "nvidia.com/gpu": "1"},
                    },
                }
            ],
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        }
    }


def test_a_pod_that_only_goes_elsewhere_still_has_its_container() -> None:
    pod = Resources(node_selector={"pool": "large"}).pod()
    assert pod == {"spec": {"containers": [{"name": "base"}], "nodeSelector": {"pool": "large"}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: 16Gi", "not JSON such as"),
        ("[]", "valid dictionary"),
        ('{"trian": {}}', "'trian' is no task: there are evaluate, export, gate, ingest, "),
        ('{"train": {"ram": "16Gi"}}', "train.ram='16Gi': Extra inputs are not permitted"),
        ('{"train": {"memory": "16GB"}}', "train.memory='16GB': String should match"),
        ('{"train": {"memory": 16}, "split": {"gpu": 0}}', "train.memory=16: .*; split.gpu=0: "),
        ('{"train": {"gpu": true}}', "train.gpu=True: "),
        ('{"train": {"pool": ""}}', "train.pool='': "),
    ],
)
def test_what_cannot_be_used_is_named(text: str, told: str) -> None:
    with pytest.raises(BadSettings, match=f"^SASREC_RESOURCES: .*{told}"):
        read(text, TASKS)


@given(
    st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps)
)
def test_anything_else_is_an_error_of_settings(text: str) -> None:
    with suppress(BadSettings):
        assert read(text, TASKS) == {}
