"""Several pipelines from one DAG folder, and tasks on pods of their own, as Airflow sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_processes import ROOT
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


def test_kubernetes_is_not_imported_unless_a_pod_is_set(tmp_path: Path) -> None:
    code = "print('kubernetes' in sys.modules)"
    assert python(code, tmp_path) == "False"
    assert python(code, tmp_path, SASREC_RESOURCES='{"train": {"queue": "gpu"}}') == "False"
    assert python(code, tmp_path, SASREC_RESOURCES='{"train": {"memory": "1Gi"}}') == "True"


def test_the_example_of_helm_values_is_what_the_dag_reads(tmp_path: Path) -> None:
    import yaml

    values = yaml.safe_load((ROOT / "docs" / "helm-values.yaml").read_text(encoding="utf-8"))
    assert all(
        each.keys() == {"name", "value"} for each in values["env"]
    )  # all that the chart's schema takes
    environment = {each["name"]: each["value"] for each in values["env"]}
    found = json.loads(python(READ_POD, tmp_path, SASREC_RESOURCES=environment["SASREC_RESOURCES"]))
    assert "nvidia.com/gpu" in found["pods"]["train"]["spec"]["containers"][0]["resources"]["limits"]
    assert {"SASREC_SOURCE", "SASREC_STORE", "SASREC_TABLE"} <= environment.keys()
    assert values["executor"] == "KubernetesExecutor"


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
