"""Which part of the image tower is trained; the text tower never is."""

from collections.abc import Iterable

from torch import nn

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import Backbone


def set_trainable(backbone: Backbone, part: str) -> None:
    """Freeze the image tower ("frozen"), train all of it ("all"), or its last k blocks and its head ("last:k").

    Raises:
        UserError: another word, or more blocks than the tower has.
    """
    tower = backbone.image_tower
    if part in ("frozen", "all"):
        tower.requires_grad_(part == "all")
        return
    word, _, count = part.partition(":")
    if word != "last" or not count.isdecimal() or int(count) < 1:
        raise UserError(f"image tower {part}: unknown; take frozen, all, or last:K with K blocks, such as last:2")
    blocks = tower.blocks()
    if int(count) > len(blocks):
        raise UserError(f"image tower {part}: the tower has {len(blocks)} blocks; take last:{len(blocks)} or fewer")
    tower.requires_grad_(False)
    for block in blocks[-int(count) :]:
        block.requires_grad_(True)
    for parameter in tower.head():
        parameter.requires_grad_(True)


def describe_trainable(backbone: Backbone) -> str:
    """A line for the start of a run, such as "image tower: 86.19 M parameters, 7.09 M trained; text ..."."""
    parameters = list(backbone.image_tower.parameters())
    trained = count_values(parameter for parameter in parameters if parameter.requires_grad)
    text = count_values(backbone.text_tower.parameters())
    part = "frozen" if trained == 0 else f"{trained / 1e6:.2f} M trained"
    whole = count_values(parameters) / 1e6
    return f"image tower: {whole:.2f} M parameters, {part}; text tower: {text / 1e6:.2f} M, frozen"


def count_values(parameters: Iterable[nn.Parameter]) -> int:
    """The total number of elements of these parameters."""
    return sum(parameter.numel() for parameter in parameters)
