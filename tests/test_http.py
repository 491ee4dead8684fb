"""Sources on a real HTTP server: files are read as others are, and redirects, wherever they come, lead nowhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sasrec_tasks.errors import BadData, BadSettings
from sasrec_tasks.filesystem import opened
from sasrec_tasks.sources.parquet import ParquetSource

ROWS = [("u", "i", 1.0, 1_700_000_000), ("v", "j", 2.0, 1_700_000_001)]
REFUSED = r"is a redirect \({}\) to '{}', which is not followed.*name its target itself"


@dataclass
class Server:
    """Files by HTTP, ranges of them too, and redirects; what it was asked."""

    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            own.asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            content = own.files.get(path)
            if path in own.redirects:
                status, target = own.redirects[path]
                self.answer(status, b"", Location=target)
            elif content is None:
                self.answer(404, b"")
            elif found := self.headers.get("Range", "").removeprefix("bytes="):
                first, last = map(int, found.split("-"))
                part = content[first : last + 1]
                told = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
                self.answer(206, part, **{"Content-Range": told})
            else:
                page = {"Content-Type": "text/html"} if path.endswith("/") else {}
                self.answer(200, content, **page)

        def do_HEAD(self) -> None:
            self.do_GET()

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            told = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(len(content)),
                **headers,
            }
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    own = Server(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield own
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(front: Any) -> Iterator[Server]:
    """One that an operator has named."""
    with serving() as own:
        own.files["/data/events.parquet"] = Path(front.write(ROWS)).read_bytes()
        yield own


@pytest.fixture
def other(server: Server) -> Iterator[Server]:
    """One that nobody has named, and that is to be asked nothing; with the same files."""
    with serving() as own:
        own.files = server.files
        yield own
        assert own.asked == []


def ingested(front: Any, source: str, **settings: Any) -> dict[str, Any]:
    store = front.run(source, upto="ingest", run_id=f"run-{len(settings)}", **settings)
    found: dict[str, Any] = store.read_json("ingest", "manifest.json")
    return found


@pytest.mark.parametrize("source", ["/data/events.parquet", "/data/", "/data/*.parquet"])
def test_a_file_is_ingested_as_one_of_this_machine(front: Any, server: Server, source: str) -> None:
    server.files["/data/"] = b'<a href="events.parquet">events.parquet</a>'
    roots = [server.url, str(front.folder)]
    found = ingested(front, f"{server.url}{source}", ingest__allowed_roots=roots)
    assert found["rows"] == len(ROWS)


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "info": lambda fs, path: fs.info(path),
    "exists": lambda fs, path: fs.exists(path),
    "size": lambda fs, path: fs.size(path),
    "cat": lambda fs, path: fs.cat_file(path),
    "a range": lambda fs, path: fs.cat_file(path, 2, 5),
    "the last bytes": lambda fs, path: fs.cat_file(path, -4),
    "open": lambda fs, path: fs.open(path).read(),
    "open in parts": lambda fs, path: fs.open(path, size=9).read(4),
    "open as a stream": lambda fs, path: fs.open(path, block_size=0, size=9).read(4),
    "get": lambda fs, path: fs.get_file(path, "/dev/null"),
    "glob": lambda fs, path: fs.glob(path),
    "ls": lambda fs, path: fs.ls(path),
    "find": lambda fs, path: fs.find(path),
}
"""What is asked of a file system."""


@pytest.mark.parametrize("way", WAYS)
def test_a_redirect_is_not_followed(server: Server, other: Server, way: str) -> None:
    server.redirects["/data/moved"] = (302, f"{other.url}/data/events.parquet")
    fs, path = opened(f"{server.url}/data/moved", "source")
    with pytest.raises(BadSettings, match=REFUSED.format(302, other.url)):
        WAYS[way](fs, path)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_no_kind_of_redirect_is(server: Server, other: Server, status: int) -> None:
    server.redirects["/data/moved"] = (status, f"{other.url}/data/events.parquet")
    fs, path = opened(f"{server.url}/data/moved", "source")
    for ask in (fs.info, fs.cat_file):
        with pytest.raises(BadSettings, match=REFUSED.format(status, other.url)):
            ask(path)


@pytest.mark.parametrize("chain", ["simplecache::", "blockcache::", "filecache::"])
def test_nor_is_one_behind_another_url(server: Server, other: Server, chain: str) -> None:
    server.redirects["/data/moved"] = (302, f"{other.url}/data/events.parquet")
    fs, path = opened(f"{chain}{server.url}/data/moved", "source")
    with pytest.raises((BadSettings, OSError)):
        fs.open(path).read()


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("http://10.0.0.1:81/deep/s3cr3t?token=s3cr3t#s3cr3t", "http://10.0.0.1:81"),
        ("https://ann:s3cr3t@other.example/x", "https://other.example"),
        ("//other.example/s3cr3t", "http://other.example"),
        ("/data/s3cr3t/", "http://127.0.0.1:{port}"),
    ],
)
def test_the_message_names_both_hosts_and_no_token(server: Server, location: str, host: str) -> None:
    server.redirects["/data/moved"] = (307, location)
    fs, path = opened(f"{server.url}/data/moved?key=s3cr3t", "source")
    with pytest.raises(BadSettings) as raised:
        fs.cat_file(path)
    said = str(raised.value)
    assert f"'{server.url}/data/moved'" in said
    assert f"to '{host.format(port=server.port)}'," in said
    assert "s3cr3t" not in said


@pytest.mark.parametrize("location", ["", "http://[::1/s3cr3t", "file:///etc/s3cr3t", "s3cr3t:"])
def test_a_redirect_to_nowhere_is_refused_as_well(server: Server, location: str) -> None:
    server.redirects["/data/moved"] = (302, location)
    fs, path = opened(f"{server.url}/data/moved", "source")
    with pytest.raises(BadSettings, match="which is not followed") as raised:
        fs.cat_file(path)
    assert "s3cr3t" not in str(raised.value)


def test_no_source_is_read_from_where_a_redirect_leads(front: Any, server: Server, other: Server) -> None:
    server.redirects["/data/moved.parquet"] = (302, f"{other.url}/data/events.parquet")
    source = f"{server.url}/data/moved.parquet"
    with pytest.raises(BadSettings, match=REFUSED.format(302, other.url)):
        ingested(front, source, ingest__allowed_roots=[server.url, str(front.folder)])
    with pytest.raises(BadSettings, match=REFUSED.format(302, other.url)):
        ingested(front, source)


def test_nor_is_a_table_that_narrows_the_export(front: Any, server: Server, other: Server) -> None:
    server.redirects["/data/moved.parquet"] = (302, f"{other.url}/data/events.parquet")
    for setting in ("export__eligible_items", "export__excluded_pairs"):
        with pytest.raises(BadSettings, match=REFUSED.format(302, other.url)):
            ingested(front, f"{front.folder}/source.parquet", **{setting: f"{server.url}/data/moved.parquet"})


@pytest.mark.parametrize("read", ["schema", "batches"])
def test_a_file_that_moves_after_it_was_listed_is_not_followed(
    server: Server, other: Server, read: str
) -> None:
    source = ParquetSource(
        f"{server.url}/data/events.parquet",
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        since=None,
        arrival="",
        types={},
        allowed_roots=None,
    )
    server.redirects["/data/events.parquet"] = (302, f"{other.url}/data/events.parquet")
    (part,) = source.parts
    with pytest.raises(BadSettings, match=REFUSED.format(302, other.url)):
        list(source.batches(part, ["USER_ID"])) if read == "batches" else source.schema(part)


@pytest.mark.parametrize("link", ["../secret/events.parquet", "%2e%2e/secret/events.parquet"])
def test_a_page_s_links_do_not_lead_out_of_the_roots(front: Any, server: Server, link: str) -> None:
    server.files["/secret/events.parquet"] = server.files["/data/events.parquet"]
    server.files["/data/"] = f'<a href="{link}">events.parquet</a>'.encode()
    with pytest.raises((BadSettings, BadData), match=r"outside the allowed roots|no parquet file"):
        ingested(
            front, f"{server.url}/data/", ingest__allowed_roots=[f"{server.url}/data", str(front.folder)]
        )
    assert not [path for path in server.asked if "secret" in path]


def test_urls_are_opened_in_one_place() -> None:
    package = Path(__file__).parents[1] / "sasrec_tasks"
    opens = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if any(
            name in file.read_text(encoding="utf-8")
            for name in ("url_to_fs(", "fsspec.open", "fsspec.filesystem(", "fsspec.get_")
        )
    }
    assert opens == {"filesystem.py"}
