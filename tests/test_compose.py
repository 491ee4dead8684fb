"""docker-compose.yml, Dockerfile, .env.example and .dockerignore, read as docker would read them."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
TEXT = COMPOSE.read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

SECRETS = (
    "POSTGRES_PASSWORD",
    "AIRFLOW_ADMIN_PASSWORD",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__CORE__FERNET_KEY",
)
REQUIRED = (*SECRETS, "SASREC_DATA")
ONE_SHOT = "airflow-init"
VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:\?|:-)([^}]*))?\})")


def interpolated(value: Any, env: dict[str, str]) -> Any:
    """What compose makes of `$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?sentence}`."""
    if isinstance(value, dict):
        return {key: interpolated(inner, env) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, env) for inner in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, operator, argument = match.groups()
        if name is None:
            return "$"
        if env.get(name):
            return env[name]
        if operator == ":?":
            raise LookupError(f"required variable {name} is missing a value: {argument}")
        return str(argument or "")

    return VARIABLE.sub(replacement, value)


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load(TEXT)
    return compose


@pytest.fixture
def env() -> dict[str, str]:
    return {name: f"a value of {name}" for name in REQUIRED}


@pytest.fixture
def services(raw: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = interpolated(raw["services"], env)
    return result


def of_airflow(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if name != "postgres"}


def test_has_the_services_of_a_production_stack(services: dict[str, Any]) -> None:
    assert list(services) == [
        "postgres", ONE_SHOT, "api-server", "scheduler", "dag-processor", "triggerer",
    ]  # fmt: skip


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
        assert program in ("python", "airflow"), name
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
    literal = {
        key: value
        for service in yaml.safe_load(TEXT)["services"].values()
        for key, value in service["environment"].items()
        if re.search(r"PASSWORD$|SECRET|KEY", key) and not str(value).startswith("${")
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
        assert shared.items() <= service["environment"].items(), name
        assert service["image"] == raw["x-airflow"]["image"], name
    assert shared["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
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
    for name in ("scheduler", ONE_SHOT):
        volumes = services[name]["volumes"]
        (source,) = (volume for volume in volumes if isinstance(volume, dict))
        assert source["source"] == "a value of SASREC_DATA"
        assert source["read_only"] is True
        assert source["bind"] == {"create_host_path": False}
        named = [volume for volume in volumes if isinstance(volume, str)]
        assert named == ["logs:/opt/airflow/logs", "runs:/runs", "table:/table"]
        environment = services[name]["environment"]
        assert environment["SASREC_SOURCE"] == source["target"] == environment["SASREC_ALLOWED_ROOTS"]
        assert environment["SASREC_STORE"] == "/runs"
        assert environment["SASREC_TABLE"].startswith("/table/")
    assert raw["volumes"].keys() == {"postgres", "runs", "table", "logs"}


def test_the_api_server_reads_what_its_reports_show_and_writes_none_of_it(services: dict[str, Any]) -> None:
    assert services["api-server"]["volumes"] == ["logs:/opt/airflow/logs", "runs:/runs:ro", "table:/table:ro"]
    assert services["api-server"]["environment"]["SASREC_STORE"] == "/runs"
    assert "AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins" in DOCKERFILE


def test_airflow_runs_without_privileges(services: dict[str, Any]) -> None:
    for name, service in of_airflow(services).items():
        assert service["user"] == "1000:0", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_airflow_command_exists(services: dict[str, Any], tmp_path: Path) -> None:
    used = []
    for service in of_airflow(services).values():
        for words in (service["command"], service.get("healthcheck", {"test": ["CMD"]})["test"][1:]):
            if words[:1] == ["airflow"]:
                used.append(words[1:])
            elif words[:1] == ["bash"]:
                used += [
                    line.split()[2:] for line in words[-1].splitlines() if line.startswith("exec airflow")
                ]
    assert len(used) == 7
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
    assert len(scripts) == 2
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
        (None, None),
    ],
)
def test_init_says_what_is_wrong_with_folders_and_key(
    services: dict[str, Any], tmp_path: Path, unusable: str | None, sentence: str | None
) -> None:
    from cryptography.fernet import Fernet

    for folder in ("logs", "runs", "table", "data"):
        if folder != unusable:  # root may write everywhere but where nothing is
            (tmp_path / folder).mkdir()
    script = services[ONE_SHOT]["command"][-1].replace("/opt/airflow/logs", f"{tmp_path}/logs")
    script = re.sub(r"(?<![\w/])/(runs|table|data)\b", rf"{tmp_path}/\1", script)
    script = script.replace("exec airflow db migrate", "echo migrating")
    done = subprocess.run(
        ["bash", "-euc", script],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "AIRFLOW__CORE__FERNET_KEY": "no key" if unusable == "key" else Fernet.generate_key().decode(),
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


def instructions() -> list[list[str]]:
    """The Dockerfile's instructions, continuation lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    return [line.split() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def test_the_image_runs_as_a_user_who_is_not_root() -> None:
    user = [words[1] for words in instructions() if words[0] == "USER"][-1]
    assert user == "1000:0"
    assert "python:3.11-slim-bookworm" in DOCKERFILE


def test_the_image_installs_pinned_versions_before_any_code() -> None:
    every = instructions()
    stages = [i for i, words in enumerate(every) if words[0] == "FROM"]
    stage = [" ".join(words) for words in every[stages[1] : stages[2]]]
    assert any("--constraint /build/constraints.txt" in line for line in stage)
    assert not any("sasrec_tasks" in line or "dags" in line for line in stage)
    assert re.search(r"psycopg2-binary==[\d.]+ asyncpg==[\d.]+", stage[-1])


def test_no_secret_is_baked_into_the_image() -> None:
    assert not re.search(r"^(ARG|ENV).*(PASSWORD|SECRET|FERNET)", DOCKERFILE, re.MULTILINE)


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    copied = [
        name
        for words in instructions()
        if words[0] == "COPY" and not words[1].startswith("--from")
        for name in words[1:-1]
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
    assert {name.removeprefix("#") for name in given} == used.keys()
    for name, default in used.items():
        if name in REQUIRED:
            assert given[name] == ""
        else:
            assert given[f"#{name}"] == default


def test_the_example_s_commands_fill_in_every_secret(raw: dict[str, Any], tmp_path: Path) -> None:
    import base64

    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env.example").write_text(example)
    commands = [line[4:] for line in example.partition("# ----")[0].splitlines() if line.startswith("#   ")]
    subprocess.run(["bash", "-euc", "\n".join(commands)], cwd=tmp_path, check=True)
    filled = (tmp_path / ".env").read_text()
    env = dict(re.findall(r"^([A-Z_]+)=(.+)$", filled, re.MULTILINE))
    assert env.keys() == set(SECRETS)
    assert len(set(env.values())) == len(SECRETS)
    assert len(base64.urlsafe_b64decode(env["AIRFLOW__CORE__FERNET_KEY"])) == 32
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [".env", ".env.example"]
    interpolated(raw, {**env, "SASREC_DATA": "/somewhere"})
