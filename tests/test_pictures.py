"""The picture of the table of runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.pictures import BLUE, METADATA, ORANGE, RED, draw_runs
from sasrec_tasks.runs import RUNS

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def run(night: int, ending: str, ndcg: float | None) -> dict[str, Any]:
    figures = {"NDCG": ndcg, "NDCG_LOW": ndcg - 0.01, "NDCG_HIGH": ndcg + 0.01} if ndcg is not None else {}
    sizes = {"ROWS": 1000 + night, "USERS": 100, "ITEMS": 10, "SECONDS": 60.0} if figures else {}
    return {
        "RUN_ID": f"run {night}",
        "AS_OF": JANUARY + timedelta(days=night),
        "FINISHED_AT": JANUARY + timedelta(days=night),
        "ENDING": ending,
        "TASK": "export",
        "SETTINGS": "{}",
        "VERSION": 700 + night if ending == "published" else None,
        "POPULARITY_NDCG": None if ndcg is None else 0.02,
        **figures,
        **sizes,
    }


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), RUNS)


NIGHTS = table(
    run(0, "published", 0.2),
    run(1, "failed", None),
    run(2, "refused", 0.1),
    run(3, "published", 0.21),
    run(4, "refused", 0.1),
)


def words(picture: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", picture)


def test_endings_and_versions_are_written_and_marked(tmp_path: Path) -> None:
    draw_runs(NIGHTS, tmp_path / "runs.svg")
    picture = (tmp_path / "runs.svg").read_text()
    said = words(picture)
    assert {"published", "failed", "refused", "popularity", "700", "703"} <= set(said)
    assert {"seconds", "rows", "users", "items"} <= set(said)
    assert "superseded" not in said  # none is
    marks = {colour: len(re.findall(rf"<use [^>]*fill: {colour}", picture)) for colour in (ORANGE, RED)}
    assert marks == {ORANGE: 1 + 1, RED: 2 + 1}  # and one each in the legend
    assert BLUE in picture


def test_the_page_is_opaque_and_the_same_runs_give_the_same_file(tmp_path: Path) -> None:
    for suffix in METADATA:
        one, other = (tmp_path / f"{name}{suffix}" for name in ("one", "other"))
        draw_runs(NIGHTS, one)
        draw_runs(NIGHTS, other)
        assert one.read_bytes() == other.read_bytes()
    page = re.search(
        r'<g id="patch_1">\s*<path d="[^"]*" style="fill: (#\w+)', (tmp_path / "one.svg").read_text()
    )
    assert page is not None
    assert page[1] == "#ffffff"


def test_what_can_not_be_drawn_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="no run is written down"):
        draw_runs(table(), tmp_path / "runs.svg")
    with pytest.raises(BadSettings, match=r"runs\.gif.*\.svg or \.png"):
        draw_runs(NIGHTS, tmp_path / "runs.gif")
    with pytest.raises(OSError, match="nowhere"):
        draw_runs(NIGHTS, tmp_path / "nowhere" / "runs.svg")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.sampled_from(["published", "rolled back", "superseded", "refused", "failed"]),
            st.none() | st.floats(0, 1),
        ),
        min_size=1,
        max_size=80,
    )
)
def test_any_runs_can_be_drawn(nights: list[tuple[int, str, float | None]]) -> None:
    with TemporaryDirectory() as folder:
        draw_runs(
            table(*(run(*night) for night in sorted(nights, key=lambda each: each[0]))),
            Path(folder) / "runs.svg",
        )
