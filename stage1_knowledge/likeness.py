"""Which sentences are nearly the same as another label's: then they do not tell the labels apart.

Two sentences are compared as sets of words, each label's own name taken out; they are alike where the
Jaccard index reaches `ALIKE`. Candidates come from MinHash signatures in bands (Broder 1997; bands as in
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), so that 300,000 sentences take
seconds; the index itself is then computed exactly. In tables of up to some hundred sentences a pair at the
threshold is missed once in some thousands; in huge ones, of a crowd of alike sentences some may be.
"""

import re
import zlib
from array import array
from collections.abc import Sequence

import numpy as np

ALIKE = 0.85
BANDS, ROWS = 12, 4
# Alike sets agree in 85% of their signature; so few are four standard deviations away.
_AGREE = 0.65
# In a crowd of equal bands each is compared with so many neighbours; small tables compare all.
_NEIGHBOURS = 4
_PAIRS_AT_LEAST = 100_000

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
    words, starts, places = _numbered(texts, sentences)
    found: dict[int, tuple[int, float]] = {}
    if len(places) < 2:
        return found
    sets = np.split(words, starts[1:])
    for row, other in _candidates(_signatures(words, starts)):
        first, second = places[row], places[other]
        if keys[first] == keys[second]:
            continue
        common = len(np.intersect1d(sets[row], sets[other], assume_unique=True))
        index = common / (len(sets[row]) + len(sets[other]) - common)
        if index >= ALIKE:
            for here, there in ((first, second), (second, first)):
                if here not in found or (-index, there) < (-found[here][1], found[here][0]):
                    found[here] = (there, index)
    return dict(sorted(found.items()))


def _numbered(texts: Sequence[str], sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The sentences as sets of hashed words, end to end; where each starts; and its position in the table.

    Numbers instead of strings, because 300,000 sets of strings are a gigabyte.
    """
    hashes: dict[str, int] = {}
    flat = array("I")
    starts, places = [], []
    for position, (text, sentence) in enumerate(zip(texts, sentences, strict=True)):
        words = set(_WORD.findall(sentence.lower())).difference(_WORD.findall(text.lower()))
        if words:
            starts.append(len(flat))
            places.append(position)
            for word in words:
                if (number := hashes.get(word)) is None:
                    number = hashes[word] = zlib.crc32(word.encode())
                flat.append(number)
    return np.frombuffer(flat, dtype=np.uint32), np.array(starts, dtype=np.int64), places


def _signatures(words: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """MinHash signatures, (N, BANDS * ROWS) uint32; the same for the same words on every machine."""
    draw = np.random.Generator(np.random.PCG64(0))
    factors = draw.integers(1, 1 << 62, size=BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = draw.integers(0, 1 << 62, size=BANDS * ROWS, dtype=np.uint64)
    signatures = np.empty((len(starts), BANDS * ROWS), dtype=np.uint32)
    for column, (factor, shift) in enumerate(zip(factors, shifts, strict=True)):
        mixed = words * factor + shift  # modulo 2**64
        signatures[:, column] = np.minimum.reduceat((mixed >> np.uint64(32)).astype(np.uint32), starts)
    return signatures


def _candidates(signatures: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of rows that agree in a whole band and, over all bands, as alike sets do."""
    count = len(signatures)
    reach = max(_NEIGHBOURS, _PAIRS_AT_LEAST // count)
    whole = _mixed(signatures[:, ::ROWS])
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        key = _mixed(signatures[:, band * ROWS : (band + 1) * ROWS])
        # Equal bands come together, and among them rows that are equal in the other bands too.
        order = np.lexsort((whole, key))
        key = key[order]
        for step in range(1, min(reach, count - 1) + 1):
            same = np.flatnonzero(key[:-step] == key[step:])
            if not len(same):
                break
            first, second = order[same], order[same + step]
            # A first look at a quarter of the signature drops most of a crowd.
            for columns, least in ((slice(None, None, 4), _AGREE - 0.2), (slice(None), _AGREE)):
                agree = (signatures[:, columns][first] == signatures[:, columns][second]).mean(axis=1)
                first, second = first[agree >= least], second[agree >= least]
            pairs.update(zip(first.tolist(), second.tolist(), strict=True))
    return pairs


def _mixed(rows: np.ndarray) -> np.ndarray:
    """One number a row, equal for equal rows. (N, K) -> (N,)"""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return mixed
