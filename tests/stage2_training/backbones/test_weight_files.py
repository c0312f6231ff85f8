"""Local weights files: loaded completely, or rejected with the reason."""

import json
import os
import random
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.weight_files import convert_weights_file, load_weights_file
from sspa.stage2_training.compute.tensor_files import read_tensors

from .architectures import FAMILIES


def _model(family: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    config = {name: value for name, value in FAMILIES[family].items() if name != "custom_text"}
    return open_clip.model.CLIP(embed_dim=40, **config).eval()


def _load(path: Path, model: nn.Module, quick_gelu: bool = False) -> None:
    load_weights_file(path, "ViT-X-16-quickgelu" if quick_gelu else "ViT-X-16", quick_gelu, model)


def _saved(model: nn.Module, path: Path, **metadata: str) -> Path:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path, metadata=metadata or None)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_fitting_file_is_loaded(name: str, tmp_path: Path) -> None:
    source, target = _model("vit", seed=1), _model("vit", seed=2)

    _load(_saved(source, tmp_path / name), target)

    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_a_checkpoint_of_open_clips_trainer_is_loaded(tmp_path: Path) -> None:
    source, target = _model("vit", seed=1), _model("vit", seed=2)
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")

    _load(tmp_path / "epoch_3.pt", target)

    assert torch.equal(source.visual.proj, target.visual.proj)


def test_an_openai_archive_needs_quickgelu(tmp_path: Path) -> None:
    source = _model("vit-quickgelu", seed=1)
    state = {name: value.half() for name, value in source.state_dict().items()}
    torch.save({**state, "input_resolution": torch.tensor(64)}, tmp_path / "ViT-X-16.pt")

    with pytest.raises(UserError, match=r"trained with QuickGELU \(it is one of OpenAI's.*ViT-X-16-quick"):
        _load(tmp_path / "ViT-X-16.pt", _model("vit"))

    target = _model("vit-quickgelu", seed=2)
    _load(tmp_path / "ViT-X-16.pt", target, quick_gelu=True)
    torch.testing.assert_close(target.visual.proj, source.visual.proj, atol=1e-3, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_an_openai_archive_as_published_is_loaded_and_converted(tmp_path: Path) -> None:
    """TorchScript in half precision, with buffers that say what the tower takes."""
    archive, target = _model("vit-quickgelu", seed=1).half(), tmp_path / "ViT-X-16.safetensors"
    archive.register_buffer("input_resolution", torch.tensor(64))
    torch.jit.script(archive).save(str(tmp_path / "ViT-X-16.pt"))
    for file in (tmp_path / "ViT-X-16.pt", target):
        if file == target:
            convert_weights_file(tmp_path / "ViT-X-16.pt", target)
            assert "input_resolution" not in read_tensors(target)
        with pytest.raises(UserError, match="trained with QuickGELU"):
            _load(file, _model("vit"))
        loaded = _model("vit-quickgelu", seed=2)
        _load(file, loaded, quick_gelu=True)
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, archive.state_dict()[name].float()), name
    with pytest.raises(UserError, match="exists already"):
        convert_weights_file(tmp_path / "ViT-X-16.pt", target)


