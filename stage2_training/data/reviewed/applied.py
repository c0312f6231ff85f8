"""What reviews are for: a manifest of the reviewed photos, or a manifest with its marks corrected."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.shared.label_sets import LabelSet
from sspa.shared.terminal import say
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.image_files import find_photos
from sspa.stage2_training.data.images_on_disk import in_root
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.data.reviewed.answers import Answers
from sspa.stage2_training.data.splitting import with_drawn_splits
from sspa.stage2_training.evaluation.protocols import get_protocol

# Photos drawn at random from which test is drawn; with fewer, its figures would mean nothing.
_ENOUGH = 10


def reviewed_manifest(
    answers: Answers,
    origin: Path,
    root: Path,
    labels: LabelSet | None,
    val: float,
    test: float,
    seed: int,
    unanswered: bool = False,
) -> Manifest:
    """The reviewed photos, with drawn splits; what nobody was asked about is unknown.

    Args:
        answers: of the review file `origin`.
        origin: named in messages.
        root: the folder of the photos; those that are gone are left out, which a message says.
        labels: order and texts; None: those of the review.
        val, test: fractions to draw by iterative stratification. Test is drawn from the photos that the review itself
            had drawn at random, if those are `_ENOUGH` or more: the others are not like the folder, since they were
            chosen.
        seed: of that draw.
        unanswered: the other photos below `root` are in train, with nothing known of them.

    Raises:
        UserError: nothing was answered, no photo is there, no label is the review's, or there are too few to draw.
    """
    asked = labels or LabelSet(origin.name.partition(".")[0], answers.labels, domain=answers.domain)
    marks = _there(answers.marks(), origin, root)
    targets = _targets(marks, asked)
    known: NDArray[np.bool_] = targets.max(axis=1) >= 0
    if not known.any():
        raise UserError(f"{origin}: says nothing about {', '.join(asked.keys[:5])}; give the labels that were reviewed")
    answered = [path for path, row in zip(marks, known.tolist(), strict=True) if row]
    others = sorted(set(find_photos(root)) - set(answered)) if unanswered else []
    blank = np.full((len(others), targets.shape[1]), -1, dtype=np.int8)
    paths = Texts(answered + others)
    manifest = Manifest(
        dataset="custom",
        labels=asked,
        protocol=get_protocol("custom"),
        note=_note(answers),
        ids=paths,
        paths=paths,
        splits=Texts(["train"] * len(paths)),
        targets=np.concatenate([targets[known], blank]),
    )
    at_random = {answer.path for answer in answers.standing.values() if answer.chosen == "random"}
    typical = np.array([path in at_random for path in paths])
    if typical.sum() < _ENOUGH or not (manifest.targets[typical] == 1).any():
        return with_drawn_splits(manifest, val, test, seed)
    drawn = with_drawn_splits(manifest, val, test, seed, typical)
    of_test = len(drawn.rows_of("test"))
    return replace(drawn, note=f"{manifest.note}; test: {of_test} of those drawn at random, so it is like the folder")


def corrected(manifest: Manifest, answers: Answers, origin: Path, root: Path) -> Manifest:
    """A manifest whose marks are replaced by those that were answered; its splits stay.

    Photos that the manifest does not list are left out, which a message says.

    Raises:
        UserError: the review is of none of its photos, or of none of its labels.
    """
    targets = manifest.targets.copy()
    marks, row_of = answers.marks(), {path: row for row, path in enumerate(manifest.paths)}
    if not (listed := [path for path in marks if path in row_of]):
        raise UserError(f"{origin}: reviews none of the images of this manifest (under {root})")
    if others := len(marks) - len(listed):
        say(f"{origin}: {others:,} reviewed photos are not in the manifest and are left out")
    answered = _targets({path: marks[path] for path in listed}, manifest.labels, unasked=-2)
    if not (answered > -2).any():
        raise UserError(f"{origin}: reviews none of the labels of this manifest")
    rows = np.array([row_of[path] for path in listed])
    before = targets[rows]
    targets[rows] = np.where(answered > -2, answered, before)
    changed = int((targets[rows] != before).sum())
    say(f"{origin}: {changed:,} marks of {int((targets[rows] != before).any(axis=1).sum()):,} images were corrected")
    lacks = f"{changed} marks corrected by a review"
    return replace(manifest, targets=targets, note="; ".join(filter(None, (manifest.note, lacks))))


def _there(marks: Mapping[str, Mapping[str, int]], origin: Path, root: Path) -> dict[str, Mapping[str, int]]:
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; give the folder of the reviewed photos as --root")
    if not marks:
        raise UserError(f"{origin}: nothing was answered yet; go on with sspa-train review")
    there = {path: of_photo for path, of_photo in marks.items() if in_root(root, path)}
    if not there:
        raise UserError(f"{origin}: none of its {len(marks):,} photos is below {root}; give their folder as --root")
    if gone := [path for path in marks if path not in there]:
        say(f"{origin}: {len(gone):,} reviewed photos are gone and are left out, the first is {gone[0]}")
    return there


def _targets(marks: Mapping[str, Mapping[str, int]], labels: LabelSet, unasked: int = -1) -> NDArray[np.int8]:
    """(photos, C) int8; `unasked` where nobody was asked."""
    rows = [[of_photo.get(key, unasked) for key in labels.keys] for of_photo in marks.values()]
    return np.array(rows, dtype=np.int8)


def _note(answers: Answers) -> str:
    drawn = sum(answer.chosen == "random" for answer in answers.standing.values())
    return (
        f"reviewed by hand ({len(answers.standing)} answers, {drawn} of them about photos drawn at random, the others "
        "chosen because they are hard)"
    )
