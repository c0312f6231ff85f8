"""Run folders and packages from strangers: nothing in them runs, and every defect is one line and exit code 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .conftest import Ended

Command = Callable[..., Ended]

EVIL = """
open("ran", "w").write("code ran")
from transformers import BertTokenizer
class EvilTok(BertTokenizer):
    pass
"""


@pytest.fixture
def package(trained_run: Path, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as `sspa-train package` writes it, in the current folder."""
    folder = tmp_path / "package"
    shutil.copytree(trained_run, folder)
    shutil.copytree(squares / "backbone", folder / "backbone")
    config = json.loads((folder / "config.json").read_text())
    config["backbone"]["name"] = "local-dir:{folder}/backbone"
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(squares / "pictures" / "test0.png", tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return folder


def _change(file: Path, *path: str, value: object) -> None:
    tree = json.loads(file.read_text())
    at = tree
    for key in path[:-1]:
        at = at.setdefault(key, {})
    at[path[-1]] = value
    file.write_text(json.dumps(tree))


def _refused(sspa_train: Command, *arguments: str) -> str:
    ended = sspa_train("predict", "package", "photo.png", *arguments)
    assert ended.code == 2, ended.messages
    *_, line = ended.messages.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in ended.messages
    assert not Path("ran").exists()
    return line


def test_the_package_works_as_it_is(package: Path, sspa_train: Command) -> None:
    assert sspa_train("predict", "package", "photo.png").code == 0


def test_a_tokenizer_with_code_is_not_loaded(package: Path, sspa_train: Command) -> None:
    """The attack that once ran backbone/evil.py."""
    backbone = package / "backbone"
    (backbone / "evil.py").write_text(EVIL)
    (backbone / "config.json").write_text('{"model_type": "bert"}')
    tokenizer = {"tokenizer_class": "EvilTok", "auto_map": {"AutoTokenizer": ["evil.EvilTok", None]}}
    (backbone / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    config = backbone / "open_clip_config.json"
    _change(config, "model_cfg", "text_cfg", "hf_tokenizer_name", value="x")
    _change(config, "model_cfg", "text_cfg", "tokenizer_kwargs", value={"trust_remote_code": True})
    assert "code from a folder is never run" in _refused(sspa_train)
    _change(config, "model_cfg", "text_cfg", "tokenizer_kwargs", value=None)
    assert "tokenizer_config.json: has an auto_map" in _refused(sspa_train)


class Evil(torch.nn.Module):
    """Writes a file while TorchScript loads it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight, self.training = state
        torch.save(self.weight, "ran")


def test_a_torchscript_archive_does_not_run(package: Path, sspa_train: Command) -> None:
    weights = package / "backbone" / "weights.pt"
    torch.jit.script(Evil()).save(str(weights))
    torch.jit.load(weights)
    Path("ran").unlink()
    _change(package / "config.json", "backbone", "name", value="open_clip:ViT-B-32")
    _change(package / "config.json", "backbone", "weights", value="{folder}/backbone/weights.pt")
    assert "brings the weights weights.pt" in _refused(sspa_train)
    # The same file outside of the folder is read, as numbers.
    weights.rename("weights.pt")
    _change(package / "config.json", "backbone", "weights", value=str(Path("weights.pt").resolve()))
    assert "cannot be read as weights (data.pkl has a module with a state of its own" in _refused(sspa_train)


def test_a_model_on_the_hub_is_not_downloaded_unasked(
    package: Path, sspa_train: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def snapshot_download(name: str, *, local_files_only: bool = False, **_: object) -> str:
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    _change(package / "config.json", "backbone", "name", value="hf-hub:owner/name")
    assert "does not say which commit is meant" in _refused(sspa_train)
    _change(package / "config.json", "backbone", "name", value=f"hf-hub:owner/name@{'0' * 40}")
    assert "--allow-download" in _refused(sspa_train)
    assert asked == [True]
    assert "not available from the hub" in _refused(sspa_train, "--allow-download")
    assert asked == [True, True, False]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "[]"),
        ("run.json", "7"),
        ("run.json", '{"format": "1"}'),
        ("run.json", '{"format": 99}'),
        ("run.json", "[" * 100_000),
        ("run.json", ""),
        ("config.json", "[]"),
        ("config.json", '{"backbone": []}'),
        ("config.json", '{"backbone": {"name": 7}}'),
        ("config.json", '{"a":' * 50_000 + "1" + "}" * 50_000),
        ("config.json", '{"knowledge": "k", "model": {"head": "sspa", "qsm": {"layers": 10000000}}}'),
        ("thresholds.json", "[]"),
        ("thresholds.json", '{"values": [1]}'),
        ("thresholds.json", '{"thresholds": {"square0": "high"}}'),
        ("result.json", "[]"),
        ("knowledge.parquet", "not Parquet"),
        ("weights.safetensors", "not safetensors"),
    ],
)
def test_records_of_any_shape_are_one_line(package: Path, sspa_train: Command, name: str, content: str) -> None:
    if not (package / name).exists():
        pytest.fail(f"the package has no {name}")
    (package / name).write_text(content)
    if name == "result.json":
        ended = sspa_train("report", "package")
        assert ended.code == 2, ended.messages
        assert "Traceback" not in ended.messages
        return
    assert name in _refused(sspa_train, "--threshold", "tuned")


def test_weights_that_are_not_finite_are_refused(package: Path, sspa_train: Command) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(package / "weights.safetensors")
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, package / "weights.safetensors")
    assert f"{name} has values that are not finite" in _refused(sspa_train)
