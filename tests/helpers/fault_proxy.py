"""A proxy between the pipeline and a server, that cuts connections at a request of one's choice, or answers no more.

A request is what the client says in one go: a message of PostgreSQL's protocol, or a request of HTTP.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

Kind = Literal["before", "half", "unanswered", "half answered", "silent"]
"""Of a request: nothing of it arrives, one half does, all of it does but its answer is lost, or half of that; or
it arrives, and from here on nothing comes back, though no connection is closed."""

STARTUPS = (80877103, 80877104)
"""What a client of PostgreSQL asks for encryption with, before its first message."""


@dataclass(frozen=True)
class Request:
    """What a client says: a word or two about it, and how many bytes of it arrive where one half does.

    Of HTTP that is half of the body, or of the first line: servers take headers for whole where the connection ends.
    """

    label: str
    half: int


class Requests(Protocol):
    """Cuts what comes in on one connection into requests."""

    def pieces(self, content: bytes) -> Iterator[tuple[Request | None, bytes]]:
        """Bytes as they come in: the request that begins with them, or None where one goes on."""
        ...


@dataclass
class Http:
    """Requests of HTTP/1.1, one after another."""

    waiting: bytes = b""
    left: int = 0  # bytes of the body

    def pieces(self, content: bytes) -> Iterator[tuple[Request | None, bytes]]:
        """See `Requests`."""
        self.waiting += content
        while self.waiting:
            if self.left:
                piece, self.waiting = self.waiting[: self.left], self.waiting[self.left :]
                self.left -= len(piece)
                yield None, piece
                continue
            head, end, _ = self.waiting.partition(b"\r\n\r\n")
            if not end:
                return
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            assert not re.search(rb"\r\ntransfer-encoding:", head, re.IGNORECASE), head
            self.left = int(length[1]) if length else 0
            size = len(head) + len(end)
            piece, self.waiting = self.waiting[:size], self.waiting[size:]
            line = head.partition(b"\r\n")[0].rpartition(b" ")[0].decode()
            yield Request(line, size + self.left // 2 if self.left else len(line) // 2), piece


@dataclass
class Postgres:
    """Messages of PostgreSQL's protocol, version 3."""

    waiting: bytes = b""
    left: int = 0
    has_begun: bool = False

    def pieces(self, content: bytes) -> Iterator[tuple[Request | None, bytes]]:
        """See `Requests`."""
        self.waiting += content
        while self.waiting:
            if self.left:
                piece, self.waiting = self.waiting[: self.left], self.waiting[self.left :]
                self.left -= len(piece)
                yield None, piece
                continue
            if len(self.waiting) < 8 - 3 * self.has_begun:
                return
            if self.has_begun:
                kind, length = struct.unpack("!cI", self.waiting[:5])
                size, label = length + 1, kind.decode()
            else:
                size, code = struct.unpack("!II", self.waiting[:8])
                self.has_begun, label = code not in STARTUPS, "startup"
            piece, self.waiting = self.waiting[:size], self.waiting[size:]
            self.left = size - len(piece)
            if label in "QP":
                label += " " + " ".join(piece[5:].decode(errors="replace").replace("\0", " ").split())[:90]
            yield Request(label, size // 2), piece


@dataclass
class Fault:
    """What becomes of a request, by its number from 0, and of what comes after it.

    Args:
        lasting: no connection is taken any more until `Proxy.mend`; else it is this one alone that breaks.
    """

    number: int
    kind: Kind
    lasting: bool = False


@dataclass
class Proxy:
    """Listens on a port of this machine; a context.

    Args:
        connect: makes a connection to the server.
        requests: makes what cuts up one connection.
    """

    connect: Callable[[], socket.socket]
    requests: Callable[[], Requests]
    seen: list[Request] = field(default_factory=list)  # since `arm` or `mend`
    struck: Request | None = None
    """The request that the fault befell."""

    def __enter__(self) -> Proxy:
        self._fault: Fault | None = None
        self._is_down = self._is_silent = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()
        self.mend()

    def arm(self, fault: Fault) -> None:
        """Break at a request; they are counted from here on."""
        self.mend()
        self._fault = fault

    def fall_silent(self) -> None:
        """Let nothing come back from here on, over connections that are open, too."""
        self._is_silent = True

    def mend(self) -> None:
        """Let all pass again, over new connections, and forget what was seen."""
        with self._lock:
            self._fault, self.struck, self.seen = None, None, []
            self._is_down = self._is_silent = False
            still_open, self._open = self._open, set()
        for each in still_open:
            cut(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                continue  # a client that has left already
            if self._is_down:
                cut(client)
                continue
            with self._lock:
                self._open.add(client)
            if not self._is_silent:
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if not client.recv(1, socket.MSG_PEEK):  # a server may have time for one at a time
                return self.closed(client)
            server = self.connect()
        except OSError:
            return self.closed(client)
        with self._lock:
            self._open.add(server)
        link = _Link(self, client, server)
        threading.Thread(target=link.answers, daemon=True).start()
        return link.asks()

    def closed(self, *ends: socket.socket) -> None:
        """They are closed, or are to be."""
        with self._lock:
            self._open -= set(ends)
        for end in ends:
            cut(end)

    def came(self, request: Request) -> Fault | None:
        """Count a request; what befalls it."""
        with self._lock:
            self.seen.append(request)
            fault = self._fault
            if fault is None or len(self.seen) - 1 != fault.number:
                return None
            self.struck = request
            self._is_down = fault.lasting
            self._is_silent = fault.kind == "silent"
            return fault

    @property
    def is_silent(self) -> bool:
        """Whether nothing comes back any more."""
        return self._is_silent

    def cut_all(self) -> None:
        """Cut what is open."""
        with self._lock:
            still_open, self._open = self._open, set()
        for each in still_open:
            cut(each)


class _Link:
    """One connection of a client, and its own to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.befell: Fault | None = None

    def asks(self) -> None:
        """Hand on what the client says."""
        requests, left = self.proxy.requests(), 0  # bytes until the cut, of a request of which half arrives
        with contextlib.suppress(OSError):
            while content := self.client.recv(2**16):
                for request, piece in requests.pieces(content):
                    if request and (fault := self.proxy.came(request)):
                        self.befell, left = fault, request.half
                    kind = self.befell.kind if self.befell else None
                    if kind == "before":
                        return self.cut()
                    if kind == "half":
                        self.server.sendall(piece[:left])
                        left -= len(piece)
                        if left <= 0:
                            return self.cut()
                    else:
                        self.server.sendall(piece)
        return (
            None
            if self.befell and self.befell.kind == "silent"
            else self.proxy.closed(self.client, self.server)
        )

    def answers(self) -> None:
        """Hand on what the server says."""
        with contextlib.suppress(OSError):
            while content := self.server.recv(2**16):
                if self.proxy.is_silent:
                    continue
                if self.befell and content.startswith(b"HTTP/1.1 100"):  # the server wants the body
                    self.client.sendall(content)
                    continue
                if self.befell:
                    if self.befell.kind == "half answered":
                        self.client.sendall(content[: len(content) // 2])
                    return self.cut()
                self.client.sendall(content)
        return None if self.proxy.is_silent else self.proxy.closed(self.client, self.server)

    def cut(self) -> None:
        """Close both ends at once, and all others if it is to last."""
        self.proxy.closed(self.client, self.server)
        if self.befell and self.befell.lasting:
            self.proxy.cut_all()


def cut(end: socket.socket) -> None:
    """Close a connection without a word, whatever is under way."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes who waits for it in another thread
    end.close()
