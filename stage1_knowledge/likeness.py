"""Which sentences are nearly the same as another label's: then they do not tell the labels apart.

Two sentences are compared as sets of words, each label's own name taken out; they are alike where the
Jaccard index reaches `ALIKE`. Candidates come from MinHash signatures in bands (Broder 1997; bands as in
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), so that 300,000 sentences take
seconds; the index itself is then computed exactly. A pair at the threshold is missed once in 7,000, a
pair of equal sets never.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

ALIKE = 0.85
BANDS, ROWS = 12, 4
# In a crowd of alike sentences each is compared with this many neighbours: enough to find one.
_NEIGHBOURS = 8

_WORD = re.compile(r"[^\W_]+")


def alike(keys: Sequence[str], texts: Sequence[str], sentences: Sequence[str]) -> dict[int, tuple[int, float]]:
    """For each sentence that is nearly another label's: that sentence (the likest, the first), and the index.

    Args:
        keys: the label of each sentence; sentences of one label are not compared.
        texts: the label's text, which is taken out of the sentence.
        sentences: the sentences.

    Returns:
        Position of the sentence -> (position of the other, Jaccard index).

    Example:
        >>> alike(["cow", "ox"], ["cow", "ox"], ["The cow is a big animal.", "A red box with four doors."])
        {}
        >>> alike(["cow", "ox"], ["cow", "ox"], ["The cow is a big animal.", "The ox is a big animal."])
        {0: (1, 1.0), 1: (0, 1.0)}
    """
    sets = [_words(sentence) - _words(text) for sentence, text in zip(sentences, texts, strict=True)]
    found: dict[int, tuple[int, float]] = {}
    for first, second in _candidates([position for position, words in enumerate(sets) if words], sets):
        if keys[first] == keys[second]:
            continue
        index = len(sets[first] & sets[second]) / len(sets[first] | sets[second])
        if index >= ALIKE:
            for here, there in ((first, second), (second, first)):
                if here not in found or (-index, there) < (-found[here][1], found[here][0]):
                    found[here] = (there, index)
    return dict(sorted(found.items()))


def _candidates(positions: list[int], sets: list[frozenset[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose signatures agree in a whole band."""
    if len(positions) < 2:
        return
    signatures = _signatures([sets[position] for position in positions])  # (N, BANDS * ROWS)
    places = np.array(positions)
    for band in range(BANDS):
        rows = signatures[:, band * ROWS : (band + 1) * ROWS]
        order = np.lexsort(rows.T)
        same = (rows[order[1:]] == rows[order[:-1]]).all(axis=1)
        # Runs of equal rows are the crowds; a stable sort keeps each in the order of the table.
        starts = np.flatnonzero(same & ~np.concatenate(([False], same[:-1])))
        for start in starts.tolist():
            end = start + 1
            while end <= len(same) and same[end - 1]:
                end += 1
            crowd = places[order[start:end]].tolist()
            for number, first in enumerate(crowd):
                for second in crowd[number + 1 : number + 1 + _NEIGHBOURS]:
                    yield first, second


def _signatures(sets: list[frozenset[str]]) -> np.ndarray:
    """MinHash signatures, (N, BANDS * ROWS) uint64; the same for the same words on every machine."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    flat = np.fromiter((numbers[word] for words in sets for word in words), dtype=np.int64)
    starts = np.cumsum([0, *(len(words) for words in sets[:-1])])
    hashes = np.array([zlib.crc32(word.encode()) for word in numbers], dtype=np.uint64)
    draw = np.random.Generator(np.random.PCG64(0))
    factors = draw.integers(1, 1 << 62, size=BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = draw.integers(0, 1 << 62, size=BANDS * ROWS, dtype=np.uint64)
    columns = []
    for factor, shift in zip(factors, shifts, strict=True):
        mixed = hashes * factor + shift  # modulo 2**64
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        columns.append(np.minimum.reduceat((mixed >> np.uint64(16))[flat], starts))
    return np.stack(columns, axis=1)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))
