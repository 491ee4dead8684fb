"""One try at a time commits: a lock that ends with whoever holds it.

On a disk it is a file lock, which the kernel takes from a process that dies. On S3 it is an object that is put there
only if none is there, and that its holder replaces every few seconds; one that has not changed for a while belongs to
a try that was killed, and is taken over by a put on the condition that it is still the same. No clocks are compared.
Other object stores know no such puts, and have no lock.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from filelock import FileLock

from sasrec_tasks import files

log = logging.getLogger(__name__)

LEASE = 60.0
"""Seconds without a change after which the holder of a claim counts as killed."""

PATIENCE = 600.0
"""Seconds that a try waits for another one's commit."""


@contextmanager
def held(fs: Any, path: str) -> Iterator[Callable[[], None]]:
    """Hold the claim of a name, which nobody else holds then.

    Yields:
        What to call before a step that only the holder may take; raises OSError if it has been taken over.

    Raises:
        TimeoutError: another one holds it all the time.
    """
    if files.is_local(fs):
        with FileLock(path, timeout=PATIENCE):
            yield lambda: None
    elif files.is_s3(fs):
        with _on_s3(fs, path) as check:
            yield check
    else:
        yield lambda: None


@contextmanager
def _on_s3(fs: Any, path: str) -> Iterator[Callable[[], None]]:
    own = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
    _take(fs, path, f"{own} 0".encode())
    lost, done = threading.Event(), threading.Event()

    def is_own() -> bool:
        try:
            return bool(fs.cat_file(path).startswith(own.encode()))
        except FileNotFoundError:
            return False

    def keep() -> None:
        renewals = 0
        while not done.wait(LEASE / 6):
            renewals += 1
            try:
                tag = files.tag(fs, path)
                if not is_own():
                    raise files.Changed(path)
                files.replace(fs, path, f"{own} {renewals}".encode(), expected=tag)
            except files.Changed:
                lost.set()
                return
            except OSError as error:  # of the network: there is time for some more
                log.warning("%s: can't be renewed: %s", path, error)

    def check() -> None:
        if lost.is_set() or not is_own():
            raise OSError(f"{path}: was taken over by another try of this task: this one leaves")

    keeper = threading.Thread(target=keep, name="claim", daemon=True)
    keeper.start()
    try:
        yield check
    finally:
        done.set()
        keeper.join()
        with suppress(OSError):
            if is_own():
                fs.rm_file(path)


def _take(fs: Any, path: str, content: bytes) -> None:
    begun = unchanged_since = time.monotonic()
    seen = ""
    while True:
        tag, now = files.tag(fs, path), time.monotonic()
        if tag != seen:
            seen, unchanged_since = tag or "", now
        if not tag or now - unchanged_since > LEASE:
            with suppress(files.Changed):  # another one was faster
                files.replace(fs, path, content, expected=tag)
                return
        if now - begun > PATIENCE:
            raise TimeoutError(
                f"{path}: another try has been committing for {PATIENCE:.0f} s: try again later"
            )
        time.sleep(min(LEASE / 10, 0.5))
