"""A mistake in a command's arguments is reported before the libraries are loaded that take seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..comparison.recorded_runs import write_knowledge_file

# Runs each command in one process and notes its message, and which of the heavy libraries are loaded by then.
PROGRAM = """
import json, sys
from sspa.shared.errors import UserError
from sspa.stage2_training.cli.main import app

HEAVY = {"torch", "torchvision", "timm", "open_clip", "transformers", "torchmetrics", "matplotlib", "sklearn", "scipy"}
for words in json.load(sys.stdin):
    try:
        app(words, standalone_mode=False)
        said = "no error"
    except UserError as error:
        said = str(error)
    print(json.dumps([said, sorted(HEAVY & set(sys.modules))]))
"""

KNOWLEDGE = ("--knowledge", "k.parquet")
MISTAKES = {
    "absent.parquet: no such knowledge": ("run", "--knowledge", "absent.parquet"),
    "there is no key 'model.foo'": ("run", *KNOWLEDGE, "--set", "model.foo=1"),
    "there is no preset 'nope'": ("run", *KNOWLEDGE, "--preset", "nope"),
    "there is no data set 'nowhere'": ("run", *KNOWLEDGE, "--data", "nowhere"),
    "nowhere: there is no such folder": ("run", *KNOWLEDGE, "--data", "voc2007", "--root", "nowhere"),
    "full: exists already": ("run", *KNOWLEDGE, "--out", "full"),
    "this configuration": ("run", *KNOWLEDGE, "--resume"),
    "--device gpu: is not known": ("run", *KNOWLEDGE, "--device", "gpu"),
    "open_clip:ViT-X: no such architecture": ("run", *KNOWLEDGE, "--set", "backbone.name=open_clip:ViT-X"),
    "backbone.name=nope: unknown": ("run", *KNOWLEDGE, "--set", "backbone.name=nope"),
    "absent: is not a run": ("evaluate", "absent"),
    "no_image.jpg: there is no such image": ("predict", "absent", "no_image.jpg"),
    "a.jpg: is not a run": ("predict", "a.jpg", "a.jpg"),
    "b: is not a run": ("predict", "b", "a.jpg", "--out", "out/"),
    "--labels absent.txt: there is no such file": ("tag", "a.jpg", "--labels", "absent.txt"),
    "backbone.name=other: unknown": ("tag", "a.jpg", "--labels", "cat", "--backbone", "other"),
    "--expect 9: give": ("tag", "a.jpg", "--labels", "cat", "--expect", "9"),
    "c: is not a run": ("explain", "c", "a.jpg", "--out", "out"),
    "d: is not a run": ("demo", "d"),
    "e: is not a run": ("export", "e", "--to", "onnx"),
    "f: is not a run": ("package", "f", "--out", "out"),
    "g: is not a run": ("report", "g"),
    "h: is not a run": ("runs", "diff", "h", "h"),
    "holds no run": ("runs", "empty"),
    "there is no variant 'noGDMA'": ("compare", "ablation", *KNOWLEDGE, "--variants", "noGDMA"),
    "elsewhere: there is no such folder": ("compare", "ablation", *KNOWLEDGE, "--data", "ucm", "--root", "elsewhere"),
    "there is no data set 'photos'": ("data", "audit", "photos", *KNOWLEDGE, "--out", "out"),
    "i.parquet: there is no such manifest": ("data", "stats", "i.parquet"),
    "--root photos: there is no such folder": ("review", "cat,dog", "--root", "photos", "--out", "a.review.jsonl"),
    "backbone.name=third: unknown": ("bench", "--backbone", "third"),
    "backbone.name=fourth: unknown": ("backbone", "cost", "fourth@224"),
    "j.pt: there is no such file": ("backbone", "convert", "j.pt", "j.safetensors"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[str]]]:
    folder = tmp_path_factory.mktemp("mistakes")
    write_knowledge_file(folder / "k.parquet")
    (folder / "a.jpg").write_bytes(b"not looked at")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").touch()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(list(MISTAKES.values())),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(MISTAKES, map(json.loads, ended.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_reported_before_heavy_libraries_are_loaded(
    said: dict[str, tuple[str, list[str]]], message: str
) -> None:
    found, loaded = said[message]
    assert message in found
    assert loaded == []


def test_a_loaded_library_would_be_noticed(tmp_path: Path) -> None:
    loads = "app = lambda *_, **__: sys.modules.setdefault('torch', sys)"
    code = PROGRAM.replace("from sspa.stage2_training.cli.main import app", loads)
    ended = subprocess.run([sys.executable, "-c", code], input="[[]]", capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == ["no error", ["torch"]]
