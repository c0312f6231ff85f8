"""Alike sentences, against comparing every pair."""

import random

from sspa.stage1_knowledge.likeness import ALIKE, alike


def every_pair(keys: list[str], texts: list[str], sentences: list[str]) -> dict[int, float]:
    """The highest index at or above the threshold for each sentence, by brute force."""
    sets = [
        set(sentence.lower().split()) - set(text.lower().split())
        for sentence, text in zip(sentences, texts, strict=True)
    ]
    best: dict[int, float] = {}
    for first in range(len(sets)):
        for second in range(len(sets)):
            if keys[first] != keys[second] and sets[first] and sets[second]:
                index = len(sets[first] & sets[second]) / len(sets[first] | sets[second])
                if index >= ALIKE:
                    best[first] = max(index, best.get(first, 0.0))
    return best


def test_finds_what_comparing_every_pair_finds() -> None:
    draw = random.Random(0)
    words = [f"w{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"]
    sentences, keys = [], []
    for number in range(300):
        if number % 3 and sentences:
            words_now = draw.choice(sentences).split()
            words_now[draw.randrange(len(words_now))] = draw.choice(words)
        else:
            words_now = draw.sample(words, 16)
        sentences.append(" ".join(words_now))
        keys.append(f"label {number % 90}")
    expected = every_pair(keys, keys, sentences)
    found = alike(keys, keys, sentences)
    assert 100 < len(expected) < 300
    assert {position: round(index, 9) for position, (_, index) in found.items()} == {
        position: round(index, 9) for position, index in expected.items()
    }
    assert all(keys[position] != keys[other] for position, (other, _) in found.items())


def test_a_labels_own_name_does_not_tell_sentences_apart() -> None:
    sentences = ["The cow is a big animal with horns.", "The ox is a big animal with horns.", "A boat has a red sail."]
    assert alike(["a", "b", "c"], ["cow", "ox", "boat"], sentences) == {0: (1, 1.0), 1: (0, 1.0)}
    assert alike(["a", "a", "c"], ["cow", "ox", "boat"], sentences) == {}


def test_empty_sentences_and_single_ones_are_alike_to_nothing() -> None:
    assert alike(["a", "b"], ["cow", "ox"], ["", ""]) == {}
    assert alike(["a"], ["cow"], ["The cow."]) == {}
    assert alike([], [], []) == {}
