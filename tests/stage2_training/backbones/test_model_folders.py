"""Model folders from anyone: nothing in them runs, and what is not a model is one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.model_folders import check_model_folder, folder_weights, no_remote_code

from .architectures import FAMILIES, write_model

EVIL = """
open("ran", "w").write("code ran")
from transformers import BertTokenizer
class EvilTok(BertTokenizer):
    pass
"""


def _write(folder: Path, *path: str, value: Any) -> None:
    """Write a model folder whose open_clip configuration has `value` at `path`."""
    config: dict[str, Any] = {"embed_dim": 40, **json.loads(json.dumps(FAMILIES["vit"]))}
    at = config
    for key in path[:-1]:
        at = at.setdefault(key, {})
    at[path[-1]] = value
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which the code of the model would leave its mark."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _refused(message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        create_backbone("local-dir:model", weights="random")
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_a_tokenizer_with_its_own_code_is_refused(inside: Path) -> None:
    _write(inside / "model", "text_cfg", "tokenizer_kwargs", value={"trust_remote_code": True})
    _refused(r"open_clip_config\.json: sets trust_remote_code")
    _write(inside / "model", "text_cfg", "tokenizer_kwargs", value={"code_revision": "main"})
    _refused("tokenizer_kwargs has 'code_revision'")
    _write(inside / "model", "text_cfg", "hf_tokenizer_name", value="x")
    (inside / "model" / "evil.py").write_text(EVIL)
    (inside / "model" / "config.json").write_text('{"model_type": "bert"}')
    (inside / "model" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "EvilTok", "auto_map": {"AutoTokenizer": ["evil.EvilTok", null]}}'
    )
    _refused(r"tokenizer_config\.json: has an auto_map")
    (inside / "model" / "tokenizer_config.json").write_text('{"tokenizer_class": "EvilTok"}')
    _refused("the tokenizer of local-dir:model cannot be loaded")


def test_code_is_not_run_even_where_the_check_would_miss_it(inside: Path) -> None:
    from transformers import AutoTokenizer

    (inside / "model").mkdir()
    (inside / "model" / "evil.py").write_text(EVIL)
    (inside / "model" / "config.json").write_text('{"model_type": "bert"}')
    (inside / "model" / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.EvilTok", null]}}')
    with no_remote_code(), pytest.raises(ValueError, match="its own code"):
        AutoTokenizer.from_pretrained("./model", trust_remote_code=True)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("text_cfg", "tokenizer_kwargs"), ["a"], "not a mapping"),
        (("text_cfg", "tokenizer_kwargs"), {"clean": {"a": 1}}, "has 'clean'"),
        (("text_cfg", "layers"), 10_000_000, "layers = 10000000; 200 is the limit"),
        (("vision_cfg", "width"), 10**12, "width = 1000000000000; 16,384 is the limit"),
        (("vision_cfg", "layers"), [1, 1, 10**9, 1], "layers = 1000000000; 200 is the limit"),
        (("vision_cfg", "mlp_ratio"), float("nan"), "mlp_ratio = nan"),
        (("vision_cfg", "timm_model_name"), "hf-hub:evil/model", "'hf-hub:evil/model' is not the name of a model"),
        (("vision_cfg", "timm_model_name"), "no_such_tower", "cannot be loaded"),
        (("text_cfg", "hf_model_name"), "../../elsewhere", "is not the name of a model"),
        (("text_cfg", "hf_model_name"), 7, "'7' is not the name of a model"),
        (("text_cfg", "width"), "wide", "cannot be loaded"),
        (("text_cfg", "unheard_of"), 1, "cannot be loaded"),
        (("text_cfg",), None, "text_cfg is missing"),
        (("vision_cfg",), [], "vision_cfg is missing"),
    ],
)
def test_other_configurations_are_one_line(inside: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    _write(inside / "model", *path, value=value)
    _refused(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "is not a JSON object"),
        ('{"a": ' + '{"a": ' * 50 + "1" + "}" * 51, "nested more than 20 levels"),
        ('{"model_cfg": 7}', "model_cfg is missing"),
        (" " * (1 << 20) + "{}", "is the limit"),
    ],
)
def test_files_that_are_no_configuration_are_one_line(inside: Path, content: str, message: str) -> None:
    (inside / "model").mkdir()
    (inside / "model" / "open_clip_config.json").write_text(content)
    _refused(message)


def test_options_of_open_clips_own_tokenizers_are_kept(tmp_path: Path) -> None:
    _write(tmp_path / "model", "text_cfg", "tokenizer_kwargs", value={"clean": "canonicalize"})
    assert check_model_folder(tmp_path / "model")["text_cfg"]["tokenizer_kwargs"] == {"clean": "canonicalize"}


def test_from_a_folder_only_safetensors_are_read(tmp_path: Path) -> None:
    model = write_model("vit", tmp_path)
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    assert folder_weights(tmp_path) == tmp_path / "model.safetensors"
    create_backbone(f"local-dir:{tmp_path}")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \.safetensors weights, and others \(open_clip_pytorch_model\.bin\)"):
        create_backbone(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no weights"):
        create_backbone(f"local-dir:{tmp_path}")
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    with pytest.raises(UserError, match=r"several \.safetensors"):
        create_backbone(f"local-dir:{tmp_path}")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: value.clone() for name, value in write_model("vit", tmp_path).state_dict().items()}
    state["visual.proj"][0, 0] = float("nan")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: visual\.proj has values that are not finite"):
        create_backbone(f"local-dir:{tmp_path}")
