"""The bridge against a loop, and the effect of its two centrings."""

import math

import torch

from sspa.stage2_training.backbones.imagenet_bridge import ImageNetBridge


def _filled(classes: int = 5, text_width: int = 4, width: int = 3) -> tuple[ImageNetBridge, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    descriptions = torch.randn(classes, text_width, generator=generator) + 1.0
    classifier = torch.randn(classes, width, generator=generator)
    bridge = ImageNetBridge(classes, text_width, width, temperature=0.3)
    bridge.fill(descriptions, classifier)
    return bridge, descriptions, classifier


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def test_the_bridge_equals_a_loop_over_classes() -> None:
    bridge, descriptions, classifier = _filled()
    text = torch.tensor([0.3, -1.0, 2.0, 0.5])

    keys = [_unit(row) for row in descriptions.tolist()]
    centre = [sum(key[i] for key in keys) / 5 for i in range(4)]
    mean_row = [sum(row[i] for row in classifier.tolist()) / 5 for i in range(3)]
    centred = _unit([value - middle for value, middle in zip(_unit(text.tolist()), centre, strict=True)])
    similarities = []
    for key in keys:
        centred_key = _unit([value - middle for value, middle in zip(key, centre, strict=True)])
        similarities.append(sum(a * b for a, b in zip(centred, centred_key, strict=True)))
    weights = [math.exp(similarity / 0.3) for similarity in similarities]
    expected = [
        sum(w * (row[i] - mean_row[i]) for w, row in zip(weights, classifier.tolist(), strict=True)) / sum(weights)
        for i in range(3)
    ]

    torch.testing.assert_close(bridge(text[None])[0], torch.tensor(expected))


def test_a_classes_own_description_is_drawn_to_its_row() -> None:
    bridge, descriptions, classifier = _filled()
    bridge.temperature = 0.01

    torch.testing.assert_close(bridge(descriptions), classifier - classifier.mean(dim=0), atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_text() -> None:
    bridge, _, _ = _filled()
    text = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)

    assert torch.autograd.gradcheck(bridge.double(), (text,))
