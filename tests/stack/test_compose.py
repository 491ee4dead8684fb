"""docker-compose.yml, Dockerfile, .env.example and .dockerignore, read as docker would read them.

compose-spec.json is the schema of the Compose specification, as github.com/compose-spec/compose-go has it in
`schema/` at e70e961c (Apache License 2.0).
"""

import base64
import fnmatch
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from compose_file import (
    DOCKERFILE,
    ROOT,
    TEXT,
    VARIABLE,
    compose_file,
    instructions,
    interpolated,
    passed_on,
    read_env,
)
from compose_file import services as started_services

from sasrec_tasks.pipeline import TASKS
from sasrec_tasks.resources import read

SECRETS = (
    "POSTGRES_PASSWORD",
    "AIRFLOW_ADMIN_PASSWORD",
    "REDIS_PASSWORD",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__CORE__FERNET_KEY",
)
REQUIRED = (*SECRETS, "SASREC_DATA")
ONE_SHOT = "airflow-init"
PASSED_ON = {name for name, value in compose_file()["x-environment"].items() if value is None}
"""What .env may set, and services then have."""


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    return compose_file()


@pytest.fixture
def env() -> dict[str, str]:
    return {name: f"a value of {name}" for name in REQUIRED}


@pytest.fixture
def services(raw: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = interpolated(raw["services"], env)
    for service in result.values():
        service["environment"] = passed_on(service["environment"], env)
    return result


def of_airflow(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if name not in ("postgres", "redis")}


def test_has_the_services_of_a_production_stack(services: dict[str, Any]) -> None:
    assert list(services) == [
        "postgres", "redis", ONE_SHOT, "api-server", "scheduler", "dag-processor", "triggerer", "worker",
        "worker-gpu",
    ]  # fmt: skip
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {"redis": ["celery", "gpu"], "worker": ["celery"], "worker-gpu": ["gpu"]}


def test_keeps_to_the_compose_specification(raw: dict[str, Any]) -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(raw)


def test_every_image_is_pinned_and_every_service_has_limits(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"sasrec-tasks|[a-z]+:\d+(\.\d+)+-bookworm", service["image"]), name
        assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name


def test_every_lasting_service_has_a_health_check_and_is_restarted(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["stop_grace_period"], name
        if name == ONE_SHOT:
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        check = service["healthcheck"]
        assert check["test"][0] == "CMD", name
        assert {"interval", "timeout", "retries", "start_period"} <= check.keys(), name


def test_health_checks_use_only_what_the_images_have(services: dict[str, Any]) -> None:
    for name, service in of_airflow(services).items():
        if name == ONE_SHOT:
            continue
        program, *arguments = service["healthcheck"]["test"][1:]
        assert program in ("python", "airflow", "bash"), name
        if program == "python":
            assert arguments[0] == "-c"
            compile(arguments[1], name, "exec")
    assert services["postgres"]["healthcheck"]["test"][1] == "pg_isready"


def test_services_wait_for_what_they_need(services: dict[str, Any]) -> None:
    for name, service in of_airflow(services).items():
        waits = service["depends_on"]
        assert waits["postgres"]["condition"] == "service_healthy", name
        if name != ONE_SHOT:
            assert waits[ONE_SHOT]["condition"] == "service_completed_successfully", name
    assert services["scheduler"]["depends_on"]["api-server"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_stops_with_a_sentence_that_says_what_to_set(
    raw: dict[str, Any], env: dict[str, str], name: str, value: str | None
) -> None:
    del env[name]
    if value is not None:
        env[name] = value
    with pytest.raises(LookupError, match=rf"{name} is missing a value: Set {name} in \.env to .+"):
        interpolated(raw, env)


def test_no_secret_has_a_default() -> None:
    for name, operator, argument in VARIABLE.findall(TEXT):
        if name in REQUIRED:
            assert operator == ":?", name
            assert argument, name
        else:
            assert not re.search("PASSWORD|SECRET|KEY", name), f"{name}: a secret that may be missing"
    assert {name for name in PASSED_ON if re.search("PASSWORD|SECRET|KEY", name)} == {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    literal = {
        key: value
        for service in yaml.safe_load(TEXT)["services"].values()
        for key, value in service["environment"].items()
        if re.search(r"PASSWORD$|SECRET|KEY", key) and value and not str(value).startswith("${")
    }
    assert not literal


def test_the_password_of_the_database_needs_no_escaping(services: dict[str, Any]) -> None:
    for name, service in of_airflow(services).items():
        environment = service["environment"]
        assert environment["PGPASSWORD"] == "a value of POSTGRES_PASSWORD", name
        assert "value" not in environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], name


def test_all_of_airflow_share_one_environment(raw: dict[str, Any]) -> None:
    shared = raw["x-environment"]
    for name, service in of_airflow(raw["services"]).items():
        other = dict(shared.items() - service["environment"].items())
        assert other.keys() <= ({"AIRFLOW__CELERY__WORKER_CONCURRENCY"} if name == "worker-gpu" else set()), (
            name
        )
        assert service["image"] == raw["x-airflow"]["image"], name
    assert interpolated(shared["AIRFLOW__CORE__EXECUTOR"], {}) == "LocalExecutor"
    assert shared["AIRFLOW__CORE__PARALLELISM"] == "4"
    assert len(re.findall(r"^ +AIRFLOW__CORE__FERNET_KEY:", TEXT, re.MULTILINE)) == 1  # aliases, not copies
    assert "api-server:8080" in shared["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]


def test_only_the_api_server_knows_the_admin_password(services: dict[str, Any]) -> None:
    assert [n for n, s in services.items() if "AIRFLOW_ADMIN_PASSWORD" in s["environment"]] == ["api-server"]


def test_the_ui_listens_on_localhost_only_and_nothing_else_does(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}


def test_the_source_is_mounted_read_only_and_places_are_below_mounts(
    services: dict[str, Any], raw: dict[str, Any]
) -> None:
    for name in ("scheduler", "worker", "worker-gpu", ONE_SHOT):
        volumes = services[name]["volumes"]
        binds = [volume for volume in volumes if isinstance(volume, dict)]
        assert [bind["source"] for bind in binds] == ["./dags", "./plugins", "a value of SASREC_DATA"]
        assert all(bind["read_only"] is True for bind in binds)
        assert all(bind["bind"] == {"create_host_path": False} for bind in binds)
        source = binds[-1]
        named = [volume for volume in volumes if isinstance(volume, str)]
        assert named == [
            *("logs:/opt/airflow/logs", "runs:/runs", "table:/table", "metrics:/metrics", "scratch:/tmp"),
        ]
        environment = services[name]["environment"]
        assert environment["SASREC_SOURCE"] == source["target"] == environment["SASREC_ALLOWED_ROOTS"]
        assert environment["SASREC_STORE"] == "/runs"
        assert environment["SASREC_TABLE"].startswith("/table/")
        assert environment["SASREC_METRICS_TEXTFILE"].startswith("/metrics/")
    assert raw["volumes"].keys() == {"postgres", "redis", "runs", "table", "metrics", "scratch", "logs"}


def test_reports_and_messages_read_what_they_show_and_write_none_of_it(services: dict[str, Any]) -> None:
    for name in ("api-server", "triggerer"):
        volumes = services[name]["volumes"]
        assert {"runs:/runs:ro", "table:/table:ro"} <= {each for each in volumes if isinstance(each, str)}
        assert services[name]["environment"]["SASREC_STORE"] == "/runs"
    assert "AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins" in DOCKERFILE


def test_every_service_sees_the_dags_and_writes_none(services: dict[str, Any]) -> None:
    for name, service in of_airflow(services).items():
        binds = {each["target"]: each for each in service["volumes"] if isinstance(each, dict)}
        for folder in ("dags", "plugins"):
            assert binds[f"/opt/airflow/{folder}"]["read_only"] is True, name
            assert (ROOT / binds[f"/opt/airflow/{folder}"]["source"]).is_dir(), name


def test_nothing_runs_with_privileges(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["user"] == ("1000:0" if name in of_airflow(services) else name), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "network_mode", "ipc"}, name


WRITES = {
    "postgres": {"/tmp", "/var/run/postgresql", "/var/lib/postgresql/data"},
    "redis": {"/tmp", "/data"},
    "api-server": {"/tmp", "/opt/airflow", "/opt/airflow/logs"},
    "dag-processor": {"/tmp", "/opt/airflow", "/opt/airflow/logs"},
    "triggerer": {"/tmp", "/opt/airflow", "/opt/airflow/logs"},
}
"""Service → where it can write; all others run tasks, or look whether tasks could run."""

WRITES_OF_TASKS = {"/tmp", "/opt/airflow", "/opt/airflow/logs", "/runs", "/table", "/metrics"}


def test_the_root_of_every_container_is_read_only_but_for_what_is_named(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        in_memory = [each.partition(":")[0] for each in service["tmpfs"]]
        assert all(re.search(r"[:,]size=\d+m\b", each) for each in service["tmpfs"]), name
        mounted = [each.split(":") for each in service["volumes"] if isinstance(each, str)]
        assert all(each["read_only"] for each in service["volumes"] if isinstance(each, dict)), name
        writable = [target for _, target, *how in mounted if how != ["ro"]]
        assert set(in_memory) | set(writable) == WRITES.get(name, WRITES_OF_TASKS), name
        assert not set(in_memory) & {target for _, target, *_ in mounted}, (
            name
        )  # docker refuses the same twice


def test_one_service_builds_the_image_that_all_use(raw: dict[str, Any]) -> None:
    assert [name for name, service in raw["services"].items() if "build" in service] == [ONE_SHOT]


DOCUMENTS = ("README.md", "docs/operations.md", "docs/deployment.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_the_documents_name_reaches_the_containers(raw: dict[str, Any], document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:SASREC|AWS)_[A-Z_]*[A-Z](?![A-Z_])", text))
    assert "SASREC_SOURCE" in named or "SASREC_SETTINGS" in named or "SASREC_DEADLINE_HOURS" in named
    ours = {name for name, _, _ in VARIABLE.findall(TEXT)} | raw["x-environment"].keys()
    assert named - ours == ({"SASREC_NO_SKIPS"} & named)  # of `make test-airflow`


def test_a_source_on_s3_is_reached_with_what_env_says(env: dict[str, str]) -> None:
    s3 = {
        "SASREC_SOURCE": "s3://shop-events/interactions",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    for name, service in of_airflow(started_services({**env, **s3})).items():
        assert s3.items() <= service["environment"].items(), name
        assert "AWS_ENDPOINT_URL" not in service["environment"], name  # S3's own: an empty one would be none


def test_every_airflow_command_exists(services: dict[str, Any], tmp_path: Path) -> None:
    used = []
    for service in of_airflow(services).values():
        for words in (service["command"], service.get("healthcheck", {"test": ["CMD"]})["test"][1:]):
            if words[:1] == ["airflow"]:
                used.append(words[1:])
            elif words[:1] == ["bash"]:
                used += [
                    shlex.split(line.partition(" > ")[0])[1:]
                    for line in re.findall(r"^ *(?:exec )?(airflow .*)$", words[-1], re.MULTILINE)
                ]
    assert len(used) == 11
    parse = (
        "import json, sys; from airflow.cli import cli_parser; parser = cli_parser.get_parser(); "
        "[parser.parse_args(words) for words in json.loads(sys.argv[1])]"
    )
    done = subprocess.run(  # apart, since importing Airflow writes into its home
        [sys.executable, "-c", parse, json.dumps(used)],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_shell_commands_are_valid_shell(services: dict[str, Any]) -> None:
    scripts = [
        service["command"] for service in services.values() if service.get("command", [""])[0] == "bash"
    ]
    assert len(scripts) == 5
    for program, options, script in scripts:
        assert options == "-euc"
        subprocess.run([program, "-n", "-c", script], check=True)


def test_the_passwords_file_is_made_at_start_and_kept_private(
    services: dict[str, Any], tmp_path: Path
) -> None:
    script = services["api-server"]["command"][-1].replace("exec airflow api-server", "env; exec sleep 0")
    file = tmp_path / "passwords.json"
    password = 'it\'s "quoted" $HOME \\ é'
    done = subprocess.run(
        ["bash", "-euc", script],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "AIRFLOW_ADMIN_PASSWORD": password,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert yaml.safe_load(file.read_text()) == {"admin": password}
    assert file.stat().st_mode & 0o777 == 0o600
    assert "AIRFLOW_ADMIN_PASSWORD" not in done.stdout


@pytest.mark.parametrize(
    ("unusable", "sentence"),
    [
        ("runs", "{tmp}/runs: user [0-9]+ can't write there: .*SASREC_UID.*"),
        ("data", "{tmp}/data: user [0-9]+ can't read SASREC_DATA: .*SASREC_UID.*"),
        ("key", "AIRFLOW__CORE__FERNET_KEY: not 32 bytes in URL-safe base64: set it in .env to .*openssl.*"),
        (
            "CeleryExecutor",
            "AIRFLOW_EXECUTOR=CeleryExecutor: there is no Redis: set COMPOSE_PROFILES=celery .*",
        ),
        ("NoExecutor", "AIRFLOW_EXECUTOR=NoExecutor: set it in .env to LocalExecutor or CeleryExecutor."),
        (None, None),
    ],
)
def test_init_says_what_is_wrong_with_folders_and_key(
    services: dict[str, Any], tmp_path: Path, unusable: str | None, sentence: str | None
) -> None:
    from cryptography.fernet import Fernet

    for folder in ("logs", "runs", "table", "metrics", "data", "tmp"):
        if folder != unusable:  # root may write everywhere but where nothing is
            (tmp_path / folder).mkdir()
    mounted = r"(?<![\w/])(?:/opt/airflow)?/(logs|runs|table|metrics|data|tmp)\b"
    script = re.sub(mounted, rf"{tmp_path}/\1", services[ONE_SHOT]["command"][-1])
    script = script.partition("airflow db migrate")[0].replace("redis/6379", "127.0.0.1/1")
    script += "echo migrating"
    done = subprocess.run(
        ["bash", "-euc", script],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "AIRFLOW__CORE__FERNET_KEY": "no key" if unusable == "key" else Fernet.generate_key().decode(),
            "AIRFLOW__CORE__EXECUTOR": unusable if unusable and "Executor" in unusable else "LocalExecutor",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    if sentence is None:
        assert (done.returncode, done.stdout) == (0, "migrating\n"), done.stderr
    else:
        assert done.returncode == 1
        assert re.fullmatch(sentence.format(tmp=re.escape(str(tmp_path))) + "\n", done.stderr), done.stderr


def test_init_makes_the_pool_of_trainings_and_leaves_its_slots_as_somebody_has_set_them(
    services: dict[str, Any], tmp_path: Path
) -> None:
    script = services[ONE_SHOT]["command"][-1]
    script = script[script.index("airflow db migrate") :]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def pool_after(command: str) -> Any:
        subprocess.run(["bash", "-euc", command], env=environment, check=True, capture_output=True)
        with sqlite3.connect(tmp_path / "airflow.db") as database:
            return database.execute("SELECT slots FROM slot_pool WHERE pool = 'sasrec_training'").fetchall()

    assert pool_after(script) == [(1,)]
    assert pool_after("airflow pools set sasrec_training 2 'a larger machine'") == [(2,)]
    assert pool_after(script) == [(2,)]


def test_a_worker_without_its_executor_says_so(services: dict[str, Any]) -> None:
    program, options, script = services["worker"]["command"]
    done = subprocess.run(
        [program, options, script],
        env={"PATH": "/usr/bin:/bin", "AIRFLOW__CORE__EXECUTOR": "LocalExecutor"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "set AIRFLOW_EXECUTOR=CeleryExecutor in .env" in done.stderr


def test_the_image_runs_as_a_user_who_is_not_root() -> None:
    user = [rest for name, rest in instructions() if name == "USER"][-1]
    assert user == "1000:0"
    assert re.search(r"python:3\.11\.\d+-slim-bookworm", DOCKERFILE)


def test_the_image_installs_pinned_versions_before_any_code() -> None:
    every = instructions()
    stages = [i for i, (name, _) in enumerate(every) if name == "FROM"]
    stage = [" ".join(rest.split()) for _, rest in every[stages[1] : stages[2]]]
    assert any("--require-hashes --no-deps --requirement /build/image.txt" in line for line in stage)
    assert any("--constraint /build/constraints.txt torch" in line for line in stage)
    assert not any("sasrec_tasks" in line or "dags" in line for line in stage)
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name in ("apache-airflow-providers-celery", "asyncpg", "psycopg2-binary", "redis", "kubernetes"):
        assert re.search(rf"^{name}==[\d.]+$", pinned, re.MULTILINE), name


def test_no_secret_is_baked_into_the_image() -> None:
    assert not re.search(r"^(ARG|ENV).*(PASSWORD|SECRET|FERNET)", DOCKERFILE, re.MULTILINE)


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    copied = [
        name
        for instruction, rest in instructions()
        if instruction == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    ]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch.fnmatch(name, pattern[1:]) for pattern in patterns if pattern[0] == "!"), name
    assert ".env" not in [pattern[1:] for pattern in patterns]


def test_the_example_names_every_variable_and_fills_none() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    given = dict(re.findall(r"^(#?[A-Z_]+)=(.*)$", example, re.MULTILINE))
    used = {name: argument for name, _, argument in VARIABLE.findall(TEXT) if name}
    used |= dict.fromkeys(PASSED_ON, "")
    assert {name.removeprefix("#") for name in given} == {*used, "COMPOSE_PROFILES"}
    for name, default in used.items():
        if name in REQUIRED:
            assert given[name] == ""
        else:
            assert given[f"#{name}"] == default


def make_env(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", ".env.example"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return subprocess.run(
        ["make", "-C", folder, "env", *arguments], check=False, capture_output=True, text=True
    )


def test_make_env_fills_in_every_secret(tmp_path: Path) -> None:
    assert make_env(tmp_path, "DATA=events").returncode == 0
    env = read_env(tmp_path / ".env")
    assert env.pop("SASREC_DATA") == str(tmp_path / "events")
    assert (tmp_path / "events").is_dir()
    uid = env.pop("SASREC_UID", "0")
    assert uid == str(os.getuid())  # as root, the image's own
    assert "sasrec_training" in env.pop("SASREC_RESOURCES")
    assert env.keys() == set(SECRETS)
    assert len(set(env.values())) == len(SECRETS)
    assert len(base64.urlsafe_b64decode(env.pop("AIRFLOW__CORE__FERNET_KEY"))) == 32
    assert all(re.fullmatch("[0-9a-f]{128}", value) for value in env.values())
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {".env", ".env.example", "Makefile", "events"}
    assert "worker" not in started_services(read_env(tmp_path / ".env"))


def test_make_env_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=mine\n")
    done = make_env(tmp_path, "PROFILES=celery")
    assert done.returncode == 0
    assert "stays as it is" in done.stdout
    assert (tmp_path / ".env").read_text() == "POSTGRES_PASSWORD=mine\n"


@pytest.mark.parametrize("profiles", ["celery", "celery,gpu"])
def test_make_env_sets_what_a_profile_needs(tmp_path: Path, profiles: str) -> None:
    assert make_env(tmp_path, f"PROFILES={profiles}").returncode == 0
    env = read_env(tmp_path / ".env")
    assert (env["COMPOSE_PROFILES"], env["AIRFLOW_EXECUTOR"]) == (profiles, "CeleryExecutor")
    started = set(started_services(env))
    assert {"redis", "worker"} <= started
    assert ("worker-gpu" in started) is ("gpu" in profiles)
    places = {name: (each.queue, each.pool) for name, each in read(env["SASREC_RESOURCES"], TASKS).items()}
    queue = "gpu" if "gpu" in profiles else None
    assert places == {"train": (queue, "sasrec_training")}  # which airflow-init makes


def test_make_env_refuses_other_profiles(tmp_path: Path) -> None:
    done = make_env(tmp_path, "PROFILES=gpu")
    assert done.returncode != 0
    assert "celery,gpu" in done.stdout
    assert not (tmp_path / ".env").exists()
