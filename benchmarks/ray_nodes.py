"""A Ray cluster of several nodes on this machine, each with a core to give away, all bound to 127.0.0.1."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCAL = "127.0.0.1"


@dataclass
class Nodes:
    """The cluster, and where its job server answers."""

    cluster: Any
    address: str
    each: dict[str, Any]

    def add(self, cpus: float = 1) -> Any:
        """A further node."""
        return self.cluster.add_node(num_cpus=cpus, node_ip_address=LOCAL, **self.each)


def _free(stack: ExitStack) -> int:
    """A port that nobody has."""
    place = stack.enter_context(socket.socket())
    place.bind((LOCAL, 0))
    port: int = place.getsockname()[1]
    return port


@contextmanager
def ray_cluster(workers: int = 2, cpus: float = 1, **each: Any) -> Iterator[Nodes]:
    """A head that has no core to give away, and nodes that have one each, or as many as are named.

    Args:
        each: what else Ray is told of each node.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
        "0"  # else it takes the address of the host for 127.0.0.1
    )
    os.environ["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` is this one
    )
    from ray.cluster_utils import Cluster

    with ExitStack() as stack:
        port, agent = (_free(stack) for _ in range(2))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "node_ip_address": LOCAL,
            "include_dashboard": True,
            "dashboard_host": LOCAL,
            "dashboard_port": port,
            "dashboard_agent_listen_port": agent,  # another cluster's head has the usual one
            **each,
        },
    )
    try:
        nodes = Nodes(cluster, f"http://{LOCAL}:{port}", each)
        for _ in range(workers):
            nodes.add(cpus)
        yield nodes
    finally:
        cluster.shutdown()
