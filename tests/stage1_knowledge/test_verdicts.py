"""Verdicts: each rule by itself, and all of them against descriptions that a person judged."""

from pathlib import Path

import pytest

from sspa.stage1_knowledge.prompt import built_in_prompt
from sspa.stage1_knowledge.verdicts import Demonstration, judge

PROMPT = built_in_prompt("natural")
SHOWN = Demonstration(PROMPT.demonstration_label, PROMPT.demonstration_answer)
GOOD = "A cat is a small furry animal with pointed ears, whiskers and a long tail, often seen with a bowl."


def judged(file: str) -> list[tuple[str, ...]]:
    lines = Path(__file__).with_name(file).read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]


def test_a_description_is_good() -> None:
    assert judge(GOOD, "cat", SHOWN).good


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("", "empty"),
        ("... !", "empty"),
        ("A furry cat.", "too short: 3 words"),
        (GOOD[:-1] + " and a red box" * 14, "too long: 7"),
        ("A cat has a red cockpit, a green cockpit and one more blue cockpit.", 'repeats itself: "cockpit" 3 times'),
        ("A cat sits on a red box and a cat sits on a red box here.", "repeats itself: "),
        ("A cat has a tail, whiskers, four legs and a tail.", 'lists "tail" 2 times'),
        ("I am sorry, but I can not describe a cat with fur.", "chat talk or refusal"),
        ("As an AI language model, a cat with fur is unknown to us.", "chat talk or refusal"),
        ("The photo of a cat shows a furry animal with a tail.", "talks about the question or a picture"),
        ("The assistant sees a furry cat with a long tail.", "talks about the question or a picture"),
        ("A cat is like a lantern with fur, a tail and two ears.", "talks about the demonstration"),
        ("A cat is a metal box with glass sides, a ring on top and a candle inside.", "copies the demonstration"),
        ("Dogs have four legs, brown fur, a wet nose and a tail.", 'does not speak of "cat"'),
        ("A cat is a pet that many people keep because they love it.", "not visual: 0 words"),
        ("A cat is used for catching mice with its paws and teeth.", "not visual: 2 words"),
        ("A cat is a symbol of luck with soft fur and a tail.", 'not visual: speaks of a "symbol"'),
        ("The camera sees a cat with soft fur and a long tail.", "talks about the question or a picture"),
        ("The head, the tail and the whiskers of a cat.", "no sentence"),
        ("A cat is a majestic, elegant, graceful pet with fur and a tail.", "not visual: 2 words"),
        ("Кошка это небольшое пушистое животное с ушами", "not English"),
        ("cat fur tail ears whiskers paws striped soft brown", "not an English sentence"),
    ],
)
def test_each_rule_objects_and_says_why(sentence: str, reason: str) -> None:
    verdict = judge(sentence, "cat", SHOWN)
    assert not verdict.good
    assert verdict.reason.startswith(reason), verdict.reason


def test_a_cut_or_malformed_answer_is_worse_than_a_complete_one() -> None:
    cut = judge("A cat is a small", "cat", complete=False)
    malformed = judge("", "cat", fault="not the asked fields: parts: missing")
    assert (cut.good, malformed.good) == (False, False)
    assert malformed.severity > cut.severity > judge("A cat is a pet that many people love.", "cat").severity


def measured(verdicts: list[tuple[str, bool]]) -> dict[str, float]:
    """Precision and recall of "doubtful", over all judged descriptions and over those with a fault of form."""
    doubted = [kind for kind, good in verdicts if not good]
    poor = [good for kind, good in verdicts if kind == "poor"]
    bad = [good for kind, good in verdicts if kind != "good"]
    fine = [good for kind, good in verdicts if kind == "good"]
    return {
        "precision": sum(kind != "good" for kind in doubted) / len(doubted),
        "recall_poor": 1 - sum(poor) / len(poor),
        "recall": 1 - sum(bad) / len(bad),
        "good_kept": sum(fine) / len(fine),
    }


# A little under what docs/results.md reports: a rule that makes it worse has to be argued for.
def test_against_sentences_that_a_person_judged() -> None:
    rows = judged("judged_sentences.tsv")
    assert len(rows) >= 200
    figures = measured([(kind, judge(sentence, label, SHOWN).good) for kind, label, sentence in rows])
    least = {"precision": 0.96, "recall_poor": 0.94, "recall": 0.73, "good_kept": 0.9}
    assert all(figures[name] >= value for name, value in least.items()), figures


def test_against_judged_sentences_of_the_other_domains() -> None:
    rows = judged("judged_other_domains.tsv")
    assert len(rows) == 50
    verdicts = []
    for kind, domain, label, sentence in rows:
        prompt = built_in_prompt(domain)
        shown = Demonstration(prompt.demonstration_label, prompt.demonstration_answer)
        verdicts.append((kind, judge(sentence, label, shown).good))
    figures = measured(verdicts)
    least = {"precision": 0.94, "recall_poor": 0.8, "recall": 0.6, "good_kept": 0.94}
    assert all(figures[name] >= value for name, value in least.items()), figures
