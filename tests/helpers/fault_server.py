"""Runs calls in processes forked from one that has imported everything, and does to them what it is told.

    python fault_server.py

Reads requests, a line of JSON each, and answers each with a line; see `fault_harness.Processes`, which starts it.
Nothing of what it imports is used here before the fork, since threads would not come along; allocators have some of
their own by then, and see to that themselves.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import logging
import os
import random
import select
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import system_calls

IMPORTED = (
    "torch._dynamo",  # which the first model of a process takes two seconds to import
    "pandera.pandas",
    "deltalake",
    "duckdb",
    "safetensors.torch",
    "adbc_driver_postgresql.dbapi",
    "sasrec_tasks.s3",
    "sasrec_tasks.ingest",
    "sasrec_tasks.validate",
    "sasrec_tasks.split",
    "sasrec_tasks.train",
    "sasrec_tasks.evaluate",
    "sasrec_tasks.gate",
    "sasrec_tasks.refit",
    "sasrec_tasks.export",
    "sasrec_tasks.prune",
    "sasrec_tasks.rollback",
    "sasrec_tasks.runs",
    "sasrec_tasks.textfile",
    "sasrec_tasks.tables.parquet",
    "sasrec_tasks.tables.postgres",
)

Request = dict[str, Any]


def said(reply: dict[str, Any]) -> None:
    sys.__stdout__.write(json.dumps(reply) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def requests() -> Iterator[Request]:
    for line in sys.stdin:
        yield json.loads(line)


def drop_capabilities() -> None:
    """Let root be as anybody is: what belongs to others can't be written to."""
    header = struct.pack("Ii", 0x20080522, 0)  # the third version, of this thread
    if ctypes.CDLL(None, use_errno=True).capset(header, struct.pack("6I", *[0] * 6)):
        raise OSError(ctypes.get_errno(), "capset")


def child(request: Request, ours: socket.socket, result: int) -> None:
    """What the forked process does: the call, and its value or error into a file."""
    random.seed()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # or it is what it was for the server
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    if request.get("powerless"):
        drop_capabilities()
    module, _, name = request["call"].partition(":")
    function = getattr(importlib.import_module(module), name)
    if request.get("watch") is not None:
        listener = system_calls.hold_own()
        socket.send_fds(ours, [b"-"], [listener])
        os.close(listener)
    try:
        reply = {"value": function(*request["arguments"], **request.get("named", {}))}
    except Exception as error:
        logging.exception("failed")
        kinds = [kind.__name__ for kind in type(error).__mro__]
        reply = {"error": f"{type(error).__name__}: {error}", "kinds": kinds}
    with os.fdopen(result, "w") as out:
        json.dump(reply, out, default=str)


def watched(
    request: Request, told: Iterator[Request], pid: int, listener: int | None
) -> tuple[int, list[system_calls.Point]]:
    """See to a forked process until it ends; its wait status, and the points it came by."""
    points: list[system_calls.Point] = []
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if listener is not None:
        poll.register(listener, select.POLLIN)
    until = time.monotonic() + request["kill_after"] if request.get("kill_after") is not None else None
    while True:
        ready = poll.poll(None if until is None else max(0, 1000 * (until - time.monotonic())))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            until = None
        for fd, event in ready:
            if fd == process:
                os.close(process)
                return os.waitpid(pid, 0)[1], points
            if event & select.POLLIN and listener is not None and (held := system_calls.receive(listener)):
                decide(request, told, pid, listener, held, points)
            elif event & (select.POLLHUP | select.POLLERR):
                poll.unregister(fd)


def decide(
    request: Request,
    told: Iterator[Request],
    pid: int,
    listener: int,
    held: system_calls.Held,
    points: list[system_calls.Point],
) -> None:
    """What becomes of a call."""
    if not any(held.point.path.startswith(place) for place in request["watch"]):
        system_calls.answer(listener, held)
        return
    number = len(points)
    points.append(held.point)
    failure = 0
    if number == request.get("kill_at"):
        os.kill(pid, signal.SIGKILL)
        return  # without an answer: the call never happens
    elif number == request.get("hold_at"):
        said({"held": True, "points": [[point.name, point.path] for point in points]})
        next(told)
    elif request.get("fail_from") is not None and number >= request["fail_from"]:
        failure = request["errno"] if held.point.name in request["fail"] else 0
    system_calls.answer(listener, held, failure)


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # the pages stay shared
    said({"ready": True})
    told = requests()
    for request in told:
        ours, theirs = socket.socketpair()
        result = os.memfd_create("result")
        pid = os.fork()
        if pid == 0:
            theirs.close()
            child(request, ours, result)
            atexit._run_exitfuncs()  # what is to be put away at the end is; taking the modules apart takes a second
            os._exit(0)
        ours.close()
        listener = None
        if request.get("watch") is not None:
            _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
            listener = fds[0] if fds else None
        status, points = watched(request, told, pid, listener)
        theirs.close()
        if listener is not None:
            os.close(listener)
        with os.fdopen(result) as file:
            file.seek(0)
            written = file.read()
        said(
            {
                "status": os.waitstatus_to_exitcode(status),
                "points": [[point.name, point.path] for point in points],
                **(json.loads(written) if written else {}),
            }
        )


if __name__ == "__main__":
    main()
