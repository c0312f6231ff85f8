"""The paired bootstrap against a plain loop over drawn images and seeds, with scikit-learn's average precision."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sspa.stage2_training.evaluation.bootstrap import resampled_map, resampling_weights
from sspa.stage2_training.evaluation.paired_bootstrap import difference_interval, draw_seeds
from sspa.stage2_training.evaluation.protocols import get_protocol


def slow_map(probabilities: np.ndarray, targets: np.ndarray, images: np.ndarray) -> float:
    """mAP over the drawn images: unknown cells left out, labels without a positive in no mean."""
    found = []
    for label in range(targets.shape[1]):
        truth, scores = targets[images, label], probabilities[images, label]
        known = truth >= 0
        if (truth == 1).any():
            found.append(average_precision_score(truth[known], scores[known]))
    return float(np.mean(found)) if found else float("nan")


def test_interval_equals_a_plain_loop_with_unknowns_and_labels_that_vanish() -> None:
    generator = np.random.default_rng(0)
    images, labels, seeds, resamples = 40, 4, 3, 60
    # The last label has one positive: about a third of the resamples lose it. The third has none at all.
    targets = (generator.random((images, labels)) < 0.3).astype(np.int8)
    targets[:, 2] = 0
    targets[:, 3] = 0
    targets[7, 3] = 1
    targets[generator.random(targets.shape) < 0.1] = -1
    targets[7, 3] = 1
    # Coarse scores, so that there are ties.
    ours, reference = np.round(generator.random((2, seeds, images, labels)), 1)
    weights = resampling_weights(images, resamples)
    protocol = get_protocol("custom")
    drawn_seeds = draw_seeds(seeds, resamples)
    assert (weights[:, 7] == 0).any()

    differences = []
    for resample in range(resamples):
        drawn_images = np.repeat(np.arange(images), weights[resample])
        differences.append(
            np.mean(
                [
                    slow_map(ours[seed], targets, drawn_images) - slow_map(reference[seed], targets, drawn_images)
                    for seed in drawn_seeds[:, resample]
                ]
            )
        )
    expected = np.quantile(differences, [0.025, 0.975])

    of_ours, of_reference = (
        np.stack([resampled_map(of_seed, targets, protocol, weights) for of_seed in scores])
        for scores in (ours, reference)
    )
    assert difference_interval(of_ours, of_reference) == pytest.approx(tuple(expected), abs=1e-12)


def test_the_interval_is_paired_by_seed_and_by_image() -> None:
    generator = np.random.default_rng(1)
    reference = generator.normal(80, 5, (3, 400))
    # The same noise in both: only a paired interval is narrow.
    assert difference_interval(reference + 1.0, reference) == pytest.approx((1.0, 1.0))
    low, high = difference_interval(reference + generator.normal(0, 1, (3, 400)), reference)
    assert low < 0 < high
    # One lucky seed of three widens it, since it is drawn more or less often.
    low, high = difference_interval(reference + np.array([[0.0], [0.0], [3.0]]), reference)
    assert low == pytest.approx(0.0)
    assert high == pytest.approx(3.0)


def test_seeds_are_drawn_alike_often_and_independently_of_the_images() -> None:
    drawn = draw_seeds(3, 20_000)
    assert np.bincount(drawn.ravel()) / drawn.size == pytest.approx([1 / 3] * 3, abs=0.01)
    weights = resampling_weights(50, 20_000)
    together = [np.corrcoef((drawn == 0).sum(axis=0), weights[:, image])[0, 1] for image in range(50)]
    assert np.abs(together).max() < 0.03


def test_resamples_without_any_positive_are_left_out() -> None:
    ours = np.array([[1.0, np.nan, 3.0]])
    low, high = difference_interval(ours, np.zeros((1, 3)))
    assert 1.0 <= low <= high <= 3.0
    assert difference_interval(np.full((2, 5), np.nan), np.zeros((2, 5))) is None
