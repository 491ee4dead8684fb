"""The report in Airflow: its own API server, runs of the DAG in each state, and who may read what."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from airflow_processes import AIRFLOW, PATIENCE, ROOT, answers, ends_of, free_ports, running
from embedded_airflow import EmbeddedAirflow

OWN_DAGS = '''
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

class OwnDags(SimpleAuthManager):
    """Airflow's simple auth manager, but that bob may not read the nightly DAG."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        if user.username == "bob" and details and details.id == "sasrec_nightly":
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
'''


@dataclass(frozen=True)
class Airflow(EmbeddedAirflow):
    """An Airflow with the plugin, and its API server."""

    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['AIRFLOW__API__PORT']}"

    def get(self, path: str, who: str = "admin", **headers: str) -> httpx.Response:
        if who:
            headers["Authorization"] = f"Bearer {self.tokens.get(who, who)}"
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=60)

    def page(self, run_id: str, dag_id: str = "sasrec_nightly") -> httpx.Response:
        return self.get(f"/reports/run/{dag_id}/{run_id}")


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "auth").mkdir()
    (home / "auth" / "own_dags.py").write_text(OWN_DAGS)
    (home / "passwords.json").write_text(json.dumps({"admin": "admin", "bob": "bob"}))
    own = Airflow.at(
        home,
        PYTHONPATH=os.pathsep.join([str(home / "auth"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
        AIRFLOW__CORE__AUTH_MANAGER="own_dags.OwnDags",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="admin:admin,bob:viewer",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(home / "passwords.json"),
        AIRFLOW__API_AUTH__JWT_SECRET=secrets.token_hex(64),
        AIRFLOW__API__SECRET_KEY=secrets.token_hex(64),
        AIRFLOW__API__WORKERS="1",
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__API__PORT=str(free_ports(1)[0]),
    )
    log = home / "api-server.log"
    with running([AIRFLOW, "api-server"], log, own.environment) as server:
        deadline = time.monotonic() + PATIENCE
        with httpx.Client(base_url=own.url, timeout=60) as api:
            while not answers(api):
                assert time.monotonic() < deadline, ends_of([log])
                assert server.poll() is None, ends_of([log])
                time.sleep(0.5)
            for who in ("admin", "bob"):
                answer = api.post("/auth/token", json={"username": who, "password": who})
                own.tokens[who] = answer.json()["access_token"]
        yield own


@pytest.fixture(scope="module")
def published(airflow: Airflow) -> str:
    return airflow.id_of_test_run({"train.epochs": 2, "gate.force_publish": True})


@pytest.fixture(scope="module")
def refused(airflow: Airflow, published: str) -> str:
    assert published
    return airflow.id_of_test_run({"train.epochs": 1, "train.learning_rate": 1e-9})


@pytest.fixture(scope="module")
def other_dag(airflow: Airflow, published: str) -> str:
    """A run of another DAG."""
    assert published
    return airflow.id_of_test_run({}, "recommendations_digest")


def timed(airflow: Airflow, path: str) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    return airflow.get(path), time.monotonic() - started


def test_the_plugin_is_loaded_and_puts_a_tab_on_runs_and_on_the_dag(airflow: Airflow) -> None:
    plugins = {each["name"]: each for each in airflow.get("/api/v2/plugins").json()["plugins"]}
    views = {view["destination"]: view for view in plugins["sasrec_report"]["external_views"]}
    assert views["dag_run"]["href"] == "/reports/run/{DAG_ID}/{RUN_ID}"
    assert views["dag"]["href"] == "/reports/dag/{DAG_ID}"
    assert airflow.get("/api/v2/plugins/importErrors").json()["total_entries"] == 0


def test_a_task_that_imports_the_plugin_imports_no_web_server() -> None:
    script = """
import sys
import airflow.plugins_manager
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import sasrec_report
print([name for name in ("fastapi", "numpy", "pyarrow", "jinja2", "sqlalchemy") if name in set(sys.modules) - before])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "plugins")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_published_run_has_all_of_its_report(airflow: Airflow, published: str) -> None:
    answer, first = timed(airflow, f"/reports/run/sasrec_nightly/{published}")
    _, then = timed(airflow, f"/reports/run/sasrec_nightly/{published}")
    print(f"\nrun: {len(answer.content):,} bytes, {first:.2f} s, then {then:.3f} s")  # noqa: T201
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for section in (
        "gate",
        "metrics",
        "training",
        "lengths",
        "ages",
        "examples",
        "data",
        "tasks",
        "table",
        "settings",
    ):
        assert f'<section id="{section}"' in answer.text, section
    assert "Version 0 of" in answer.text
    assert str(airflow.home / "recommendations") in answer.text
    assert "../../dag/sasrec_nightly" in answer.text


def test_every_answer_forbids_scripts_and_is_not_kept(airflow: Airflow, published: str) -> None:
    for path, who in (
        (f"/reports/run/sasrec_nightly/{published}", "admin"),
        ("/reports/dag/sasrec_nightly", "admin"),
        ("/reports/run/sasrec_nightly/none", "admin"),
        (f"/reports/run/sasrec_nightly/{published}", ""),
    ):
        headers = airflow.get(path, who).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert "script-src" not in policy
        assert policy["frame-ancestors"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert "no-store" in headers["cache-control"]


@pytest.mark.parametrize("path", ["/reports/run/sasrec_nightly/{}", "/reports/dag/sasrec_nightly"])
def test_only_who_may_read_the_dag_may_read_the_report(airflow: Airflow, published: str, path: str) -> None:
    path = path.format(published)
    assert airflow.get(path, "").status_code == 401
    assert airflow.get(path, "no.such.token").status_code == 403
    refused = airflow.get(path, "bob")
    assert refused.status_code == 403
    assert published not in refused.text
    assert (
        airflow.get(path, "", Cookie=f"_token={airflow.tokens['admin']}").status_code == 200
    )  # as a browser


@pytest.mark.usefixtures("published")
def test_a_dag_that_is_named_twice_is_the_one_that_is_shown(airflow: Airflow, published: str) -> None:
    path = f"/reports/run/sasrec_nightly/{published}?dag_id=recommendations_digest"
    assert airflow.get(path, "bob").status_code == 403


def test_there_are_no_pages_beside(airflow: Airflow) -> None:
    for path in ("docs", "redoc", "openapi.json", "", "run/sasrec_nightly/..%2F..%2Fetc"):
        assert airflow.get(f"/reports/{path}").status_code == 404, path


def test_what_is_not_there_says_so_in_a_sentence(airflow: Airflow, other_dag: str) -> None:
    for dag_id, run_id in (
        ("sasrec_nightly", "none"),
        ("none", "none"),
        ("recommendations_digest", other_dag),
    ):
        answer = airflow.page(run_id, dag_id)
        assert answer.status_code == 404
        assert f"There is no run {run_id} of {dag_id}" in answer.text
    answer = airflow.get("/reports/dag/recommendations_digest")
    assert answer.status_code == 404
    assert "There is no run of recommendations_digest" in answer.text


def test_a_refused_run_has_a_page_with_the_reason(airflow: Airflow, refused: str) -> None:
    text = airflow.page(refused).text
    assert '<p class="status"><span class="badge refused">refused</span>' in text
    assert "not better than popularity" in text
    assert '<section id="metrics"' in text
    assert '<section id="table"' not in text
    assert '<span class="badge upstream-failed">upstream failed</span>' in text


def test_a_run_that_could_not_be_started_says_why(airflow: Airflow) -> None:
    text = airflow.page(airflow.id_of_test_run({"epochs": 3})).text
    assert "did you mean train.epochs?" in text
    assert "ended before it had a folder" in text
    assert '<span class="badge failed">failed</span>' in text


def test_a_run_that_is_at_work_shows_what_is_there(airflow: Airflow, published: str) -> None:
    assert published
    before = airflow.run_ids()
    conf = json.dumps({"train.epochs": 100_000, "train.early_stopping_patience": None})
    process = subprocess.Popen(
        [AIRFLOW, "dags", "test", "sasrec_nightly", "--conf", conf],
        env=dict(airflow.environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        text = ""
        while "At work: train." not in text and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.5)
            text = "".join(airflow.page(run_id).text for run_id in airflow.run_ids() - before)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    assert "At work: train." in text
    assert '<section id="data"' in text
    assert '<section id="gate"' not in text
    assert "running" in airflow.get("/reports/dag/sasrec_nightly").text


def test_the_page_of_the_dag_has_its_nights(airflow: Airflow, published: str, refused: str) -> None:
    answer, seconds = timed(airflow, "/reports/dag/sasrec_nightly")
    print(f"\nnights: {len(answer.content):,} bytes, {seconds:.3f} s")  # noqa: T201
    assert answer.status_code == 200
    for run_id in (published, refused):
        link = run_id.replace(":", "%3A").replace("+", "%2B")
        assert f'href="../run/sasrec_nightly/{link}"' in answer.text
        assert airflow.page(link).status_code == 200
    assert "not better than popularity" in answer.text


@contextmanager
def recorded(airflow: Airflow, run_id: str, place: str) -> Iterator[None]:
    """A run that has recorded another folder as its own."""
    change = "UPDATE xcom SET value = ? WHERE run_id = ? AND key = 'run'"
    kept = airflow.query("SELECT value FROM xcom WHERE run_id = ? AND key = 'run'", run_id)[0][0]
    airflow.query(change, json.dumps(place), run_id)
    try:
        yield
    finally:
        airflow.query(change, kept, run_id)


def test_a_store_that_can_not_be_reached_is_told_on_the_page(airflow: Airflow, published: str) -> None:
    """The API server's S3 is a port at which nobody listens."""
    done = airflow.run("variables", "set", "sasrec_allowed_roots", "s3://bucket/runs")
    assert done.returncode == 0, done.stderr
    with ExitStack() as stack:  # the page of the DAG reads the newest run that can be read
        for (run_id,) in airflow.query("SELECT run_id FROM xcom WHERE key = 'run'"):
            stack.enter_context(recorded(airflow, run_id, f"s3://bucket/runs/{run_id}"))
        for answer in (airflow.page(published), airflow.get("/reports/dag/sasrec_nightly")):
            assert answer.status_code == 200
            assert "Could not connect to the endpoint URL" in answer.text
            assert published in answer.text


@pytest.mark.parametrize("content", ["[]", "{", '{"split.memory_limit": 3}', "null"])
def test_settings_that_are_not_settings_are_told_on_the_page(
    airflow: Airflow, published: str, content: str
) -> None:
    file = airflow.home / "runs" / published / "settings.json"
    kept = file.read_text()
    file.write_text(content)
    try:
        for answer in (airflow.page(published), airflow.get("/reports/dag/sasrec_nightly")):
            assert answer.status_code == 200
        assert "could not be read" in airflow.page(published).text
    finally:
        file.write_text(kept)


def test_a_table_of_runs_that_is_broken_is_told_on_the_page(airflow: Airflow, published: str) -> None:
    assert published
    log = airflow.home / "recommendations_runs" / "_delta_log"
    log.rename(log.with_name("kept"))
    log.mkdir()
    (log / f"{0:020}.json").write_text("{")
    try:
        answer = airflow.get("/reports/dag/sasrec_nightly")
    finally:
        (log / f"{0:020}.json").unlink()
        log.rmdir()
        log.with_name("kept").rename(log)
    assert answer.status_code == 200
    assert "recommendations_runs" in answer.text


@pytest.mark.parametrize(
    "folder", ["{home}/elsewhere/{run}", "{home}/runs/other", "http://127.0.0.1:9/{run}", "/"]
)
def test_no_folder_is_opened_but_the_runs_own_in_a_store_of_the_deployment(
    airflow: Airflow, published: str, folder: str
) -> None:
    """Who may write XComs can't have the server read what they like."""
    place = folder.format(home=airflow.home, run=published)
    elsewhere = airflow.home / "elsewhere" / published
    elsewhere.mkdir(parents=True, exist_ok=True)
    (elsewhere / "settings.json").write_text('{"source": "secret"}')
    with recorded(airflow, published, place):
        answer = airflow.page(published)
    assert answer.status_code == 200
    assert "could not be read" in answer.text
    assert "secret" not in answer.text
    assert '<section id="settings"' not in answer.text


def test_the_stores_of_other_instances_are_read_where_the_operator_names_them(
    airflow: Airflow, published: str
) -> None:
    store = airflow.home / "of another instance"
    assert published
    run_id = airflow.id_of_test_run(
        {"train.epochs": 1, "gate.force_publish": True},
        SASREC_STORE=str(store),
        SASREC_TABLE=str(airflow.home / "second"),
    )
    assert "in no store that the API server knows" in airflow.page(run_id).text
    done = airflow.run("variables", "set", "sasrec_report_stores", f"{airflow.home}/x, {store}")
    assert done.returncode == 0, done.stderr
    assert '<section id="gate"' in airflow.page(run_id).text
