"""audit.html: what is expected of each label's marks, and the most doubtful ones with image and region map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sspa.shared.terminal import progress
from sspa.stage2_training.audit.marks import LabelAudit
from sspa.stage2_training.audit.out_of_fold import OutOfFold
from sspa.stage2_training.audit.suspects import Suspect
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.pages.overlay import image_and_map
from sspa.stage2_training.pages.templates import write_page

# What a page holds that still opens at once.
SHOWN = 60


@dataclass(frozen=True)
class Card:
    """A mark on the page; images are data URIs, the map is None where the head has no regions."""

    name: str
    image: str
    region_map: str | None
    label: str
    mark: int
    percent: float


def write_audit_page(
    predicted: OutOfFold, audits: Sequence[LabelAudit], suspects: Sequence[Suspect], unlabelled: int, path: Path
) -> Path:
    """Write the page with the first `SHOWN` suspects.

    Args:
        unlabelled: the number of images without any label.
    """
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
        unlabelled=unlabelled,
        suspects=len(suspects),
        cards=_cards(predicted, suspects[:SHOWN]),
    )


def _wrong(audit: LabelAudit) -> int:
    return sum(expected.count for expected in (audit.wrongly_present, audit.wrongly_absent) if expected is not None)


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
