"""Everything that a run can show about one picture, as PNG files and one page."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sspa.shared.files import replacing
from sspa.stage2_training.data.picture import load_picture
from sspa.stage2_training.explanation.overlay import data_uri, over_picture, small
from sspa.stage2_training.explanation.region_maps import region_maps
from sspa.stage2_training.model.contract import Evidence
from sspa.stage2_training.report.templates import write_page
from sspa.stage2_training.tagger import Tagger

_LONGEST = 640

# What each map shows of one label.
_MEANINGS = {
    "region-map": "region map: each region’s weight times its similarity to the label",
    "dsf-attention": "DSF: where the label’s text looked",
    "label-from-regions": "cross-attention V→S: what the label took from each region",
    "regions-from-label": "cross-attention S→V: what each region took from the label",
}


@dataclass(frozen=True)
class LabelView:
    """One label of the page."""

    text: str
    percent: float
    sentences: tuple[str, ...]
    percent_by_name: float | None
    text_gate: float | None
    maps: list[tuple[str, str]]


def explain_picture(tagger: Tagger, path: Path, folder: Path) -> Path:
    """Write index.html and a PNG for each map into `folder`; returns the page's path.

    Shown are the predicted labels, or the most probable one where none is predicted.

    Raises:
        UserError: the picture cannot be read, or the folder not written.
    """
    picture = small(load_picture(path), _LONGEST)
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
                sentences=tuple(sentence for sentence in tagger.knowledge.sentences[label.key] if sentence),
                percent_by_name=None if by_name is None else 100 * float(by_name[0, index]),
                text_gate=None if gate is None else float(gate[0, index].mean()),
                maps=[
                    (_MEANINGS[name], _save(picture, values, folder / f"{_file_stem(index, label.key)}-{name}.png"))
                    for name, values in maps
                ],
            )
        )
    image_gate = ""
    if evidence is not None and evidence.image_gate is not None:
        gates = evidence.image_gate[0].float().mean(dim=-1).unflatten(0, tagger.grid).cpu().numpy()
        image_gate = _save(picture, gates, folder / "image-gate.png")
    return write_page(
        folder / "index.html",
        "explanation.html.jinja",
        name=path.name,
        run=tagger.folder.path.resolve().name,
        picture=data_uri(picture),
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


def _save(picture: Image.Image, region_map: NDArray[np.float32], path: Path) -> str:
    drawn = over_picture(picture, region_map)
    with replacing(path) as beside:
        drawn.save(beside, "PNG")
    return data_uri(drawn)


def _file_stem(index: int, key: str) -> str:
    return f"{index:03}-{re.sub(r'[^A-Za-z0-9]+', '-', key).strip('-')[:40]}"
