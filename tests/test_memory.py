"""The peak is that since the last reset; what is allowed is the least of the machine and all control groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sasrec_tasks import memory

pytestmark = pytest.mark.skipif(not memory.CLEAR.exists(), reason="the peak is read where Linux tells it")


def test_a_peak_rises_and_begins_anew() -> None:
    memory.reset_peak()
    before = memory.peak_mb()
    assert before is not None
    large = np.ones(200_000_000, np.uint8)
    held = memory.peak_mb()
    del large
    assert held is not None
    assert held >= before + 190
    memory.reset_peak()
    after = memory.peak_mb()
    assert after is not None
    assert after < held - 150
    whole = memory.process_peak_mb()
    assert whole is not None
    assert whole >= held


def test_this_process_may_hold_no_more_than_the_machine_has() -> None:
    allowed = memory.allowed()
    assert allowed is not None
    assert allowed.free > 0
    assert 0 < memory.resident() < allowed.limit


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/pod/task", {"pod/task/memory.max": "3000", "pod/task/memory.current": "900"}),
        ("0::/pod/task", {"pod/memory.max": "3000", "pod/memory.current": "900"}),
        ("0::/pod/task", {"memory.max": "3000", "memory.current": "900"}),  # as a container sees itself
        (
            "4:memory:/pod",
            {"memory/pod/memory.limit_in_bytes": "3000", "memory/pod/memory.usage_in_bytes": "900"},
        ),
        ("4:memory:/pod", {"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "900"}),
    ],
)
def test_a_control_group_s_limit_holds(
    own: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup").write_text(f"{own}\n", encoding="ascii")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n", encoding="ascii")
        (tmp_path / name).with_name("memory.stat").write_text("inactive_file 400\n", encoding="ascii")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "CGROUP_FILES", tmp_path)
    assert memory.allowed() == memory.Allowed(limit=3000, free=3000 - (900 - 400))


def test_a_group_without_a_limit_limits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup").write_text("0::/\n", encoding="ascii")
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    machine = memory.allowed()
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "CGROUP_FILES", tmp_path)
    alone = memory.allowed()
    assert machine is not None
    assert alone is not None
    assert alone.limit >= machine.limit
