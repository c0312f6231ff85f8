import numpy as np
import pytest

from sspa.stage2_training.evaluation.bootstrap import map_interval, resampled_map, resampling_weights
from sspa.stage2_training.evaluation.metrics import class_average_precisions
from sspa.stage2_training.evaluation.protocols import get_protocol

PROTOCOL = get_protocol("voc2007-ignore-difficult")


def scores(seed: int, count: int = 120, strength: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, 4)) < 0.3).astype(np.int8)
    targets[rng.random(targets.shape) < 0.1] = -1
    return np.round(strength * (targets == 1) + (1 - strength) * rng.random(targets.shape), 2), targets


def test_resamples_are_what_repeating_rows_gives() -> None:
    probabilities, targets = scores(0)
    times = resampling_weights(120, 130, seed=4)
    assert (times.sum(axis=1) == 120).all()
    assert (resampling_weights(120, 130, seed=4) == times).all()
    drawn = resampled_map(probabilities, targets, PROTOCOL, times)
    for row in (0, 57, 129):
        rows = np.repeat(np.arange(120), times[row])
        expected = np.nanmean(class_average_precisions(probabilities[rows], targets[rows], PROTOCOL))
        assert drawn[row] == pytest.approx(expected, abs=1e-12)


def test_interval_holds_the_figure_and_narrows_with_more_images() -> None:
    few, many = (map_interval(*scores(1, count), PROTOCOL, resamples=200) for count in (60, 2000))
    for interval in (few, many):
        assert interval.low < interval.value < interval.high
    assert many.high - many.low < (few.high - few.low) / 3
    assert map_interval(*scores(1, 60), PROTOCOL, resamples=200) == few
    assert "95%, 200 resamples" in str(few)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """The mAP of a very large sample lies in the 80% intervals of small ones about four times in five."""
    truth = float(np.nanmean(class_average_precisions(*scores(99, 100_000), PROTOCOL)))
    intervals = [map_interval(*scores(seed, 300), PROTOCOL, resamples=150, level=0.8) for seed in range(60)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.62 <= covered <= 0.95


def test_one_seed_pairs_the_resamples_of_two_methods() -> None:
    probabilities, targets = scores(2, 500)
    noise = np.random.default_rng(3).normal(0, 0.02, probabilities.shape)
    other = np.clip(probabilities + noise, 0, 1)
    weights = resampling_weights(500, 200)
    one, two = (resampled_map(values, targets, PROTOCOL, weights) for values in (probabilities, other))
    assert np.std(one - two) < np.std(one) / 3
