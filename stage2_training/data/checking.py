"""Checks a data set on disk, and reports everything wrong or missing at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.data.adapters.adapter import Adapter, Published
from sspa.stage2_training.data.decoding import unreadable_images
from sspa.stage2_training.data.duplicates import NEAR, duplicates, fingerprints
from sspa.stage2_training.data.images_on_disk import check_images, resolve_paths
from sspa.stage2_training.data.manifest import Manifest, check_manifest


@dataclass(frozen=True)
class CountRow:
    """One line of the comparison with published counts; None where nothing is published."""

    what: str
    found: int
    published: int | None

    @property
    def differs(self) -> bool:
        """Whether a count differs from the published one."""
        return self.published is not None and self.found != self.published


@dataclass(frozen=True)
class Findings:
    """problems: what must be fixed before use; counts: what was found, next to what is published."""

    problems: tuple[str, ...]
    counts: tuple[CountRow, ...]


def check_data(adapter: Adapter, root: Path, protocol: str | None) -> Findings:
    """Check layout, labels, images, counts and agreement of a data set's files; `root` comes from `find_root`."""
    missing = [f"missing below {root}: {line}" for line in adapter.missing(root)]
    try:
        rules = adapter.protocol(protocol)
        manifest = adapter.read(root, rules)
        check_manifest(manifest, str(root))
    except UserError as error:
        return Findings((*missing, str(error)), ())
    problems = missing
    try:
        check_images(manifest, root)
    except UserError as error:
        problems.append(str(error))
    if len(manifest.labels.keys) != adapter.label_count:
        problems.append(f"{len(manifest.labels.keys)} labels where {adapter.label_count} are published")
    problems += adapter.contradictions(root, manifest)
    return Findings(tuple(problems), tuple(count_rows(manifest, adapter.published_under(rules))))


def decoding_problems(manifest: Manifest, root: Path) -> list[str]:
    """What is wrong with each image that cannot be decoded; all of the images exist."""
    return list(unreadable_images(resolve_paths(manifest, root)).values())


def duplicate_problems(manifest: Manifest, root: Path) -> list[str]:
    """Pairs of images in two splits that are the same or nearly the same; those within a split are said.

    Also pairs of the same bytes with different labels, wherever they are.
    """
    prints = fingerprints(resolve_paths(manifest, root))
    if prints.unreadable:
        say(f"{len(prints.unreadable):,} images cannot be decoded, and were not compared (--decode lists them)")
    problems = []
    within = 0
    for pair in duplicates(prints):
        names = [f"{manifest.paths[row]} ({manifest.splits[row]})" for row in (pair.first, pair.second)]
        what = "the same" if pair.bits is None else f"nearly the same ({pair.bits} of 256 bits differ)"
        if manifest.splits[pair.first] != manifest.splits[pair.second]:
            problems.append(f"{names[0]} and {names[1]} are {what}")
        elif pair.bits is None and (manifest.targets[pair.first] != manifest.targets[pair.second]).any():
            problems.append(f"{names[0]} and {names[1]} are {what}, with other labels")
        else:
            within += 1
    if within:
        say(f"{within:,} pairs within a split are the same, or nearly (at most {NEAR} of 256 bits differ)")
    return problems


def count_rows(manifest: Manifest, published: Mapping[str, Published]) -> list[CountRow]:
    """Images and positives of each split of `published`, found and published."""
    rows = []
    for split, figures in published.items():
        members = ("train", "val") if split == "trainval" else (split,)
        targets = [manifest.targets[manifest.rows_of(member)] for member in members]
        images = sum(len(part) for part in targets)
        positives = sum(int((part == 1).sum()) for part in targets)
        rows.append(CountRow(f"{split} images", images, figures.images))
        rows.append(CountRow(f"{split} positives", positives, figures.positives))
    return rows
