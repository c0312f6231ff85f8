"""The configuration's keys, and the messages for invalid values."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.config.resolving import resolve_config, validated
from sspa.stage2_training.config.schema import setting_keys, variant_sections
from sspa.stage2_training.config.trees import flat

KNOWLEDGE = {"knowledge": "k.parquet"}
_FROZEN = Path(__file__).with_name("keys.json")


def _keys_and_defaults() -> dict[str, Any]:
    """Every key with its default, in every variant of a section."""
    found: dict[str, Any] = {}
    for name, section in variant_sections().items():
        for form in section.fields:
            config = validated({**KNOWLEDGE, name: {section.tag: form}})
            for key, value in flat(config.model_dump(mode="json")).items():
                inside = key.startswith(f"{name}.")
                if inside or key.split(".")[0] not in variant_sections():
                    found[key.replace(name, f"{name}[{form}]", 1) if inside else key] = value
    return dict(sorted(found.items()))


def test_keys_and_defaults_change_on_purpose_only() -> None:
    """SSPA_WRITE_KEYS=1 rewrites the file; a removed key must be answered with its new name."""
    found = _keys_and_defaults()
    if os.environ.get("SSPA_WRITE_KEYS"):
        _FROZEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(_FROZEN.read_text())


# Of the wrong type, out of range, and of a form that looks right.
_NASTY = (
    "x",
    -1,
    0,
    1e9,
    2.5,
    True,
    None,
    [],
    ["plain", "plain"],
    [3, -1],
    [0, 0],
    {"more": 1},
    float("inf"),
    "",
    "lst:2",
)


@pytest.mark.parametrize("key", setting_keys())
def test_a_bad_value_is_accepted_or_named(key: str) -> None:
    section, _, name = key.partition(".")
    variants = variant_sections().get(section)
    forms = (
        [] if variants is None else [form for form, fields in variants.fields.items() if name.split(".")[0] in fields]
    )
    chosen = {f"{section}.{variants.tag}": forms[0]} if variants and name != variants.tag else {}
    messages = [message for value in _NASTY if (message := _refusal({**chosen, key: value})) is not None]
    assert messages
    assert [message for message in messages if key not in message or "\n" in message] == []


def _refusal(values: dict[str, Any]) -> str | None:
    """The message about these settings; None if they are accepted."""
    try:
        resolve_config(values={**KNOWLEDGE, **values}, preset="none")
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.qsm.layer=2", "did you mean model.qsm.layers"),
        ("training.epoch=2", "did you mean training.epochs"),
        ("training.epochs=-1", "training.epochs = -1"),
        ("model.aggregator.kind=softest", "model.aggregator.kind = 'softest'"),
        ("model.head=ssp", "model.head = 'ssp': take one of sspa, zero-shot"),
        ("loss.kind=mse", "loss.kind = 'mse': take one of asl, bce, two-way"),
        ("training.epochs", "write it as key=value"),
        ("training.lr.more=1", "training.lr is a value, not a section"),
        ("training=3", "training = 3: is a section, not a value; set its keys, such as training.accumulate"),
        ("backbone.tower=lst:2", "backbone.tower = 'lst:2': take frozen, all, or last:K"),
        ("backbone.tower=last:0", "backbone.tower = 'last:0': take frozen, all, or last:K"),
        ("evaluation.views=[]", "evaluation.views = []: write one view or both"),
        ("training.views=[plain, plain]", "training.views = ['plain', 'plain']: write one view or both"),
        ("data.crop_scale=[3, -1]", "data.crop_scale = [3, -1]: write the smallest and the largest share"),
        ("model.kap.template=A {photo}", "model.kap.template = 'A {photo}': may contain {label} and {sentence}"),
        ("model.qsm.axes=[x0, x0]", "model.qsm.axes = ['x0', 'x0']: name each input at most once"),
        ("loss.temperature=2", "loss.temperature belongs to loss.kind=two-way, and loss.kind is asl"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_config(settings=[setting], values=KNOWLEDGE)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_loss_has_its_own_options_only() -> None:
    with pytest.raises(UserError, match=r"loss\.smoothing belongs to loss\.kind=asl or bce, and loss\.kind is two-way"):
        resolve_config(settings=["loss.kind=two-way", "loss.smoothing=0.1"], values=KNOWLEDGE)


@pytest.mark.parametrize(
    ("text", "size"), [("448", (448, 448)), ("256x128", (256, 128)), ("[256, 128]", (256, 128)), ("null", None)]
)
def test_an_image_size_is_one_number_or_two(text: str, size: tuple[int, int] | None) -> None:
    config = resolve_config(settings=[f"backbone.image_size={text}"], values=KNOWLEDGE)
    assert config.backbone.image_size == size


@pytest.mark.parametrize("text", ["0", "9000", "256x", "axb", "1x2x3", "true"])
def test_another_image_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"backbone\.image_size"):
        resolve_config(settings=[f"backbone.image_size={text}"], values=KNOWLEDGE)


def test_a_configuration_survives_being_written_and_read() -> None:
    config = resolve_config(settings=["model.head=csra", "backbone.image_size=[256, 128]"], values=KNOWLEDGE)
    assert validated(config.model_dump(mode="json")) == config


def test_knowledge_must_be_named() -> None:
    with pytest.raises(UserError, match="--knowledge"):
        resolve_config()
