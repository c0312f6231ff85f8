"""Descriptions that nearly duplicate another label's, and so do not tell the two labels apart.

Two descriptions are compared as sets of words, without the labels' own names; they are near-duplicates where
the Jaccard index reaches `THRESHOLD`. Candidates come from banded MinHash signatures (Broder 1997; banding as in
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), so that 300,000 descriptions take
seconds; the index itself is then computed exactly. In tables of up to a few hundred descriptions, about one pair in
several thousand at the threshold is missed; in huge tables, some members of a large cluster may be.
"""

import re
import zlib
from array import array
from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.85
BANDS, ROWS = 12, 4
# Near-duplicates agree in 85% of their signature on average; 65% is four standard deviations below.
_AGREE = 0.65
# Among many rows with an equal band, each is compared with only this many neighbours; small tables compare all.
_NEIGHBOURS = 4
_PAIRS_AT_LEAST = 100_000

_WORD = re.compile(r"[^\W_]+")


def near_duplicates(
    keys: Sequence[str], texts: Sequence[str], descriptions: Sequence[str]
) -> dict[int, tuple[int, float]]:
    """For each near-duplicate, the most similar description of another label (the first of equals), and the index.

    Args:
        keys: the label of each description; descriptions of the same label are not compared.
        texts: the label's text, which is ignored in the description.
        descriptions: the descriptions.

    Returns:
        Position of the description -> (position of the other, Jaccard index).

    Example:
        >>> near_duplicates(["cow", "ox"], ["cow", "ox"], ["The cow is a big animal.", "A red box with four doors."])
        {}
        >>> near_duplicates(["cow", "ox"], ["cow", "ox"], ["The cow is a big animal.", "The ox is a big animal."])
        {0: (1, 1.0), 1: (0, 1.0)}
    """
    words, starts, places = _numbered(texts, descriptions)
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
        if index >= THRESHOLD:
            for here, there in ((first, second), (second, first)):
                if here not in found or (-index, there) < (-found[here][1], found[here][0]):
                    found[here] = (there, index)
    return dict(sorted(found.items()))


def word_overlap(one: str, other: str) -> float:
    """The Jaccard index of the words of two descriptions; 1 if neither has any.

    Example:
        >>> word_overlap("A cow is big.", "The cow is big.")
        0.6
    """
    first, second = (set(_WORD.findall(text.lower())) for text in (one, other))
    return len(first & second) / len(first | second) if first | second else 1.0


def _numbered(texts: Sequence[str], descriptions: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The descriptions as sets of hashed words, concatenated; where each starts; and its position in the table.

    Numbers instead of strings, because 300,000 sets of strings take a gigabyte.
    """
    hashes: dict[str, int] = {}
    flat = array("I")
    starts, places = [], []
    for position, (text, description) in enumerate(zip(texts, descriptions, strict=True)):
        words = set(_WORD.findall(description.lower())).difference(_WORD.findall(text.lower()))
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
    """Pairs of rows that agree in a whole band and, over all bands, in at least `_AGREE` of the signature."""
    count = len(signatures)
    reach = max(_NEIGHBOURS, _PAIRS_AT_LEAST // count)
    whole = _mixed(signatures[:, ::ROWS])
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        key = _mixed(signatures[:, band * ROWS : (band + 1) * ROWS])
        # Sort equal bands together, and within them rows that are equal in the other bands too.
        order = np.lexsort((whole, key))
        key = key[order]
        for step in range(1, min(reach, count - 1) + 1):
            same = np.flatnonzero(key[:-step] == key[step:])
            if not len(same):
                break
            first, second = order[same], order[same + step]
            # A quarter of the signature already rules most pairs out.
            for columns, least in ((slice(None, None, 4), _AGREE - 0.2), (slice(None), _AGREE)):
                agree = (signatures[:, columns][first] == signatures[:, columns][second]).mean(axis=1)
                first, second = first[agree >= least], second[agree >= least]
            pairs.update(zip(first.tolist(), second.tolist(), strict=True))
    return pairs


def _mixed(rows: np.ndarray) -> np.ndarray:
    """One number per row, equal for equal rows: (N, K) -> (N,)."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return mixed
