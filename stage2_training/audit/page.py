"""audit.html: what is expected of each label's marks, the most doubtful ones with image and region map, and images
that need a look."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sspa.shared.terminal import progress
from sspa.stage2_training.audit.images import ImageFinding, Kind
from sspa.stage2_training.audit.marks import LabelAudit
from sspa.stage2_training.audit.out_of_fold import OutOfFold
from sspa.stage2_training.audit.suspects import Suspect
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.pages.overlay import data_uri, image_and_map, small
from sspa.stage2_training.pages.templates import write_page

# What a page holds that still opens at once.
SHOWN = 60
_SHOWN_OF_A_KIND = 24
_THUMBNAIL = 200


@dataclass(frozen=True)
class Card:
    """A mark on the page; images are data URIs, the map is None where the head has no regions."""

    name: str
    image: str
    region_map: str | None
    label: str
    mark: int
    percent: float


@dataclass(frozen=True)
class ImageCard:
    """A finding on the page: its one or two files, and the images as data URIs; none where they are unreadable."""

    names: tuple[str, ...]
    images: tuple[str, ...]
    disagree: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class ImageSection:
    """The first findings of one kind, and how many there are."""

    title: str
    meaning: str
    count: int
    cards: list[ImageCard]


_SECTIONS: dict[Kind, tuple[str, str]] = {
    "unreadable": ("Unreadable", "Left out of the models. Replace the files, or take them out of the data."),
    "copies": (
        "Copies",
        "The same picture twice, or nearly. In two splits, what is measured was seen in training; with other marks, "
        "one of them is wrong.",
    ),
    "without detail": (
        "Without detail",
        "Out of focus, shaken or empty, the least sharp first. A hint: some are meant.",
    ),
    "without label": ("Without any label", "Something is known about them, but nothing is marked as present."),
}


def write_audit_page(
    predicted: OutOfFold,
    audits: Sequence[LabelAudit],
    suspects: Sequence[Suspect],
    found: Sequence[ImageFinding],
    path: Path,
) -> Path:
    """Write the page with the first `SHOWN` suspects, and the first findings of each kind in images."""
    first = predicted.folders[0]
    labels = zip([label.text for label in predicted.labels], audits, strict=True)
    return write_page(
        path,
        "audit.html.jinja",
        images=len(predicted.paths),
        marks=int((predicted.targets >= 0).sum()),
        folds=len(predicted.folders),
        data=Path(first.config().data.name).name,
        backbone=first.config().backbone.name,
        about=first.record(),
        labels=sorted(labels, key=lambda row: -_wrong(row[1])),
        wrong=sum(_wrong(audit) for audit in audits),
        sections=_image_sections(found),
        suspects=len(suspects),
        cards=_cards(predicted, suspects[:SHOWN]),
    )


def _wrong(audit: LabelAudit) -> int:
    return sum(expected.count for expected in (audit.wrongly_present, audit.wrongly_absent) if expected is not None)


def _image_sections(found: Sequence[ImageFinding]) -> list[ImageSection]:
    sections = []
    for kind, (title, meaning) in _SECTIONS.items():
        of_kind = [one for one in found if one.finding == kind]
        cards = [_image_card(one) for one in of_kind[:_SHOWN_OF_A_KIND]]
        sections.append(ImageSection(title, meaning, len(of_kind), cards))
    return sections


def _image_card(finding: ImageFinding) -> ImageCard:
    files = [Path(finding.path)] if finding.other is None else [Path(finding.path), Path(finding.other)]
    return ImageCard(
        names=tuple(file.name for file in files),
        images=() if finding.reason else tuple(data_uri(small(load_image(file), _THUMBNAIL)) for file in files),
        disagree=finding.disagree,
        note=_note(finding),
    )


def _note(finding: ImageFinding) -> str:
    if finding.reason is not None:
        return finding.reason
    if finding.other is not None:
        alike = "the same bytes" if finding.bits is None else f"{finding.bits} of 256 bits differ"
        return f"{finding.split} and {finding.other_split}, {alike}"
    return finding.split if finding.sharpness is None else f"{finding.split}, sharpness {finding.sharpness:.3f}"


def _cards(predicted: OutOfFold, suspects: Sequence[Suspect]) -> list[Card]:
    """A card for each, with the map of the model that did not see the image."""
    cards: dict[int, Card] = {}
    with progress("drawing maps", len(suspects), "images") as bar:
        for fold, folder in enumerate(predicted.folders):
            places = [place for place, one in enumerate(suspects) if predicted.fold[one.image] == fold]
            if not places:
                continue
            tagger = Tagger.load(folder.path, device="cpu")
            for place in places:
                cards[place] = _card(tagger, suspects[place], predicted)
                bar.advance()
    return [cards[place] for place in sorted(cards)]


def _card(tagger: Tagger, suspect: Suspect, predicted: OutOfFold) -> Card:
    path = predicted.paths[suspect.image]
    image, region_map = image_and_map(tagger, path, suspect.column)
    return Card(
        name=path.name,
        image=image,
        region_map=region_map,
        label=predicted.labels[suspect.column].text,
        mark=suspect.mark,
        percent=100 * suspect.probability,
    )
