"""A Ray cluster whose nodes have networks and addresses of their own: network namespaces, joined by a bridge."""

from __future__ import annotations

import os
import shutil
import signal
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

    def mend(self) -> None:
        """Put it in again."""
        _ip("link", "set", self.cable, "up")

    def works(self) -> bool:
        """Whether it has given a process something to do."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                name = " ".join(child.cmdline())
                if name.startswith("ray::") and not name.startswith("ray::IDLE"):
                    return True
        return False


@dataclass
class NodesApart:
    """The nodes with a core each; the head has none to give away."""

    address: str
    made: ExitStack
    workers: list[Apart] = field(default_factory=list)

    def add(self) -> None:
        """A further node."""
        self.workers.append(self.made.enter_context(_apart(len(self.workers))))

    def alive(self) -> list[Apart]:
        """Those that have not ended."""
        return [node for node in self.workers if node.process.poll() is None]


@contextmanager
def ray_apart(workers: int = 2) -> Iterator[NodesApart]:
    """A head at the bridge's address, and nodes in namespaces; skips where such can't be made."""
    if not shutil.which("ip"):
        pytest.skip("needs iproute2")
    if os.geteuid() or _tried("netns", "add", f"{BRIDGE}-probe"):
        pytest.skip("needs the right to make network namespaces")
    _ip("netns", "del", f"{BRIDGE}-probe")
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        _ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(_tried, "link", "del", BRIDGE)
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        head = [f"--port={PORT}", f"--dashboard-host={NETWORK}.1", f"--dashboard-port={DASHBOARD}"]
        own = [f"--node-ip-address={NETWORK}.1", "--num-cpus=0", f"--temp-dir={folder}"]
        stack.enter_context(_node([], ["--head", *head, *own]))
        nodes = NodesApart(f"http://{NETWORK}.1:{DASHBOARD}", stack)
        _wait_for(nodes.address)
        for _ in range(workers):
            nodes.add()
        yield nodes


@contextmanager
def _apart(number: int) -> Iterator[Apart]:
    name, cable, address = f"sasrec-w{number}", f"sasrec-c{number}", f"{NETWORK}.{number + 2}"
    inside = ["ip", "netns", "exec", name]
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
        with _node(inside, own) as process:
            yield Apart(address, cable, process)
    finally:
        _tried("netns", "del", name)
        _tried("link", "del", cable)


@contextmanager
def _node(inside: list[str], options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` is this one
    environment = {**os.environ, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "GLOO_SOCKET_IFNAME": "eth0"}
    process = subprocess.Popen(
        [*inside, RAY, "start", "--block", "--disable-usage-stats", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
        process.wait()


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
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _tried(*arguments: str) -> int:
    return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode
