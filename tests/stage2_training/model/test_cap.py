"""Prompts with learned and with fixed context, against the text tower's own encoding of the same words."""

import pytest
import torch
from pydantic import ValidationError

from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.model.cap import ContextAwarePrompting
from sspa.stage2_training.model.options import CapOptions

from .small_models import small_backbone, some_knowledge


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return small_backbone(tmp_path_factory.mktemp("backbone"))


def _bound(options: CapOptions, backbone: Backbone) -> ContextAwarePrompting:
    prompts = ContextAwarePrompting(options)
    prompts.bind(backbone, some_knowledge())
    return prompts


@pytest.mark.parametrize("learned", [True, False])
def test_untrained_prompts_are_the_words_and_the_name(learned: bool, backbone: Backbone) -> None:
    names = [label.text for label in some_knowledge().labels]
    written = backbone.encode_text([f"a photo of a {name}" for name in names])

    prompts = _bound(CapOptions(learned=learned), backbone)

    torch.testing.assert_close(prompts(backbone), written, atol=1e-5, rtol=1e-5)
    assert prompts(backbone).requires_grad == learned
    assert [parameter.requires_grad for parameter in prompts.parameters()] == [learned]


def test_fixed_prompts_pass_the_text_tower_once(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = _bound(CapOptions(learned=False), backbone)
    monkeypatch.setattr(type(backbone), "encode_prompts", lambda *_: pytest.fail("passed the text tower"))

    assert prompts(backbone) is prompts(backbone)


def test_the_state_is_that_of_learned_prompts(backbone: Backbone) -> None:
    assert _bound(CapOptions(learned=False), backbone).state_dict().keys() == {"context"}


def test_fixed_prompts_need_words() -> None:
    with pytest.raises(ValidationError, match="learned=false keeps the initial words: give initial_words"):
        CapOptions(learned=False, initial_words=None)
