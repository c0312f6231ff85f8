"""Reduced training data: nested, repeatable, and without effect on test."""

from dataclasses import replace

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.subsets import Subset, reduce_training
from sspa.stage2_training.evaluation.protocols import get_protocol

KEYS = tuple(f"label{number}" for number in range(8))


def manifest(count: int = 300) -> Manifest:
    """Labels from frequent to rare; two thirds train, the rest val and test in turn; some cells unknown."""
    generator = np.random.default_rng(0)
    targets = (generator.random((count, len(KEYS))) < np.linspace(0.5, 0.04, len(KEYS))).astype(np.int8)
    targets[generator.random(targets.shape) < 0.03] = -1
    splits = [("train", "train", "train", "train", "val", "test")[row % 6] for row in range(count)]
    ids = tuple(f"picture{row}" for row in range(count))
    labels = LabelSet("eight", tuple(Label(key, key) for key in KEYS))
    return Manifest("custom", labels, get_protocol("custom"), "a note", Texts(ids), Texts(ids), Texts(splits), targets)


def part(whole: Manifest, split: str) -> dict[str, tuple[int, ...]]:
    return {whole.ids[row]: tuple(whole.targets[row]) for row in whole.rows_of(split)}


def test_nothing_asked_changes_nothing() -> None:
    whole = manifest()
    assert reduce_training(whole, Subset(), 0) is whole


def test_known_labels_are_nested_and_about_as_many_as_asked() -> None:
    whole = manifest()
    train, before = whole.rows_of("train"), None
    for fraction in (0.1, 0.2, 0.5, 0.9):
        reduced = reduce_training(whole, Subset(known_fraction=fraction), 3)
        assert part(reduced, "val") == part(whole, "val")
        assert part(reduced, "test") == part(whole, "test")
        known = reduced.targets[train] >= 0
        assert (reduced.targets[train][known] == whole.targets[train][known]).all()
        share = known.sum() / (whole.targets[train] >= 0).sum()
        assert share == pytest.approx(fraction, abs=0.04)
        assert before is None or (known >= before).all()
        before = known


def test_a_draw_depends_on_seed_and_id_alone() -> None:
    whole = manifest()
    order = np.random.default_rng(1).permutation(len(whole.ids))
    turned = replace(
        whole,
        **{name: getattr(whole, name).take(order) for name in ("ids", "paths", "splits")},
        targets=whole.targets[order],
    )
    for subset in (Subset(known_fraction=0.3), Subset(shots=2), Subset(unseen=3)):
        one = reduce_training(whole, subset, 5)
        assert part(reduce_training(turned, subset, 5), "train") == part(one, "train")
        assert part(reduce_training(whole, subset, 6), "train") != part(one, "train")
        assert one.content_hash != whole.content_hash


def test_shots_are_nested_and_enough_of_every_label() -> None:
    whole = manifest()
    everything, before = part(whole, "train"), set[str]()
    positives = (np.array(list(everything.values())) == 1).sum(axis=0)
    for shots in (1, 2, 4, 8, 16):
        reduced = reduce_training(whole, Subset(shots=shots), 0)
        kept = part(reduced, "train")
        assert part(reduced, "val") == part(whole, "val")
        assert part(reduced, "test") == part(whole, "test")
        assert all(everything[key] == row for key, row in kept.items())
        left = (np.array(list(kept.values())) == 1).sum(axis=0)
        assert (left >= np.minimum(shots, positives)).all()
        assert len(kept) <= shots * len(KEYS)
        assert before <= set(kept)
        before = set(kept)
    assert "16 training images per label" in reduced.note


def test_unseen_labels_are_masked_in_train_and_val_only() -> None:
    whole = manifest()
    for unseen, masked in (("label2", "label5"), {2, 5}), (("label5",), {5}):
        reduced = reduce_training(whole, Subset(unseen=unseen), 0)
        assert part(reduced, "test") == part(whole, "test")
        for split in ("train", "val"):
            rows = reduced.targets[reduced.rows_of(split)]
            for label in range(len(KEYS)):
                expected = -1 if label in masked else whole.targets[whole.rows_of(split), label]
                assert (rows[:, label] == expected).all()
    smaller, larger = (reduce_training(whole, Subset(unseen=count), 4).targets for count in (2, 4))
    train = whole.rows_of("train")
    hidden = [(targets[train] == -1).all(axis=0) for targets in (smaller, larger)]
    assert [column.sum() for column in hidden] == [2, 4]
    assert (hidden[1] >= hidden[0]).all()


def test_shots_are_not_spent_on_unseen_labels() -> None:
    only = Subset(shots=1, unseen=tuple(KEYS[1:]))
    assert len(part(reduce_training(manifest(), only, 0), "train")) == 1


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (Subset(unseen=("labl2",)), "no label 'labl2'; did you mean label2"),
        (Subset(unseen=8), "of 8 labels none would be left"),
        (Subset(unseen=KEYS), "of 8 labels none would be left"),
        (Subset(known_fraction=1e-6), "no positive is left"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(subset: Subset, message: str) -> None:
    with pytest.raises(UserError, match=message):
        reduce_training(manifest(), subset, 0)
