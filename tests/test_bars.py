"""Bars tell how far long work is."""

from __future__ import annotations

import io

from rich.console import Console

from sasrec_tasks import progress
from sasrec_tasks.bars import bars


def test_bars_show_progress_with_rate_and_note() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with progress.use(bars(console)), progress.bar("train", 10, "positions") as advance:
        advance(5, "epoch 1 of at most 2")
        advance(10, "epoch 2 of at most 2")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "train" in text
    assert "100%" in text
    assert "epoch 2 of at most 2" in text
