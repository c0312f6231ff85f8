"""Other ways to compute the same: text in chunks, images in chunks, a compiled head."""

import pytest
import torch

from sspa.stage2_training.backbones import contract
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.model import recognizer as recognizer_module
from sspa.stage2_training.model.options import SspaOptions
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.model.sspa import SSPA

from .small_models import small_backbone, some_features, some_knowledge, some_targets

MANY = tuple(f"label number {number}" for number in range(11))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return small_backbone(tmp_path_factory.mktemp("backbone"))


def _head(backbone: Backbone) -> SSPA:
    torch.manual_seed(0)
    head = SSPA(SspaOptions(width=32), backbone.width)
    head.bind(backbone, some_knowledge(MANY))
    head.initialise(some_features(32), some_targets(32), head.encode_labels(backbone))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return head


def test_text_in_chunks_gives_the_same_logits_and_gradients(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (len(MANY), 4):
        monkeypatch.setattr(contract, "_TEXTS_AT_ONCE", size)
        head = _head(backbone)
        logits = head(some_features(3), head.encode_labels(backbone)).logits["region"]
        logits.square().sum().backward()
        found.append((logits.detach(), head.cap.context.grad))

    (whole, whole_gradient), (chunked, chunked_gradient) = found
    assert whole_gradient is not None
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(chunked_gradient, whole_gradient, atol=1e-4, rtol=1e-4)


def test_chunks_keep_less_for_the_backward_pass(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    for size in (len(MANY), 4):
        monkeypatch.setattr(contract, "_TEXTS_AT_ONCE", size)
        head, saved = _head(backbone), 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            head.cap(backbone)
        kept.append(saved)

    assert kept[1] < kept[0] / 4


@torch.no_grad()
def test_many_labels_are_scored_in_chunks_with_the_same_result(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = _head(backbone).eval()
    head.bind(backbone, some_knowledge([f"thing {number}" for number in range(500)]))
    recognizer, features = Recognizer(backbone, head), some_features(5)
    labels, batches = recognizer.encode_labels(), []
    head.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0].pooled)))

    monkeypatch.setattr(recognizer_module, "_PAIRS_AT_ONCE", 1_000)
    chunked = recognizer(features, labels).logits
    monkeypatch.setattr(recognizer_module, "_PAIRS_AT_ONCE", 10**6)
    whole = recognizer(features, labels).logits

    assert batches == [2, 2, 1, 5]
    for branch, logits in whole.items():
        assert logits.shape == (5, 500)
        torch.testing.assert_close(chunked[branch], logits, atol=1e-5, rtol=1e-5)
