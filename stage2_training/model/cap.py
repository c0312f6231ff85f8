"""CAP, context-aware prompting: learnable context vectors before the label's name, through the frozen
text tower. With `learned=false` they stay what they were, and the text tower has nothing to do in training.

Legend: C labels, L text tokens, w width of the tower's word embeddings, d width of the joint space.
"""

from typing import cast

import torch
from torch import Tensor, nn

from sspa.shared.errors import UserError
from sspa.shared.knowledge import Knowledge
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.model.options import CapOptions


class ContextAwarePrompting(nn.Module):
    """`options.context` vectors, shared by all labels or one set per label -> T (C, d).

    The positions of the context are found by tokenizing the prompts with two different placeholder
    words and comparing, which assumes nothing about the tokenizer's start token.
    """

    token_ids: Tensor
    is_context: Tensor
    fixed: Tensor | None

    def __init__(self, options: CapOptions) -> None:
        super().__init__()
        self.options = options
        self.context: nn.Parameter | nn.UninitializedParameter = nn.UninitializedParameter()
        self.register_buffer("fixed", None, persistent=False)

    def bind(self, backbone: Backbone, knowledge: Knowledge) -> None:
        """Prepare the prompts of the labels; the first call creates the context vectors.

        Raises:
            UserError: the context does not fit the tower, or the initial words have another number of tokens.
        """
        names = [label.text for label in knowledge.labels]
        ids, is_context = _slots(backbone, names, self.options.context)
        used = backbone.used_length(ids)
        self.register_buffer("token_ids", ids[:, :used], persistent=False)
        self.register_buffer("is_context", is_context[:, :used], persistent=False)
        if isinstance(self.context, nn.UninitializedParameter):
            self.context = nn.Parameter(_initial_context(backbone, self.options))
            if self.options.class_specific:
                self.context = nn.Parameter(self.context.detach().expand(len(names), -1, -1).clone())
        elif self.options.class_specific and len(self.context) != len(names):
            raise UserError(
                f"this run learned a context for each of its {len(self.context)} labels (cap.class_specific) and "
                f"cannot take {len(names)} others; train with a shared context for that"
            )
        if not self.options.learned:
            self.context.requires_grad_(False)
            with torch.no_grad():
                self.fixed = backbone.encode_prompts(self.embeddings(backbone), self.token_ids)

    def forward(self, backbone: Backbone) -> Tensor:
        """T (C, d), with gradients to the context vectors if they are learned."""
        return encode_together(backbone, self)[0]

    def embeddings(self, backbone: Backbone) -> Tensor:
        """The prompts' vectors, (C, L, w)."""
        words = backbone.embed_tokens(self.token_ids)
        context = self.context.expand(len(words), -1, -1).to(words.dtype)
        return words.masked_scatter(self.is_context[..., None], context)


def encode_together(backbone: Backbone, *sets: ContextAwarePrompting) -> list[Tensor]:
    """T (C, d) of each set of prompts for the same labels; those that are learned pass the text tower in one batch."""
    learned = [prompts for prompts in sets if prompts.fixed is None]
    if not learned:
        return [cast(Tensor, prompts.fixed) for prompts in sets]
    embeddings = torch.cat([prompts.embeddings(backbone) for prompts in learned])
    ids = torch.cat([prompts.token_ids for prompts in learned])
    encoded = iter(backbone.encode_prompts(embeddings, ids).chunk(len(learned)))
    return [next(encoded) if prompts.fixed is None else prompts.fixed for prompts in sets]


def _slots(backbone: Backbone, names: list[str], length: int) -> tuple[Tensor, Tensor]:
    """Token ids (C, L) of "x x x x name" and where the x stand (C, L)."""
    first, second = (backbone.tokenize([f"{word} " * length + name for name in names]) for word in ("x", "y"))
    is_context = first != second
    if (is_context.sum(dim=1) != length).any() or not _name_fits(backbone, names, length):
        raise UserError(
            f"{length} context vectors and the longest label name do not fit the text tower of {backbone.name}, "
            f"which holds {backbone.context_length} tokens; set a smaller model.cap.context"
        )
    return first, is_context


def _name_fits(backbone: Backbone, names: list[str], length: int) -> bool:
    needed = backbone.token_counts(names)
    return int(max(needed)) + length <= backbone.context_length


def _initial_context(backbone: Backbone, options: CapOptions) -> Tensor:
    """(options.context, w)."""
    if options.initial_words is None:
        return torch.randn(options.context, backbone.text_width) * 0.02
    ids = backbone.tokenize([options.initial_words, f"x {options.initial_words}"])
    # The words' own tokens: those that shift by one place when a word is put before them.
    moved = backbone.token_counts([options.initial_words])[0] - backbone.token_counts([""])[0]
    if moved != options.context:
        raise UserError(
            f"model.cap.initial_words {options.initial_words!r} is {moved} tokens of {backbone.name}, but "
            f"model.cap.context is {options.context}: make them equal, or initial_words null"
        )
    start = int((ids[0] != ids[1]).nonzero()[0])
    with torch.no_grad():
        return backbone.embed_tokens(ids[:1])[0, start : start + options.context].float().clone()
