"""A canary for undocumented internals of libraries that we use, which fails when one changes."""

import ast
import importlib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("shared", "stage1_knowledge", "stage2_training")

# (distribution, module, attribute below it, the file of ours that needs it). Names with a leading underscore are found
# by `test_every_private_name_is_listed`; the others are internals without one.
INTERNALS = [
    ("open_clip_torch", "open_clip.transformer", "VisionTransformer._embeds", "stage2_training/backbones/vit_tower.py"),
    ("open_clip_torch", "open_clip.transformer", "VisionTransformer._pool", "stage2_training/backbones/vit_tower.py"),
    ("open_clip_torch", "open_clip.pretrained", "_PRETRAINED", "stage2_training/backbones/weight_files.py"),
    ("open_clip_torch", "open_clip.transformer", "text_global_pool", "stage2_training/backbones/text_towers.py"),
    ("open_clip_torch", "open_clip.transformer", "Transformer", "stage2_training/backbones/vit_tower.py"),
    ("open_clip_torch", "open_clip.modified_resnet", "AttentionPool2d", "stage2_training/backbones/resnet_tower.py"),
    ("open_clip_torch", "open_clip.timm_model", "TimmModel", "stage2_training/backbones/timm_tower.py"),
    ("open_clip_torch", "open_clip.hf_model", "HFTextEncoder", "stage2_training/backbones/text_towers.py"),
    ("open_clip_torch", "open_clip.factory", "get_model_config", "stage2_training/backbones/open_clip_models.py"),
    ("open_clip_torch", "open_clip.factory", "load_state_dict", "stage2_training/backbones/weight_files.py"),
    ("open_clip_torch", "open_clip.convert", "convert_state_dict", "stage2_training/backbones/weight_files.py"),
    (
        "open_clip_torch",
        "open_clip.model",
        "convert_to_custom_text_state_dict",
        "stage2_training/backbones/weight_files.py",
    ),
    ("torch", "torch.nn.modules.batchnorm", "_BatchNorm", "stage2_training/backbones/contract.py"),
    ("torch", "torch.backends.mha", "set_fastpath_enabled", "stage2_training/export/program.py"),
    ("timm", "timm.utils", "ModelEmaV3.update", "stage2_training/training/optimization.py"),
    ("timm", "timm.scheduler", "CosineLRScheduler.step_update", "stage2_training/training/optimization.py"),
    ("timm", "timm.data.imagenet_info", "ImageNetInfo", "stage2_training/backbones/embedded.py"),
    ("transformers", "transformers", "GgufConfig", "stage1_knowledge/embedded_model.py"),
]
# Of vLLM's `LLM`, which exists only once an engine was started: looked for in the source.
VLLM = ("def enqueue_chat", "self.llm_engine = ")
# Of our own or of Python's standard library.
_NOT_FOREIGN = {"_exit"}


@pytest.mark.parametrize(("library", "module", "name", "file"), INTERNALS, ids=lambda value: str(value))
def test_what_we_touch_is_where_it_was(library: str, module: str, name: str, file: str) -> None:
    assert name.split(".")[-1] in (ROOT / file).read_text(), f"{file} no longer needs {name}: take it off this list"
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
        assert found is not None, f"{library} {metadata.version(library)} has no {module}.{name}; {file} needs it"


def test_vllm_has_what_its_engine_needs() -> None:
    vllm = pytest.importorskip("vllm", reason="no vLLM build is installed (extra cpu or gpu)")
    source = Path(vllm.__file__).with_name("entrypoints") / "llm.py"
    text = "\n".join(file.read_text() for file in (source, *source.parent.glob("offline*.py")) if file.is_file())
    missing = [name for name in VLLM if name not in text]
    assert not missing, f"vllm {vllm.__version__}: {missing}; stage1_knowledge/engines/vllm_offline.py needs it"


def test_every_private_name_is_listed() -> None:
    trees = {
        str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8"))
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*.py")
    }
    ours = {name for tree in trees.values() for name in _defined(tree)} | _NOT_FOREIGN
    used = {
        (node.attr, file)
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    listed = {(name.split(".")[-1], file) for _, _, name, file in INTERNALS}
    assert {(name, file) for name, file in used if name not in ours} <= listed


def _defined(tree: ast.AST) -> set[str]:
    """The names of functions, classes and attributes that this module defines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names
