import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multilabel_auroc,
    multilabel_average_precision,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)

from sspa.shared.errors import UserError
from sspa.stage2_training.evaluation.decisions import (
    instance_figures,
    mean_accuracy,
    precision_recall,
    top_k_decisions,
)
from sspa.stage2_training.evaluation.metrics import evaluate_scores
from sspa.stage2_training.evaluation.protocols import get_protocol

PROTOCOL = get_protocol("voc2007-ignore-difficult")


def random_scores(seed: int, images: int = 300, labels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties among them, every label with positives and negatives."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((images, labels)) < 0.25).astype(np.int8)
    targets[0], targets[1] = 1, 0
    probabilities = np.round(0.3 * targets + 0.7 * rng.random((images, labels)), 2).astype(np.float32)
    return probabilities, targets


def evaluate(probabilities: np.ndarray, targets: np.ndarray):
    return evaluate_scores(probabilities, targets, [f"l{i}" for i in range(targets.shape[1])], PROTOCOL)


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn_and_torchmetrics(seed: int) -> None:
    probabilities, targets = random_scores(seed)
    # Neither library takes >= 0.5 and both leave 0.5 itself to chance of rounding: keep clear of it.
    probabilities[probabilities == 0.5] = 0.51
    metrics = evaluate(probabilities, targets)
    p, t, c = torch.from_numpy(probabilities), torch.from_numpy(targets).long(), targets.shape[1]

    assert metrics.mAP == pytest.approx(average_precision_score(targets, probabilities, average="macro"), abs=1e-12)
    assert metrics.mAP == pytest.approx(float(multilabel_average_precision(p, t, c)), abs=1e-6)
    assert metrics.auroc_macro == pytest.approx(roc_auc_score(targets, probabilities, average="macro"), abs=1e-12)
    assert metrics.auroc_macro == pytest.approx(float(multilabel_auroc(p, t, c)), abs=1e-6)
    assert metrics.auroc_micro == pytest.approx(roc_auc_score(targets, probabilities, average="micro"), abs=1e-12)
    assert metrics.calibration_error == pytest.approx(
        float(binary_calibration_error(p.flatten(), t.flatten(), n_bins=15)), abs=1e-6
    )
    for average, (precision, recall) in {"macro": ("CP", "CR"), "micro": ("OP", "OR")}.items():
        ours = metrics.at_threshold
        sk_precision, sk_recall, _, _ = precision_recall_fscore_support(targets, probabilities > 0.5, average=average)
        assert getattr(ours, precision) == pytest.approx(sk_precision, abs=1e-12)
        assert getattr(ours, recall) == pytest.approx(sk_recall, abs=1e-12)
        assert getattr(ours, precision) == pytest.approx(
            float(multilabel_precision(p, t, c, average=average)), abs=1e-6
        )
        assert getattr(ours, recall) == pytest.approx(float(multilabel_recall(p, t, c, average=average)), abs=1e-6)
    assert pytest.approx(float(multilabel_f1_score(p, t, c, average="micro")), abs=1e-6) == metrics.at_threshold.OF1


@pytest.mark.parametrize("seed", range(5))
def test_unknown_cells_enter_nothing(seed: int) -> None:
    probabilities, targets = random_scores(seed)
    rng = np.random.default_rng(seed)
    targets[rng.random(targets.shape) < 0.2] = -1
    metrics = evaluate(probabilities, targets)
    for label in range(targets.shape[1]):
        known = targets[:, label] >= 0
        expected = average_precision_score(targets[known, label], probabilities[known, label])
        assert metrics.per_class[f"l{label}"] == pytest.approx(expected, abs=1e-12)
    assert metrics.unknown_cells == (targets == -1).sum()
    # Whatever the scores of unknown cells are, no figure changes.
    other = np.where(targets == -1, 1 - probabilities, probabilities)
    assert evaluate(other, targets).to_dict() == metrics.to_dict()


def test_label_without_positive_is_reported_and_left_out() -> None:
    probabilities, targets = random_scores(0)
    whole = evaluate(probabilities[:, :7], targets[:, :7])
    targets[:, 7] = 0
    metrics = evaluate(probabilities, targets)
    assert metrics.absent == ("l7",)
    assert "l7" not in metrics.per_class
    ours = (metrics.mAP, metrics.at_threshold.CP, metrics.at_threshold.CR, metrics.mA)
    assert ours == pytest.approx((whole.mAP, whole.at_threshold.CP, whole.at_threshold.CR, whole.mA), abs=1e-12)
    assert metrics.at_threshold.OP < whole.at_threshold.OP  # its wrong predictions are still wrong


def test_one_image_and_one_label() -> None:
    one_image = evaluate(np.array([[0.9, 0.2]], np.float32), np.array([[1, 0]], np.int8))
    assert (one_image.mAP, one_image.absent, one_image.at_threshold.OF1) == (1.0, ("l1",), 1.0)
    assert one_image.to_dict()["auroc_macro"] is None
    one_label = evaluate(np.array([[0.9], [0.8], [0.1]], np.float32), np.array([[0], [1], [0]], np.int8))
    assert (one_label.mAP, one_label.auroc_macro) == (0.5, 0.5)


def test_nothing_positive_and_bad_arrays_are_refused() -> None:
    zeros = np.zeros((2, 2), np.int8)
    with pytest.raises(UserError, match="none of the 2 images has a positive label"):
        evaluate(np.zeros((2, 2), np.float32), zeros)
    for bad in (np.full((2, 2), 1.5, np.float32), np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), np.float16)):
        with pytest.raises(ValueError, match="probabilities must be"):
            evaluate(bad, zeros)


