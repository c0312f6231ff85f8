"""The metadata of an exported file: how to prepare images, what the columns mean, which run it came from."""

from importlib import metadata
from typing import Any

from sspa.stage2_training.export.program import INPUT, OUTPUT
from sspa.stage2_training.inference.tagger import Tagger


def describe(tagger: Tagger) -> dict[str, Any]:
    """Plain values for JSON; the sections become ONNX metadata `sspa.<section>` and the file `sspa.json` of a .pt2.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    about, tuned = tagger.folder.record(), tagger.folder.thresholds()
    backbone = tagger.recognizer.backbone
    height, width = backbone.image_size
    return {
        "program": f"sspa-multilabel {metadata.version('sspa-multilabel')}",
        "input": {"name": INPUT, "shape": ["batch", 3, height, width], "type": "float32"},
        "output": {
            "name": OUTPUT,
            "shape": ["batch", len(tagger.labels)],
            "type": "float32",
            "meaning": "the probability of each label, in the order of `labels`; several may be present",
        },
        "preprocessing": {
            "orientation": "EXIF orientation is applied first; transparency lies on white",
            "colour": "RGB",
            "resize": "both sides to the size at once, nothing is cut off and the aspect ratio changes",
            "size": {"height": height, "width": width},
            "interpolation": "bicubic, antialiased (Pillow's)",
            "scale": "bytes divided by 255, then (value - mean) / std for each channel",
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "layout": "channels first",
        },
        "labels": [{"key": label.key, "text": label.text} for label in tagger.labels],
        "thresholds": {
            "tuned": tuned.description,
            "values": [tuned.values[label.key] for label in tagger.labels],
            "protocol": about.protocol.rules().threshold,
        },
        "run": {
            "name": tagger.folder.path.resolve().name,
            # Local paths are private.
            "backbone": "a local folder" if backbone.name.startswith("local-dir:") else backbone.name,
            "views": list(tagger.views),
            "data": about.data.model_dump(mode="json"),
            "protocol": about.protocol.model_dump(mode="json"),
            "knowledge": about.knowledge.hash,
        },
    }
