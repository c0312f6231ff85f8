"""The configuration: where values come from, and what a wrong one says."""

from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.config.run_config import RunConfig, resolve_config, setting_keys, validated

KNOWLEDGE = {"knowledge": "k.parquet"}


def test_later_sources_go_before_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("training: {epochs: 3, seed: 3}\nmodel: {qsm: {layers: 3}}\n")
    config = resolve_config([file], ["training.epochs=4"], {**KNOWLEDGE, "training.seed": 5}, base={"loss.kind": "bce"})
    assert (config.training.epochs, config.training.seed, config.loss.kind) == (4, 5, "bce")
    assert config.model.qsm.layers == 3


def test_a_configuration_survives_being_written_and_read() -> None:
    config = resolve_config(settings=["model.head=csra", "backbone.image_size=[256, 128]"], values=KNOWLEDGE)
    assert validated(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.qsm.layer=2", "did you mean model.qsm.layers"),
        ("training.epoch=2", "did you mean training.epochs"),
        ("training.epochs=-1", "training.epochs = -1"),
        ("model.aggregator.kind=softest", "model.aggregator.kind = 'softest'"),
        ("model.head=ssp", "model = "),
        ("training.epochs", "write it as key=value"),
        ("training.epochs.more=1", "there is no key"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_config(
            settings=["training.epochs=1", setting] if "more" not in setting else [setting], values=KNOWLEDGE
        )
    message = str(error.value)
    assert words in message or "training.epochs" in message
    assert "\n" not in message


def test_knowledge_must_be_named() -> None:
    with pytest.raises(UserError, match="--knowledge"):
        resolve_config()


def test_every_key_can_be_set() -> None:
    keys = setting_keys()
    assert {"data.name", "model.qsm.layers", "training.lr", "knowledge"} <= set(keys)
    assert RunConfig(knowledge=Path("k.parquet")).model.head == "sspa"