def test_precision_recall_by_hand() -> None:
    # Label a: predicted twice, right once, there twice. Label b: never predicted, there once. Label c: all right.
    decisions = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0]], bool)
    targets = np.array([[1, 1, 1], [0, 0, 0], [1, 0, -1]], np.int8)
    figures = precision_recall(decisions, targets)
    assert pytest.approx((1 / 2 + 0 + 1) / 3) == figures.CP
    assert pytest.approx((1 / 2 + 0 + 1) / 3) == figures.CR
    assert (pytest.approx(2 / 3), pytest.approx(2 / 4)) == (figures.OP, figures.OR)
    assert pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)) == figures.OF1


def test_top_k_by_hand() -> None:
    probabilities = np.array([[0.4, 0.1, 0.3, 0.2], [0.2, 0.2, 0.2, 0.2]])
    targets = np.array([[1, 0, -1, 0], [0, 0, 1, 0]], np.int8)
    # The unknown third label takes no place; ties go to the first labels.
    assert top_k_decisions(probabilities, targets, 2).tolist() == [
        [True, False, False, True],
        [True, True, False, False],
    ]
    assert top_k_decisions(probabilities, targets, 9).sum() == 7


def test_pedestrian_figures_by_hand() -> None:
    decisions = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    targets = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0]], np.int8)
    # Labels: TP/P, TN/N = (1/2, 1/1), (1/1, 1/2), (0/1, 2/2).
    assert mean_accuracy(decisions, targets) == pytest.approx((0.75 + 0.75 + 0.5) / 3)
    figures = instance_figures(decisions, targets)
    # Intersections 1, 1, 0; unions 3, 2, 0; predicted 2, 1, 0; there 2, 2, 0.
    assert figures.accuracy == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert (figures.precision, figures.recall) == (pytest.approx((1 / 2 + 1) / 3), pytest.approx((1 / 2 + 1 / 2) / 3))


def test_every_protocol_has_its_own_name_and_hash() -> None:
    from sspa.stage2_training.evaluation.protocols import protocol_names

    protocols = [get_protocol(name) for name in protocol_names()]
    assert [protocol.name for protocol in protocols] == list(protocol_names())
    assert len({protocol.hash for protocol in protocols}) == len(protocols)
    with pytest.raises(UserError, match="did you mean voc2007-dualcoop"):
        get_protocol("voc2007-dualcop")


def test_every_headline_figure_can_be_had_by_its_name() -> None:
    from sspa.stage2_training.evaluation.protocols import protocol_names

    metrics = evaluate(*random_scores(0))
    for name in protocol_names():
        for figure in get_protocol(name).headline:
            assert 0 <= metrics.figure(figure) <= 1
    assert metrics.figure("CF1@3") == metrics.at_top_k.CF1 != metrics.figure("CF1")
    assert metrics.figure("precision") == metrics.instances.precision
    with pytest.raises(ValueError, match="the top 3 were scored"):
        metrics.figure("CF1@5")
