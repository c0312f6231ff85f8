"""Near-duplicates, against comparing every pair."""

import random

from sspa.stage1_knowledge.near_duplicates import THRESHOLD, near_duplicates


def every_pair(keys: list[str], texts: list[str], descriptions: list[str]) -> dict[int, float]:
    """The highest index at or above the threshold for each description, by brute force."""
    sets = [
        set(description.lower().split()) - set(text.lower().split())
        for description, text in zip(descriptions, texts, strict=True)
    ]
    best: dict[int, float] = {}
    for first in range(len(sets)):
        for second in range(len(sets)):
            if keys[first] != keys[second] and sets[first] and sets[second]:
                index = len(sets[first] & sets[second]) / len(sets[first] | sets[second])
                if index >= THRESHOLD:
                    best[first] = max(index, best.get(first, 0.0))
    return best


def test_finds_what_comparing_every_pair_finds() -> None:
    draw = random.Random(0)
    words = [f"w{letter}{other}" for letter in "abcdefghij" for other in "klmnopqrst"]
    descriptions, keys = [], []
    for number in range(300):
        if number % 3 and descriptions:
            words_now = draw.choice(descriptions).split()
            words_now[draw.randrange(len(words_now))] = draw.choice(words)
        else:
            words_now = draw.sample(words, 16)
        descriptions.append(" ".join(words_now))
        keys.append(f"label {number % 90}")
    expected = every_pair(keys, keys, descriptions)
    found = near_duplicates(keys, keys, descriptions)
    assert 100 < len(expected) < 300
    assert {position: round(index, 9) for position, (_, index) in found.items()} == {
        position: round(index, 9) for position, index in expected.items()
    }
    assert all(keys[position] != keys[other] for position, (other, _) in found.items())


def test_a_labels_own_name_does_not_distinguish_descriptions() -> None:
    descriptions = [
        "The cow is a big animal with horns.",
        "The ox is a big animal with horns.",
        "A boat has a red sail.",
    ]
    assert near_duplicates(["a", "b", "c"], ["cow", "ox", "boat"], descriptions) == {0: (1, 1.0), 1: (0, 1.0)}
    assert near_duplicates(["a", "a", "c"], ["cow", "ox", "boat"], descriptions) == {}


def test_empty_and_single_descriptions_have_no_near_duplicates() -> None:
    assert near_duplicates(["a", "b"], ["cow", "ox"], ["", ""]) == {}
    assert near_duplicates(["a"], ["cow"], ["The cow."]) == {}
    assert near_duplicates([], [], []) == {}
