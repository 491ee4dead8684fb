from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasrec_tasks.sasrec.model import SASRec
from sasrec_tasks.sasrec.weights import load_model, save_model

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

ModelFactory = Callable[..., SASRec]


@pytest.mark.parametrize("device", DEVICES)
def test_a_loaded_model_is_the_saved_one_in_eval_mode(
    random_model: ModelFactory, tmp_path: Path, device: str
) -> None:
    saved = random_model(num_blocks=3, dropout_rate=0.25, max_len=7).train().to(device)
    save_model(saved, tmp_path / "new" / "folder")
    loaded = load_model(tmp_path / "new" / "folder", device)
    assert loaded.config == saved.config
    assert not any(module.training for module in loaded.modules())
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, saved.state_dict()[name])
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    items = torch.tensor([[3, 1, 2]], device=device)
    assert torch.equal(loaded(items), saved.eval()(items))


def test_loading_draws_no_random_number(random_model: ModelFactory, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path)
    before = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_outlives_its_files(random_model: ModelFactory, tmp_path: Path) -> None:
    saved = random_model()
    save_model(saved, tmp_path)
    loaded = load_model(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(loaded.norm.weight, saved.norm.weight)


def test_extra_keys_stand_next_to_the_config(random_model: ModelFactory, tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path, best_epoch=3, note={"ä": [1]})
    content = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert content == {"config": model.config.as_dict(), "best_epoch": 3, "note": {"ä": [1]}}
    assert load_model(tmp_path).config == model.config


@pytest.mark.parametrize("extra", [{"note": object()}, {"loss": float("nan")}, {"config": {}}])
def test_extra_keys_that_cannot_be_written_leave_the_folder_as_it_was(
    random_model: ModelFactory, tmp_path: Path, extra: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError)):
        save_model(random_model(), tmp_path, **extra)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named_with_a_remedy(random_model: ModelFactory, tmp_path: Path, name: str) -> None:
    save_model(random_model(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing: restore .* or train"):
        load_model(tmp_path)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=30)
def test_a_file_cut_short_anywhere_is_refused(
    random_model: ModelFactory, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    folder = tmp_path_factory.mktemp("model")
    save_model(random_model(), folder)
    for file in (folder / "model.safetensors", folder / "model.json"):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * (len(whole) - 1))])
        with pytest.raises(ValueError, match=rf"{file.name} (is damaged|cannot be read).*restore"):
            load_model(folder)
        file.write_bytes(whole)
    load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", 'no object "config"'),
        ('{"config": 3}', 'no object "config"'),
        ('{"config": {}}', 'invalid "config".*num_items'),
        ('{"config": {"num_items": 30, "colour": 1}}', 'invalid "config".*colour'),
        ('{"config": {"num_items": 0}}', "num_items must be at least 1"),
        ('{"config": {"num_items": "30"}}', "not whole numbers .num_items"),
        ('{"config": {"num_items": 30.5}}', "not whole numbers .num_items"),
        ('{"config": {"num_items": 30, "dropout_rate": "x"}}', 'invalid "config"'),
        (b"\xff\xfe", "cannot be read as JSON"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(
    random_model: ModelFactory, tmp_path: Path, content: str | bytes, message: str
) -> None:
    save_model(random_model(), tmp_path)
    (tmp_path / "model.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"model.json .*{message}.*restore"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_items": 10**12}, r"item_embedding.weight is \(31, 8\) instead of \(1000000000001, 8\)"),
        ({"max_len": 11}, r"position_embedding.weight is \(10, 8\) instead of \(11, 8\)"),
        ({"num_blocks": 3}, r"blocks.2.\S+ is missing instead of"),
        ({"num_blocks": 1}, r"blocks.1.\S+ is \S+ instead of absent"),
    ],
)
def test_weights_of_other_sizes_than_the_config_are_refused(
    random_model: ModelFactory, tmp_path: Path, sizes: dict[str, int], message: str
) -> None:
    save_model(random_model(), tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    content["config"] |= sizes
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=f"model.safetensors does not match model.json: .*{message}.*restore"
    ):
        load_model(tmp_path)


def test_nothing_is_pickled(random_model: ModelFactory, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    header = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert "item_embedding.weight" in json.loads(header[8 : 8 + length])


def test_a_model_is_read_without_torchs_compiler(random_model: ModelFactory, tmp_path: Path) -> None:
    """Its import takes seconds, of each task and each service."""
    save_model(random_model(), tmp_path)
    script = (
        "import sys; from pathlib import Path; from sasrec_tasks.sasrec.weights import load_model;"
        "load_model(Path(sys.argv[1])); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
