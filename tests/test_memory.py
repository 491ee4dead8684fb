"""The peak is that since the last reset."""

from __future__ import annotations

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
