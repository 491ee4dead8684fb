"""Progress as bars, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sasrec_tasks.progress import Advance, Bar


def bars(console: Console) -> Bar:
    """Progress as bars with rate and time left; for `progress.use`."""

    @contextmanager
    def bar(description: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("·"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(description, total=total, rate="", note="")

            def advance(done: int, note: str = "") -> None:
                speed = progress.tasks[0].speed
                rate = f"{speed:,.0f} {unit}/s" if speed else ""
                progress.update(task, completed=done, rate=rate, note=note)

            yield advance

    return bar
