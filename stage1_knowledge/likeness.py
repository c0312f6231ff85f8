"""Which sentences are nearly the same as another label's: then they do not tell the labels apart.

Two sentences are compared as sets of words, each label's own name taken out; they are alike where the
Jaccard index reaches the threshold. Only sentences that share a rare word are ever compared (prefix
filtering: of two sets that alike, one of the rarest few words must be common), so that 300,000
sentences take seconds.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil

ALIKE = 0.85

_WORD = re.compile(r"[^\W_]+")


def alike(keys: Sequence[str], texts: Sequence[str], sentences: Sequence[str]) -> dict[int, tuple[int, float]]:
    """For each sentence that is nearly another label's: the first such sentence before or after it, and their index.

    Args:
        keys: the label of each sentence; sentences of one label are not compared.
        texts: the label's text, which is taken out of the sentence.
        sentences: the sentences.

    Returns:
        Position of the sentence -> (position of the other, Jaccard index).

    Example:
        >>> alike(["cow", "ox"], ["cow", "ox"], ["A cow is a big animal.", "An ox is a big animal."])
        {}
        >>> alike(["cow", "ox"], ["cow", "ox"], ["The cow is a big animal.", "The ox is a big animal."])
        {0: (1, 1.0), 1: (0, 1.0)}
    """
    sets = [_words(sentence) - _words(text) for sentence, text in zip(sentences, texts, strict=True)]
    # Equal sets are one class, compared once: label files of a thousand like sentences stay linear.
    classes: dict[frozenset[str], list[int]] = defaultdict(list)
    for position, words in enumerate(sets):
        if words:
            classes[words].append(position)
    found: dict[int, tuple[int, float]] = {}

    def note(position: int, other: int, index: float) -> None:
        if position not in found or (-index, other) < (-found[position][1], found[position][0]):
            found[position] = (other, index)

    for members in classes.values():
        first = members[0]
        stranger = next((member for member in members if keys[member] != keys[first]), None)
        if stranger is None:
            continue
        for member in members:
            note(member, first if keys[member] != keys[first] else stranger, 1.0)
    for words, others, index in _similar_pairs(list(classes)):
        for here, there in ((classes[words], classes[others]), (classes[others], classes[words])):
            first = there[0]
            for member in here:
                other = (
                    first if keys[first] != keys[member] else next((p for p in there if keys[p] != keys[member]), None)
                )
                if other is not None:
                    note(member, other, index)
    return dict(sorted(found.items()))


def _similar_pairs(sets: list[frozenset[str]]) -> list[tuple[frozenset[str], frozenset[str], float]]:
    """All pairs of unlike sets whose Jaccard index reaches ALIKE."""
    frequency = Counter(word for words in sets for word in words)
    index: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for position, words in enumerate(sets):
        rarest = sorted(words, key=lambda word: (frequency[word], word))
        prefix = rarest[: len(words) - ceil(ALIKE * len(words)) + 1]
        candidates = {other for word in prefix for other in index[word]}
        for other in sorted(candidates):
            jaccard = len(words & sets[other]) / len(words | sets[other])
            if jaccard >= ALIKE:
                pairs.append((words, sets[other], jaccard))
        for word in prefix:
            index[word].append(position)
    return pairs


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
