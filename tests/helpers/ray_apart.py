"""A Ray cluster whose nodes have networks and addresses of their own: network namespaces, joined by a bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from ray_running import works

NETWORK = "10.213.77"
BRIDGE = "sasrec-br"
PORT, DASHBOARD = 6399, 8299
SECONDS_TO_START = 60.0

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass
class Apart:
    """A node, and the end of its cable that is in the bridge."""

    address: str
    cable: str
    process: subprocess.Popen[bytes]

    def cut(self) -> None:
        """Pull the cable: the node goes on, and nobody hears of it."""
        _ip("link", "set", self.cable, "down")

    def end(self) -> None:
        """Kill the node, and all that runs on it."""
        with suppress(psutil.NoSuchProcess):
            node = psutil.Process(self.process.pid)
            for each in [*node.children(recursive=True), node]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        self.process.wait()

    def works(self) -> bool:
        """Whether it has given a process something to do."""
        return works(self.process.pid)


@dataclass
class NodesApart:
    """The nodes with a core each; the head has none to give away."""

    address: str
    folder: Path
    made: ExitStack
    workers: list[Apart] = field(default_factory=list)

    def add(self) -> None:
        """A further node."""
        self.workers.append(self.made.enter_context(_apart(len(self.workers))))
        self.wait()

    def wait(self) -> None:
        """Until all have started: of two at once, which share a folder here, one would take the other's socket."""
        deadline = time.monotonic() + SECONDS_TO_START
        while len(list(self.folder.glob("session_2*/sockets/raylet*"))) <= len(self.workers):
            assert time.monotonic() < deadline, "a node has not started"
            time.sleep(0.2)

    def alive(self) -> list[Apart]:
        """Those that have not ended."""
        return [node for node in self.workers if node.process.poll() is None]


@contextmanager
def ray_apart(workers: int = 2) -> Iterator[NodesApart]:
    """A head at the bridge's address, and nodes in namespaces; skips where such can't be made."""
    if not shutil.which("ip"):
        pytest.skip("needs iproute2")
    _tried("netns", "del", f"{BRIDGE}-probe")
    if os.geteuid() or _tried("netns", "add", f"{BRIDGE}-probe"):
        pytest.skip("needs the right to make network namespaces")
    _ip("netns", "del", f"{BRIDGE}-probe")
    _tried("link", "del", BRIDGE)  # of tests that were killed
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        _ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(_tried, "link", "del", BRIDGE)
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        head = [
            f"--port={PORT}",
            f"--dashboard-host={NETWORK}.1",
            f"--dashboard-port={DASHBOARD}",
            f"--dashboard-agent-listen-port={DASHBOARD + 1}",
        ]
        own = [f"--node-ip-address={NETWORK}.1", "--num-cpus=0", f"--temp-dir={folder}"]
        node = Apart(f"{NETWORK}.1", BRIDGE, _node([], ["--head", *head, *own]))
        stack.callback(node.end)
        nodes = NodesApart(f"http://{NETWORK}.1:{DASHBOARD}", Path(folder), stack)
        _wait_for(nodes.address)
        nodes.wait()
        for _ in range(workers):
            nodes.add()
        yield nodes


@contextmanager
def _apart(number: int) -> Iterator[Apart]:
    name, cable, address = f"sasrec-w{number}", f"sasrec-c{number}", f"{NETWORK}.{number + 2}"
    inside = ["ip", "netns", "exec", name]
    _tried("netns", "del", name)
    _tried("link", "del", cable)
    _ip("netns", "add", name)
    try:
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", cable, "master", BRIDGE, "up")
        for command in (
            ["addr", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            _ip("-n", name, *command)
        own = [f"--address={NETWORK}.1:{PORT}", f"--node-ip-address={address}", "--num-cpus=1"]
        node = Apart(address, cable, _node(inside, own))
        try:
            yield node
        finally:
            node.end()
    finally:
        _tried("netns", "del", name)
        _tried("link", "del", cable)


def _node(inside: list[str], options: list[str]) -> subprocess.Popen[bytes]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` is this one
    environment = {**os.environ, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "GLOO_SOCKET_IFNAME": "eth0"}
    environment.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)  # of a cluster within 127.0.0.1
    return subprocess.Popen(
        [*inside, RAY, "start", "--block", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait_for(address: str) -> None:
    from ray.job_submission import JobSubmissionClient

    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            JobSubmissionClient(address).list_jobs()
        except (ConnectionError, RuntimeError):
            assert time.monotonic() < deadline, f"{address} does not answer"
            time.sleep(0.5)
        else:
            return


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert not done.returncode, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


def _tried(*arguments: str) -> int:
    return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode
