"""Everything that a run can explain about one image, as PNG files and one page."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sspa.shared.files import replacing
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.inference.region_maps import region_maps
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.model.contract import Evidence, UsedDescription
from sspa.stage2_training.pages.overlay import data_uri, over_image, small
from sspa.stage2_training.pages.templates import write_page

_LONGEST = 640


@dataclass(frozen=True)
class _Kind:
    """One kind of map: its name and meaning, and whether its values vary so little between regions that only the
    differences are drawn."""

    name: str
    title: str
    meaning: str
    differences_only: bool = False


_KINDS = {
    kind.name: kind
    for kind in (
        _Kind("region-map", "Region map", "where the label was seen: each region’s weight times its probability"),
        _Kind("dsf-attention", "DSF attention", "where the label’s text looked first"),
        _Kind("label-from-regions", "Cross-attention V→S", "which regions the label attended to"),
        _Kind(
            "regions-from-label",
            "Cross-attention S→V",
            "the share of its attention that each region gave this label",
            True,
        ),
        _Kind(
            "image-gate",
            "Gate of the regions",
            "how much each region took in from the texts",
            True,
        ),
    )
}


@dataclass(frozen=True)
class MapView:
    """One map on the page: a PNG as a data URI, and its caption."""

    image: str
    title: str
    meaning: str
    note: str


@dataclass(frozen=True)
class LabelView:
    """One label on the page; numbers in percent."""

    text: str
    percent: float
    threshold: float
    descriptions: list[UsedDescription]
    percent_by_name: float | None
    text_gate: float | None
    maps: list[MapView]


def explain_image(tagger: Tagger, path: Path, folder: Path) -> Path:
    """Write index.html and a PNG per map into `folder`; returns the page's path.

    Shows the predicted labels, or the most probable one if none is predicted.

    Raises:
        UserError: the image cannot be read, or the folder not written.
    """
    photo = small(load_image(path), _LONGEST)
    image = tagger.prepare(path)[None]
    probabilities, prediction = tagger.explained(image)
    evidence = prediction.evidence
    by_name = tagger.by_name_only(image)
    row = probabilities[0]
    order = np.argsort(-row, kind="stable")
    chosen = [int(index) for index in order if row[index] >= tagger.thresholds[index]] or [int(order[0])]
    views = []
    for index in chosen:
        label = tagger.labels[index]
        maps = [] if evidence is None else _maps_of_label(evidence, index, tagger.grid)
        gate = None if evidence is None else evidence.text_gate
        views.append(
            LabelView(
                text=label.text,
                percent=100 * float(row[index]),
                threshold=100 * float(tagger.thresholds[index]),
                descriptions=[known for known in tagger.descriptions(index) if known.text],
                percent_by_name=None if by_name is None else 100 * float(by_name[0, index]),
                text_gate=None if gate is None else 100 * float(gate[0, index].mean()),
                maps=[
                    _save(photo, _KINDS[name], values, folder / f"{_file_stem(index, label.key)}-{name}.png")
                    for name, values in maps
                ],
            )
        )
    image_gate = None
    if evidence is not None and evidence.image_gate is not None:
        gates = evidence.image_gate[0].float().mean(dim=-1).unflatten(0, tagger.grid).cpu().numpy()
        image_gate = _save(photo, _KINDS["image-gate"], gates, folder / "image-gate.png")
    return write_page(
        folder / "index.html",
        "explanation.html.jinja",
        name=path.name,
        run=tagger.folder.path.resolve().name,
        image=data_uri(photo),
        views=views,
        image_gate=image_gate,
        has_maps=evidence is not None,
        others=[(tagger.labels[index].text, 100 * float(row[index])) for index in order if index not in chosen][:10],
    )


def _maps_of_label(evidence: Evidence, label: int, grid: tuple[int, int]) -> list[tuple[str, NDArray[np.float32]]]:
    maps = {
        "region-map": region_maps(evidence)[0, :, label],
        "dsf-attention": None if evidence.dsf_attention is None else evidence.dsf_attention[0, label],
        "label-from-regions": None if evidence.v_to_s is None else evidence.v_to_s[0, label],
        "regions-from-label": None if evidence.s_to_v is None else evidence.s_to_v[0, :, label],
    }
    return [
        (name, values.float().unflatten(0, grid).cpu().numpy()) for name, values in maps.items() if values is not None
    ]


def _save(photo: Image.Image, kind: _Kind, values: NDArray[np.float32], path: Path) -> MapView:
    lowest = float(values.min()) if kind.differences_only else 0.0
    drawn = over_image(photo, values, lowest)
    with replacing(path) as beside:
        drawn.save(beside, "PNG")
    highest = f"{100 * float(values.max()):.1f} %"
    note = f"{100 * lowest:.1f} % (dark) to {highest}" if kind.differences_only else f"brightest region: {highest}"
    return MapView(data_uri(drawn), kind.title, kind.meaning, note)


def _file_stem(index: int, key: str) -> str:
    return f"{index:03}-{re.sub(r'[^A-Za-z0-9]+', '-', key).strip('-')[:40]}"