def test_names_that_share_a_tensor_are_converted(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    torch.save({"a": layer.weight.data, "b": layer.weight.data}, tmp_path / "weights.pt")
    convert_weights_file(tmp_path / "weights.pt", tmp_path / "weights.safetensors")
    assert all(torch.equal(value, layer.weight) for value in read_tensors(tmp_path / "weights.safetensors").values())


def test_numbered_tensors_are_no_state_dict(tmp_path: Path) -> None:
    torch.save({0: torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        _load(tmp_path / "weights.pt", _model("vit"))


@pytest.mark.parametrize("damage", ["truncated", "not a model"])
def test_a_damaged_archive_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "RN.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    data = path.read_bytes()
    path.write_bytes(
        data[:300] + bytes(200) + data[500:] if damage == "truncated" else data.replace(b"Linear", b"Lonear")
    )
    with pytest.raises(UserError, match=r"cannot be read as weights \("):
        _load(path, _model("vit"))


def test_a_pickle_that_calls_something_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("ran",)

    monkeypatch.chdir(tmp_path)
    torch.save({"visual.proj": Evil()}, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="cannot be read as weights"):
        _load(tmp_path / "weights.pt", _model("vit"))
    assert not Path("ran").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = _model("vit")
    with torch.no_grad():
        model.visual.proj[0, 0] = float("inf")
    with pytest.raises(UserError, match=r"visual\.proj has values that are not finite"):
        _load(_saved(model, tmp_path / "weights.safetensors"), model)


def test_the_activation_is_read_from_a_configuration_beside_the_file(tmp_path: Path) -> None:
    path = _saved(_model("vit"), tmp_path / "weights.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))

    with pytest.raises(UserError, match=r"open_clip_config\.json beside it"):
        _load(path, _model("vit"))


def test_the_activation_is_read_from_metadata_and_published_names(tmp_path: Path) -> None:
    path = _saved(_model("vit"), tmp_path / "weights.safetensors", quick_gelu="true")
    with pytest.raises(UserError, match="its own metadata"):
        _load(path, _model("vit"))

    path = _saved(_model("vit-quickgelu"), tmp_path / "vit_b_16-laion400m_e32-55e67d44.pt")
    with pytest.raises(UserError, match=r"trained with GELU \(its published name\).*name open_clip:ViT-X-16$"):
        _load(path, _model("vit-quickgelu"), quick_gelu=True)


def test_other_shapes_are_refused_with_the_tensor(tmp_path: Path) -> None:
    wider = open_clip.model.CLIP(embed_dim=48, **FAMILIES["vit"])

    with pytest.raises(UserError, match=r"has shape \(32, 48\), open_clip:ViT-X-16 needs \(32, 40\)"):
        _load(_saved(wider, tmp_path / "weights.pt"), _model("vit"))


def test_another_architecture_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the file belongs to another architecture"):
        _load(_saved(_model("resnet"), tmp_path / "weights.safetensors"), _model("vit"))


def test_missing_and_unknown_tensors_are_counted(tmp_path: Path) -> None:
    model = _model("vit")
    state = {name: value.clone() for name, value in model.state_dict().items() if name != "visual.proj"}
    torch.save({**state, "head.bias": torch.zeros(2)}, tmp_path / "weights.pt")

    with pytest.raises(UserError, match=r"lacks 1 of its tensors such as visual\.proj and holds 1 others such as head"):
        _load(tmp_path / "weights.pt", model)


def test_a_file_of_transformers_is_recognised(tmp_path: Path) -> None:
    torch.save({"vision_model.embeddings.class_embedding": torch.zeros(2)}, tmp_path / "weights.pt")

    with pytest.raises(
        UserError, match=r"was saved by transformers, which .* take the open_clip file of the same model"
    ):
        _load(tmp_path / "weights.pt", _model("vit"))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    path = _saved(_model("vit"), tmp_path / name)
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(UserError, match="cannot be read as weights") as caught:
        _load(path, _model("vit"))
    assert "\n" not in str(caught.value)


def test_something_else_than_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": 1}}, tmp_path / "weights.pt")

    with pytest.raises(UserError, match="holds no state dict"):
        _load(tmp_path / "weights.pt", _model("vit"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_pickles_end_in_one_line(tmp_path: Path) -> None:
    path, chance, refused = tmp_path / "weights.pt", random.Random(0), 0
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(300):
        data = bytearray(parts["weights/data.pkl"])
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, data if name == "weights/data.pkl" else part)
        try:
            convert_weights_file(path, tmp_path / "weights.safetensors")
        except UserError as error:
            refused += "\n" not in str(error)
        else:
            (tmp_path / "weights.safetensors").unlink()
    assert refused > 200
