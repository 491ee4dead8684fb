from __future__ import annotations

import pytest
import torch

from sasrec_tasks import trained
from sasrec_tasks.config import Settings
from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import from_names


def test_a_device_that_is_not_there_is_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trained.device(Settings()) == "cpu"
    assert trained.device(from_names({"train.device": "cpu"})) == "cpu"
    with pytest.raises(BadSettings, match=r"train\.device='cuda'"):
        trained.device(from_names({"train.device": "cuda"}))
