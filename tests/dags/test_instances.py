"""Several pipelines from one DAG folder, and tasks on pods of their own, as Airflow sees them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_processes import ROOT
from compose_file import compose_file
from embedded_airflow import EmbeddedAirflow

from sasrec_tasks.tables import Recommendations

RESOURCES = {
    "split": {"memory": "4Gi"},
    "train": {"memory": "16Gi", "cpu": "4", "gpu": 1, "queue": "gpu", "node_selector": {"pool": "gpu"}},
}
READ_POD = """
import json
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.serialization.serialized_objects import DagSerialization
from kubernetes.client import ApiClient, models as k8s

written = json.loads(json.dumps(DagSerialization.to_dict(dag)))
read = DagSerialization.from_dict(written)
base = k8s.V1Pod(
    metadata=k8s.V1ObjectMeta(name="worker"),
    spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="sasrec-tasks")]),
)
pods = {}
for task in read.tasks:
    override = (task.executor_config or {}).get("pod_override")
    assert override is None or isinstance(override, k8s.V1Pod)
    if override is not None:
        pods[task.task_id] = ApiClient().sanitize_for_serialization(PodGenerator.reconcile_pods(base, override))
print(json.dumps({"pods": pods, "queues": {task.task_id: task.queue for task in read.tasks}}))
"""


def python(code: str, home: Path, **environment: str) -> str:
    """What a Python prints in which the DAG is `dag`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SASREC"))}
    load = f"import sys; sys.path.insert(0, {str(ROOT / 'dags')!r})\nimport sasrec_nightly\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{load}dag = sasrec_nightly.make_dag()\n{code}"],
        env={**kept, "AIRFLOW_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_task_s_pod_is_what_the_settings_say(tmp_path: Path) -> None:
    found = json.loads(python(READ_POD, tmp_path, SASREC_RESOURCES=json.dumps(RESOURCES)))
    assert found["pods"].keys() == {"split", "train"}
    (container,) = found["pods"]["train"]["spec"]["containers"]
    assert container["image"] == "sasrec-tasks"  # the workers' pod is kept
    assert container["resources"] == {
        "requests": {"memory": "16Gi", "cpu": "4"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"},
    }
    assert found["pods"]["train"]["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert found["queues"] == {name: "gpu" if name == "train" else "default" for name in found["queues"]}


READ_SHOP = """
import json
from airflow.serialization.serialized_objects import DagSerialization

shop = sasrec_nightly.make_dag(
    "shop",
    {"store": "/shop/runs", "table": "/shop/table", "source": "/shop/events"},
    schedule=None,
    default_args={"owner": "ann", "retries": 5},
)
facts = {}
for each in (dag, shop):
    read = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(each))))
    train = each.get_task("train")
    facts[each.dag_id] = {
        "pools": {task.task_id: task.pool for task in read.tasks},
        "inlets": [asset.name for asset in each.get_task("ingest").inlets],
        "outlets": [asset.name for asset in each.get_task("export").outlets],
        "deadline": [alert.callback.kwargs for alert in each.deadline],
        "train": [train.owner, train.retries, train.retry_delay.seconds, train.retry_policy is not None],
        "said": each.doc_md,
    }
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """DAG → what is to be known of it, of the deployment's own and of a second one."""
    resources = {"train": {"pool": "sasrec_training"}, "refit": {"pool": "sasrec_training"}}
    home = tmp_path_factory.mktemp("facts")
    printed = python(
        READ_SHOP,
        home,
        SASREC_RESOURCES=json.dumps(resources),
        SASREC_DEADLINE_HOURS="6",
        SASREC_SETTINGS="{}",
    )
    found: dict[str, dict[str, Any]] = json.loads(printed)
    return found


def test_trainings_of_all_pipelines_are_in_the_pool_that_is_named(facts: dict[str, Any]) -> None:
    for each in facts.values():
        inside = {task for task, pool in each["pools"].items() if pool == "sasrec_training"}
        assert inside == {"train", "refit"}
        assert {pool for task, pool in each["pools"].items() if task not in inside} == {"default_pool"}


READ_REFIT = """
import json

shop = sasrec_nightly.make_dag("shop", {"store": "/shop/runs", "table": "/shop/table", "refit.enabled": True})
other = sasrec_nightly.make_dag("other", {"store": "/other/runs", "table": "/other/table"})
print(json.dumps({each.dag_id: each.get_task("refit").pool for each in (dag, shop, other)}))
"""


@pytest.mark.parametrize(
    ("resources", "where_it_is_on"),
    [
        ({"train": {"pool": "training"}}, "training"),
        ({"train": {"pool": "training"}, "refit": {"pool": "refits"}}, "refits"),
        ({"train": {"pool": "training"}, "refit": {}}, "default_pool"),
        ({"split": {"pool": "sorting"}}, "default_pool"),
    ],
)
def test_a_refit_is_where_the_training_is_unless_it_is_off_or_elsewhere(
    tmp_path: Path, resources: dict[str, Any], where_it_is_on: str
) -> None:
    environment = {"SASREC_RESOURCES": json.dumps(resources), "SASREC_SETTINGS": '{"refit.enabled": true}'}
    found = json.loads(python(READ_REFIT, tmp_path, **environment))
    where_it_is_off = resources.get("refit", {}).get("pool", "default_pool")
    assert found == {"sasrec_nightly": where_it_is_on, "shop": where_it_is_on, "other": where_it_is_off}


def test_a_pipeline_has_the_assets_of_its_own_source_and_table(facts: dict[str, Any]) -> None:
    assert facts["sasrec_nightly"]["inlets"] == ["sasrec_interactions"]
    assert facts["sasrec_nightly"]["outlets"] == ["sasrec_recommendations"]
    assert facts["shop"]["inlets"] == ["shop_interactions"]
    assert facts["shop"]["outlets"] == ["shop_recommendations"]


def test_a_deadline_is_told_with_the_pipeline_s_own_table(facts: dict[str, Any]) -> None:
    assert facts["sasrec_nightly"]["deadline"] == [{"hours": 6, "table": ""}]
    assert facts["shop"]["deadline"] == [{"hours": 6, "table": "/shop/table"}]


def test_default_args_add_to_those_that_are_there(facts: dict[str, Any]) -> None:
    assert facts["sasrec_nightly"]["train"] == ["airflow", 3, 60, True]
    assert facts["shop"]["train"] == ["ann", 5, 60, True]


def test_no_pipeline_says_at_which_hour_it_runs(facts: dict[str, Any]) -> None:
    for each in facts.values():
        assert "UTC" not in each["said"]


def test_kubernetes_is_not_imported_unless_a_pod_is_set(tmp_path: Path) -> None:
    code = "print('kubernetes' in sys.modules)"
    assert python(code, tmp_path) == "False"
    assert python(code, tmp_path, SASREC_RESOURCES='{"train": {"queue": "gpu"}}') == "False"
    assert python(code, tmp_path, SASREC_RESOURCES='{"train": {"memory": "1Gi"}}') == "True"


HELM_VALUES = ROOT / "docs" / "helm-values.yaml"


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """The example for the Helm chart."""
    read: dict[str, Any] = yaml.safe_load(HELM_VALUES.read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def helm(values: dict[str, Any]) -> dict[str, str]:
    """The environment of all pods, by the example for the Helm chart."""
    assert all(
        each.keys() == {"name", "value"} for each in values["env"]
    )  # all that the chart's schema takes
    return {each["name"]: each["value"] for each in values["env"]}


def test_the_dag_reads_what_the_helm_values_say(
    values: dict[str, Any], helm: dict[str, str], tmp_path: Path
) -> None:
    assert values["executor"] == "KubernetesExecutor"
    assert {"SASREC_SOURCE", "SASREC_STORE", "SASREC_TABLE"} <= helm.keys()
    found = json.loads(python(READ_POD, tmp_path, **helm))
    assert set(found["pods"]) == {"validate", "split", "train", "evaluate", "refit", "export"}
    pods = {name: pod["spec"]["containers"][0]["resources"]["limits"] for name, pod in found["pods"].items()}
    gpus = {name for name, limits in pods.items() if "nvidia.com/gpu" in limits}
    assert gpus == {"train", "refit"}
    assert pods["refit"] == pods["train"]  # it trains, too


def test_a_late_night_is_told_on_kubernetes(helm: dict[str, str], tmp_path: Path) -> None:
    code = "import json; print(json.dumps([type(each.callback).__name__ for each in dag.deadline]))"
    assert json.loads(python(code, tmp_path, **helm)) == ["AsyncCallback"]


def test_the_helm_values_set_what_the_compose_file_sets_for_the_night_shift(helm: dict[str, str]) -> None:
    compose = compose_file()["x-environment"]
    for name in (
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT",
    ):
        assert helm[name] == compose[name]
    assert helm["AIRFLOW__API__BASE_URL"].startswith("https://")


def test_no_user_password_or_key_of_the_helm_chart_s_own_is_left(values: dict[str, Any]) -> None:
    assert values["createUserJob"] == {"enabled": False}  # admin, admin
    assert values["postgresql"] == {"enabled": False}
    names = [values[name] for name in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName")]
    names += [values["data"]["metadataSecretName"], *(each["secretName"] for each in values["secret"])]
    made = re.findall(r"kubectl create secret generic (\S+)", HELM_VALUES.read_text(encoding="utf-8"))
    assert sorted(made) == sorted(set(names))


def test_nothing_of_the_helm_chart_runs_as_root_or_writes_into_its_image(values: dict[str, Any]) -> None:
    contexts = values["securityContexts"]
    assert contexts["pod"]["runAsNonRoot"] is True
    assert (contexts["pod"]["runAsUser"], contexts["pod"]["fsGroup"]) == (values["uid"], values["gid"])
    assert contexts["containers"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (scratch,) = values["volumes"]
    assert scratch == {"name": "scratch", "emptyDir": {}}
    assert values["volumeMounts"] == [{"name": "scratch", "mountPath": "/tmp"}]
    assert {"name": "HOME", "value": "/tmp"} in values["env"]  # where libraries keep what they keep


SHOP = """
from sasrec_nightly import make_dag  # Airflow reads a DAG file only if these two words are in it

make_dag("shop", {{"store": "{0}/shop/runs", "table": "{0}/shop/table"}}, schedule="0 4 * * *")
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedAirflow:
    """An Airflow whose DAG folder has a second pipeline."""
    home = tmp_path_factory.mktemp("two")
    dags = home / "dags"
    dags.mkdir()
    for file in (ROOT / "dags").glob("*.py"):
        (dags / file.name).symlink_to(file)
    (dags / "shop.py").write_text(SHOP.format(home))
    return EmbeddedAirflow.at(home, AIRFLOW__CORE__DAGS_FOLDER=str(dags))


def test_each_pipeline_is_a_dag_of_its_own_file(two: EmbeddedAirflow) -> None:
    two.command("dags", "reserialize")
    two.command("dags", "list-import-errors")  # its status says so if there are any
    found = two.command("dags", "list", "--output", "json")
    listed = {each["dag_id"]: Path(each["fileloc"]).name for each in json.loads(found[found.index("[{") :])}
    assert (listed["shop"], listed["sasrec_nightly"]) == ("shop.py", "sasrec_nightly.py")


def test_a_second_pipeline_publishes_into_its_own_table(two: EmbeddedAirflow) -> None:
    conf = {"train.epochs": 1, "train.max_len": 20, "gate.force_publish": True}
    done = two.test_run(conf, "shop")
    assert done.returncode == 0, done.stdout + done.stderr
    table = Recommendations(f"{two.home}/shop/table")
    assert table.users() == 300
    assert (two.home / "shop" / "runs" / table.run_id / "export").is_dir()
    assert not Path(two.environment["SASREC_TABLE"]).exists()
    assert not Path(two.environment["SASREC_STORE"]).exists()


@pytest.fixture(scope="module")
def published(two: EmbeddedAirflow) -> tuple[str, str]:
    """Runs of the deployment's own pipeline and of the second, each published in its own table."""
    conf = {"train.epochs": 1, "train.max_len": 20, "gate.force_publish": True}
    return two.id_of_test_run(conf), two.id_of_test_run(conf, "shop")


def still_served(ways: Any) -> list[str]:
    """The tables that the last message names."""
    (post,) = ways.received.posts
    return [line for line in post["text"].splitlines() if ": version " in line]


def test_an_alert_tells_what_the_pipeline_s_own_table_serves(
    two: EmbeddedAirflow, ways: Any, published: tuple[str, str]
) -> None:
    tables = {"sasrec_nightly": two.environment["SASREC_TABLE"], "shop": f"{two.home}/shop/table"}
    broken = two.home / "broken.parquet"
    broken.write_text("no parquet")
    for (dag, table), run in zip(tables.items(), published, strict=True):
        for conf in ({"epochs": 3}, {}):  # a run that could not begin, and one whose first task failed
            ways.received.clear()
            two.test_run(conf, dag, **ways.environment, SASREC_SOURCE=str(broken))
            (line,) = still_served(ways)
            assert f"{table}: version" in line
            assert f"of run {run}" in line


LATE = """
import asyncio, importlib, sys

sys.path.append(PLUGINS)  # as the triggerer does
shop = sasrec_nightly.make_dag(*OWN)
(alert,) = shop.deadline
context = {"dag_run": {"dag_id": "shop", "dag_run_id": "late one", "state": "running", "conf": {}}}
kwargs = {**alert.callback.kwargs, "context": context}
module, _, name = alert.callback.path.rpartition(".")
asyncio.run(getattr(importlib.import_module(module), name)(**kwargs))
print("told")
"""


def test_a_missed_deadline_tells_what_the_pipeline_s_own_table_serves(
    two: EmbeddedAirflow, ways: Any, published: tuple[str, str]
) -> None:
    ways.received.clear()
    own = {"store": f"{two.home}/shop/runs", "table": f"{two.home}/shop/table"}
    code = LATE.replace("OWN", repr(["shop", own])).replace("PLUGINS", repr(str(ROOT / "plugins")))
    environment = {**ways.environment, "SASREC_TABLE": two.environment["SASREC_TABLE"]}
    assert python(code, two.home, **environment, SASREC_DEADLINE_HOURS="6").endswith("told")
    (line,) = still_served(ways)
    assert f"{two.home}/shop/table: version" in line
    assert f"of run {published[1]}" in line
