"""What a user should know about a finished run, beside its figures."""

from sspa.stage2_training.evaluation.metrics import Metrics

_SHOWN = 5
# Below that, AP differs between seeds as well.
_WORSE_BY = 0.02
# Images below which figures are rough: models with 88 mAP on a thousand photos had 91 to 100 on 12 to 27
# (docs/results.md).
ROUGH = 100


def noteworthy(untrained: Metrics, trained: Metrics, val: Metrics, measured: str, images: int) -> list[str]:
    """Lines about labels that training made worse, labels that val or the measured split has no image of, and figures
    of too few images.

    Args:
        untrained, trained: the prediction's metrics on the measured split.
        val: its metrics on val, of the trained model.
        measured, images: the name of that split, and how many it has.
    """
    lines = []
    lost = {key: before - trained.per_class.get(key, before) for key, before in untrained.per_class.items()}
    worse = sorted((key for key, change in lost.items() if change > _WORSE_BY), key=lost.__getitem__, reverse=True)
    if worse:
        named = [f"{key} ({100 * untrained.per_class[key]:.0f} to {100 * trained.per_class[key]:.0f})" for key in worse]
        lines.append(f"training lowered the AP of {_some(named)}: look at their images in the report")
    if val.absent:
        lines.append(f"val has no image with {_some(list(val.absent))}: their tuned threshold is the common one")
    if trained.absent and measured != "val":
        lines.append(f"{measured} has no image with {_some(list(trained.absent))}: mAP is without them")
    if images < ROUGH:
        lines.append(
            f"{measured} has only {images} images: its figures are rough, and mAP of so few is mostly too high"
        )
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more labels" if len(names) > _SHOWN else "")
