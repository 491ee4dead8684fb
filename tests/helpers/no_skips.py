"""Where SASREC_NO_SKIPS is set, a test that is skipped since this machine lacks something has failed.

A skip whose reason begins with `NOTHING_TO_DO` stays one: another machine would skip the test, too.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

NOTHING_TO_DO = "nothing to do: "
ON = bool(os.environ.get("SASREC_NO_SKIPS"))  # at once: tests run without what the caller's shell exports


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def as_told(report: Report) -> Report:
    """The report, failed if it was skipped and must not have been."""
    if ON and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(NOTHING_TO_DO):
            report.outcome = "failed"
            report.longrepr = f"SASREC_NO_SKIPS is set, and this would be skipped: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test, or of its fixtures."""
    report = yield
    return as_told(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a module that is skipped as a whole."""
    report = yield
    return as_told(report)
