"""Resampled metrics against the evaluation itself, on the images of each resample."""

import numpy as np
import pytest

from sspa.stage2_training.evaluation.bootstrap import resampling_weights
from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.report.figures import headline_names, intervals_of, resampled_figures
from sspa.stage2_training.report.side_by_side import differing_settings

LABELS = ("cat", "dog", "person")


@pytest.mark.parametrize("name", ["custom", "pa100k", "nuswide-official"])
def test_a_resample_is_the_evaluation_of_its_images(name: str) -> None:
    protocol = get_protocol(name)
    generator = np.random.default_rng(1)
    targets = generator.integers(-1, 2, (60, 3)).astype(np.int8)
    probabilities = (0.3 * (targets == 1) + 0.7 * generator.random((60, 3))).astype(np.float32)
    drawn = resampled_figures(probabilities, targets, protocol, resamples=5)
    assert list(drawn) == list(headline_names(protocol))
    for resample, counts in enumerate(resampling_weights(60, 5)):
        images = [image for image, count in enumerate(counts) for _ in range(count)]
        expected = evaluate_scores(probabilities[images], targets[images], LABELS, protocol)
        for figure_name, values in drawn.items():
            assert values[resample] == pytest.approx(expected.figure(figure_name), abs=1e-9)


def test_an_interval_holds_the_figure_of_all_images() -> None:
    protocol = get_protocol("custom")
    generator = np.random.default_rng(2)
    targets = generator.integers(0, 2, (200, 3)).astype(np.int8)
    probabilities = (0.3 * targets + 0.7 * generator.random((200, 3))).astype(np.float32)
    metrics = evaluate_scores(probabilities, targets, LABELS, protocol)
    for name, interval in intervals_of(metrics, resampled_figures(probabilities, targets, protocol)).items():
        assert interval.value == metrics.figure(name)
        assert interval.low < interval.value < interval.high


def test_settings_that_differ_are_named_with_both_values() -> None:
    one = {"model": {"head": "sspa", "qsm": {"layers": 2}}, "training": {"seed": 0}}
    other = {"model": {"head": "linear"}, "training": {"seed": 0}}
    assert differing_settings([one, other]) == {
        "shared": [("model.head", ["sspa", "linear"])],
        "own": [("model.qsm.layers", ["2", None])],
    }
    assert differing_settings([one, one]) == {"shared": [], "own": []}
