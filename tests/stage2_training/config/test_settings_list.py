"""The list of settings says of every key what the configuration does with it."""

import json

import pytest

from sspa.stage2_training.config.resolving import resolve_config
from sspa.stage2_training.config.schema import setting_keys
from sspa.stage2_training.config.settings_list import Setting, list_settings
from sspa.stage2_training.config.trees import flat


def test_every_key_is_listed_with_a_meaning() -> None:
    found = list_settings()
    assert {setting.key for setting in found} == set(setting_keys())
    assert len({(setting.key, setting.only_with) for setting in found}) == len(found)
    assert [setting.key for setting in found if not setting.meaning] == []


@pytest.mark.parametrize("setting", list_settings(), ids=lambda setting: f"{setting.key}, {setting.only_with}")
def test_the_default_is_what_a_run_gets(setting: Setting) -> None:
    if setting.key == "knowledge":
        assert setting.default == "(needed)"
        return
    chosen = [setting.only_with] if setting.only_with else []
    config = resolve_config(settings=chosen, values={"knowledge": "k.parquet"}, preset="none")
    found = flat(config.model_dump(mode="json"))[setting.key]
    # `--preset none` is itself a value of `preset`, which is only a record.
    expected = "null" if setting.key == "preset" else found if isinstance(found, str) else json.dumps(found)
    assert setting.default == expected


def test_values_are_said_in_words() -> None:
    by_key = {(setting.key, setting.only_with): setting.takes for setting in list_settings()}
    assert by_key["training.epochs", None] == "whole number from 0 to 1e+06"
    assert by_key["loss.clip", "loss.kind=asl"] == "number from 0 below 1"
    assert by_key["model.width", "model.head=sspa"] == "whole number from 4 to 16384 in steps of 4 or null"
    assert by_key["data.crop_scale", None] == "[number, number]"
    assert by_key["loss.kind", None] == "asl | bce | two-way"
    assert by_key["model.heads", "model.head=csra"] == "1 | 2 | 4 | 6 | 8"


def test_a_text_selects_by_key_and_meaning() -> None:
    assert {setting.key for setting in list_settings("TensorBoard")} == {"training.tensorboard"}
    assert all("lr" in setting.key for setting in list_settings("_lr"))
    assert list_settings("no such thing") == []
