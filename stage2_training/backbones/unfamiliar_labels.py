"""Labels whose words the text tower hardly knows: made-up names, codes, other scripts.

A tower gives such a text an embedding like any other, and the model tags with it as if it meant something.
"""

import re
from collections.abc import Sequence

from sspa.shared.label_sets import Label
from sspa.shared.terminal import say
from sspa.stage2_training.backbones.contract import Backbone

_WORD = re.compile(r"[^\W_]+")
# A word that the tokenizer's vocabulary has in some form takes a token per two to ten letters ("giraffe": 3 tokens,
# "photovoltaic": 4); what it must spell out takes one for almost each. No word of the built-in label sets is near that.
_SPELT_OUT = 0.75
_SHORT = 3


def unfamiliar(label: Label, backbone: Backbone) -> bool:
    """Whether a word of the label's text is spelt out letter by letter, or unknown to the tokenizer."""
    words = _WORD.findall(label.text)
    counts = backbone.token_counts(words) if words else []
    spelt = any(
        # Of a short word, one token per letter says little ("TV"); more than one is bytes of another script.
        (count - 2) / len(word) > (1 if len(word) < _SHORT else _SPELT_OUT)
        for word, count in zip(words, counts, strict=True)
    )
    return spelt or backbone.has_unknown_token(" ".join(words))


def say_unfamiliar(labels: Sequence[Label], backbone: Backbone) -> None:
    """Warn of such labels."""
    found = [label.text for label in labels if unfamiliar(label, backbone)]
    if found:
        named = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        say(
            f"note: the text tower hardly knows the words of {named}, and tags with them at random before training; "
            "give such a label an English text: key<TAB>text in the label file"
        )
