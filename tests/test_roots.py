"""What a trigger form may name. Every way out that is known is tried."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sasrec_tasks import roots
from sasrec_tasks.errors import BadSettings


def allows(url: str, *allowed: str) -> bool:
    try:
        roots.check("source", url, allowed)
    except BadSettings:
        return False
    return True


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "in.parquet").write_bytes(b"")
    (tmp_path / "database").mkdir()
    (tmp_path / "secret.parquet").write_bytes(b"")
    (folder / "link.parquet").symlink_to(tmp_path / "secret.parquet")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inner").symlink_to(folder)
    return folder


@pytest.mark.parametrize(
    "below",
    ["", "/", "/in.parquet", "/not-yet/there", "/*.parquet", "/a/../in.parquet", "/./in.parquet",
     "//in.parquet", "/inner/in.parquet", "/100%25/x", "/dt=2024-01-01/*"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_what_lies_under_a_root_is_allowed(data: Path, below: str, scheme: str) -> None:
    assert allows(f"{scheme}{data}{below}", str(data))
    assert allows(f"{scheme}{data}{below}", "s3://other", f"file://{data}/")


@pytest.mark.parametrize(
    "beside",
    ["/..", "/../database", "base", "base/x.parquet", "/../secret.parquet", "/link.parquet", "/up",
     "/up/secret.parquet", "/*/../../secret.parquet", "/inner/../../secret.parquet",
     "/x/../../secret.parquet", "/\0", "/in.parquet::memory://x"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_what_lies_beside_is_refused(data: Path, beside: str, scheme: str) -> None:
    assert not allows(f"{scheme}{data}{beside}", str(data))


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd", "file:///etc/passwd", "file:/etc/passwd", "local:///etc/passwd", "FILE:///etc/passwd",
        "~root/x", "~", "simplecache::file:///etc/passwd", "filecache::/etc/passwd", "zip://x::/etc/x.zip",
        "memory://x", "https://example.com/x.parquet", "s3://bucket/x", "data:,x",
    ],
)  # fmt: skip
def test_elsewhere_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(data)  # what is relative lies under the root
    assert not allows(url, str(data))
    assert not allows(url)


def test_what_is_relative_is_taken_from_the_working_folder(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    assert allows("data/in.parquet", str(data))
    assert allows(str(data / "in.parquet"), "data")
    assert not allows("database", str(data))


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/data",
        "s3://bucket/data/",
        "s3://bucket/data/x.parquet",
        "s3://bucket/data/a%20b/*.parquet",
    ],
)
def test_urls_under_a_root_are_allowed(url: str) -> None:
    assert allows(url, "/data", "s3://bucket/data")
    assert allows(url, "s3://bucket/data/")
    assert allows(url, "s3://bucket")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/database", "s3://bucket2/data/x", "s3://bucket/data/../secret", "s3://bucket/data/%2e%2e/x",
        "s3://bucket/data/%2E./x", "s3://bucket/data?x", "s3://bucket/data#x", "gs://bucket/data/x",
        "s3://bucket", "s3://bucket/data/x::file:///etc/passwd", "simplecache::s3://bucket/data/x",
        "s3://user@bucket/data/x", "/data/x", "bucket/data/x",
    ],
)  # fmt: skip
def test_urls_beside_a_root_are_refused(url: str) -> None:
    assert not allows(url, "s3://bucket/data")


def test_encoded_dots_do_not_lead_out_of_a_folder(data: Path) -> None:
    assert not allows(f"file://{data}/%2e%2e/secret.parquet", str(data))
    assert not allows(f"{data}/%2e%2e%2fsecret.parquet", str(data))


def test_a_chain_is_allowed_only_under_the_same_chain() -> None:
    root = "simplecache::s3://bucket/data"
    assert allows("simplecache::s3://bucket/data/x.parquet", root)
    assert not allows("simplecache::s3://bucket/data/../x", root)
    assert not allows("simplecache::s3://bucket/data/x::file:///etc/passwd", root)
    assert not allows("filecache::s3://bucket/data/x", root)


def test_a_folder_with_a_percent_sign_can_be_a_root(tmp_path: Path) -> None:
    folder = tmp_path / "a%20b"
    folder.mkdir()
    assert allows(f"{folder}/x.parquet", str(folder))


def test_no_list_allows_all_and_the_whole_disk_can_be_a_root() -> None:
    roots.check("source", "/etc/passwd", None)
    assert allows("/etc/passwd", "/")
    assert not allows("memory://x", "/")
    assert allows("memory://x/y", "memory://")


@given(st.lists(st.sampled_from(["..", ".", "a", "data", "", "%2e%2e", "*"]), max_size=8))
def test_no_path_leads_out(parts: list[str]) -> None:
    depth = lowest = 0
    for part in parts:
        depth += {"..": -1, "%2e%2e": -1, ".": 0, "": 0}.get(part, 1)
        lowest = min(lowest, depth)
    if allows("/nowhere/data/" + "/".join(parts), "/nowhere/data"):
        resolved = list(_walked(["nowhere", "data", *parts]))
        assert resolved[:2] == ["nowhere", "data"]
    elif lowest >= 0:
        pytest.fail(f"refused, though it never leaves: {parts}")


def _walked(parts: list[str]) -> list[str]:
    walked: list[str] = []
    for part in parts:
        if part in ("..", "%2e%2e"):
            walked = walked[:-1]
        elif part not in (".", ""):
            walked.append(part)
    return walked


def test_the_message_names_setting_place_and_roots() -> None:
    with pytest.raises(BadSettings) as raised:
        roots.check("table", "/etc", ["/data", "s3://bucket"])
    for part in ("table", "/etc", "/data", "s3://bucket", "SASREC_ALLOWED_ROOTS"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("/data/*.parquet", "/data"),
        ("/data/dt=2024-*/x.parquet", "/data"),
        ("/data/x.parquet", "/data/x.parquet"),
        ("/*", "/"),
        ("s3://bucket/data/[ab]", "s3://bucket/data"),
        ("s3://bucket/data/?", "s3://bucket/data"),
        ("/data/{date:%Y/%m/%d}/*.parquet", "/data"),
        ("s3://bucket/dumps/{data_interval_end:%Y-%m-%d}.parquet", "s3://bucket/dumps"),
        ("/data/day-{as_of}/", "/data"),
        ("connection:shop?table=stock", "connection:shop?table=stock"),
        ("postgresql://host/db?table=stock", "postgresql://host/db?table=stock"),
        ("events*.parquet", "."),
        ("*/x.parquet", "."),
    ],
)
def test_a_pattern_lies_in_its_folder(url: str, folder: str) -> None:
    assert roots.without_pattern(url) == folder
