"""Every system call of a process that changes a file, held until its watcher says what becomes of it.

Linux alone, by seccomp's user notification (`man 2 seccomp_unotify`): what Python, Arrow, DuckDB, safetensors and
Delta Lake's Rust write is seen alike, in whichever thread, and nothing in them is patched. The watcher lets a call
happen, has it fail with an error of its choice, or kills the process instead.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

AT_FDCWD = -100
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# prctl, seccomp, BPF and ioctl: the numbers of linux/{prctl,seccomp,filter}.h
PR_SET_NO_NEW_PRIVS, SET_MODE_FILTER, NEW_LISTENER = 38, 1, 8
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NOTIFY, ALLOW = 0x7FC00000, 0x7FFF0000
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1


@dataclass(frozen=True)
class Call:
    """One kind of system call: its numbers, and which of its arguments say what it works on."""

    name: str
    x86_64: int | None
    aarch64: int | None
    fd: int | None = None  # place of a descriptor among the arguments
    paths: tuple[
        tuple[int | None, int], ...
    ] = ()  # of each: place of its folder's descriptor, of the path itself
    flags: int | None = None  # place of the flags, where only those that write are of interest


CALLS = (
    Call("write", 1, 64, fd=0),
    Call("pwrite", 18, 68, fd=0),
    Call("writev", 20, 66, fd=0),
    Call("pwritev", 296, 70, fd=0),
    Call("send", 44, 206, fd=0),  # of sockets: what is said to a database
    Call("copy", 326, 285, fd=2),
    Call("sendfile", 40, 71, fd=0),
    Call("truncate", 77, 46, fd=0),
    Call("allocate", 285, 47, fd=0),
    Call("sync", 74, 82, fd=0),
    Call("sync", 75, 83, fd=0),
    Call("open", 2, None, paths=((None, 0),), flags=1),
    Call("open", 257, 56, paths=((0, 1),), flags=2),
    Call("open", 85, None, paths=((None, 0),)),
    Call("rename", 82, None, paths=((None, 0), (None, 1))),
    Call("rename", 264, 38, paths=((0, 1), (2, 3))),
    Call("rename", 316, 276, paths=((0, 1), (2, 3))),
    Call("link", 86, None, paths=((None, 0), (None, 1))),
    Call("link", 265, 37, paths=((0, 1), (2, 3))),
    Call("unlink", 87, None, paths=((None, 0),)),
    Call("unlink", 263, 35, paths=((0, 1),)),
    Call("rmdir", 84, None, paths=((None, 0),)),
    Call("mkdir", 83, None, paths=((None, 0),)),
    Call("mkdir", 258, 34, paths=((0, 1),)),
)
MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
"""Of each: what seccomp calls it, and the number of seccomp itself."""


@dataclass(frozen=True)
class Point:
    """A system call that is about to happen."""

    name: str
    path: str  # what it changes: of a rename, the new name


@dataclass(frozen=True)
class Held:
    """A call that waits for its watcher."""

    id: int
    point: Point


def why_not() -> str:
    """Why calls can't be held on this machine; "" if they can."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return f"seccomp's user notification is of Linux on {' and '.join(MACHINES)}"
    available = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not available.exists() or "user_notif" not in available.read_text():
        return "this kernel has no user notification of seccomp"
    return ""


def hold_own() -> int:
    """From here on, hold the calls of this process, which must have one thread, and of those that it starts.

    Returns:
        The descriptor that the watcher reads them from.

    Raises:
        OSError: it is not permitted.
    """
    arch, seccomp = MACHINES[platform.machine()]
    program = b"".join(_instructions(arch))
    code = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener: int = libc.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, filter_)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _instructions(arch: int) -> list[bytes]:
    def one(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    made = [one(LOAD, 4), one(EQUAL, arch, 1, 0), one(RETURN, ALLOW), one(LOAD, 0)]
    for call in CALLS:
        if (number := _number(call)) is None:
            continue
        if call.flags is None:
            made += [one(EQUAL, number, 0, 1), one(RETURN, NOTIFY)]
        else:
            flags = 16 + 8 * call.flags
            made += [one(EQUAL, number, 0, 4), one(LOAD, flags), one(ANY_BIT, WRITES, 0, 1)]
            made += [one(RETURN, NOTIFY), one(RETURN, ALLOW)]
    return [*made, one(RETURN, ALLOW)]


def _number(call: Call) -> int | None:
    return call.x86_64 if platform.machine() == "x86_64" else call.aarch64


def receive(listener: int) -> Held | None:
    """The next call; None if its process has ended meanwhile."""
    notification = bytearray(80)
    try:
        fcntl.ioctl(listener, RECEIVE, notification)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    id_, thread, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", notification)
    call = next(call for call in CALLS if _number(call) == number)
    try:
        path = _path(thread, call, arguments)
    except OSError:  # killed meanwhile
        path = ""
    return Held(id_, Point(call.name, path))


def answer(listener: int, held: Held, failure: int = 0) -> None:
    """Let a call happen, or fail with an errno."""
    flags = 0 if failure else CONTINUE
    try:
        fcntl.ioctl(listener, SEND, bytearray(struct.pack("QqiI", held.id, 0, -failure, flags)))
    except OSError as error:
        if error.errno != errno.ENOENT:  # its process has ended
            raise


def _path(thread: int, call: Call, arguments: Sequence[int]) -> str:
    if call.fd is not None:
        return str(Path(f"/proc/{thread}/fd/{arguments[call.fd] & 0xFFFFFFFF}").readlink())
    folder, place = call.paths[-1]
    path = _text(thread, arguments[place])
    if path.startswith("/"):
        return os.path.normpath(path)
    fd = AT_FDCWD if folder is None else ctypes.c_int(arguments[folder] & 0xFFFFFFFF).value
    base = Path(f"/proc/{thread}/cwd" if fd == AT_FDCWD else f"/proc/{thread}/fd/{fd}").readlink()
    return os.path.normpath(base / path)


def _text(thread: int, address: int) -> str:
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        found = b""
        while b"\0" not in found and len(found) < 4096:
            memory.seek(address + len(found))
            more = memory.read(256 - (address + len(found)) % 256)  # not over the edge of a page
            if not more:
                break
            found += more
    return os.fsdecode(found.partition(b"\0")[0])
