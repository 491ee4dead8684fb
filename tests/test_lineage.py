from __future__ import annotations

from pathlib import Path

import pytest

from sasrec_tasks import connections
from sasrec_tasks.lineage import addresses


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/data/events", ["file:///data/events"]),
        ("/data/events/**/*.parquet", ["file:///data/events"]),
        ("/data/a b", ["file:///data/a%20b"]),
        ("s3://bucket/logs/{date:%Y/%m/%d}/*.parquet", ["s3://bucket/logs/"]),
        ("parquet+s3://bucket/table", ["s3://bucket/table"]),
        ("/table, s3://bucket/table", ["file:///table", "s3://bucket/table"]),
        ("simplecache::s3://bucket/x", []),
        (
            "postgresql://ann:secret@db.example/shop?table=serving.top",
            ["postgres://db.example:5432/shop/serving/top"],
        ),
        ("connection:warehouse?table=top", ["postgres://db.example:6432/shop/public/top"]),
        ("connection:warehouse", []),
        ("", []),
    ],
)
def test_places_have_the_addresses_that_lineage_tools_know(place: str, expected: list[str]) -> None:
    with connections.use({"warehouse": "postgresql://ann:secret@db.example:6432/shop"}.__getitem__):
        assert addresses(place) == expected


def test_a_relative_path_is_made_whole() -> None:
    assert addresses("table") == [(Path.cwd() / "table").as_uri()]
