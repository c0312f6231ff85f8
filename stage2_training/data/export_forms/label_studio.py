"""Label Studio tasks: a manifest's labels as annotations, a model's as pre-annotations."""

import json
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from sspa.shared.terminal import say
from sspa.stage2_training.data.export_forms.marked_images import MarkedImages

_FROM, _TO = "labels", "image"


def write_label_studio(found: MarkedImages, target: Path, model: str) -> int:
    """Write one file of tasks, and say the labelling interface that fits it.

    Images are named as local files below Label Studio's document root; `model` is the name that predictions carry.
    """
    tasks = []
    unknown = 0
    for image in found.images:
        unknown += len(image.unknown)
        choices = {"from_name": _FROM, "to_name": _TO, "type": "choices", "value": {"choices": list(image.there)}}
        marks: dict[str, object] = {"result": [choices] if image.there else []}
        if found.predicted:
            shown = [image.probabilities[label] for label in image.there]
            marks |= {"model_version": model, "score": sum(shown) / len(shown) if shown else 0.0}
        where = f"/data/local-files/?d={quote(image.path.lstrip('/'))}"
        tasks.append({"data": {_TO: where}, "predictions" if found.predicted else "annotations": [marks]})
    target.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    if unknown:
        say(f"{unknown:,} unknown labels look absent in Label Studio's tasks; JSON lines keep them")
    values = "".join(f"<Choice value={quoteattr(label)}/>" for label in found.labels)
    say(
        f'labelling interface: <View><Image name="{_TO}" value="${_TO}"/><Choices name="{_FROM}" toName="{_TO}" '
        f'choice="multiple">{values}</Choices></View>'
    )
    return len(tasks)
