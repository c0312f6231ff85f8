"""Verdicts: each rule by itself, and all of them against sentences that a person judged."""

from pathlib import Path

import pytest

from sspa.stage1_knowledge.prompt import built_in_prompt
from sspa.stage1_knowledge.verdicts import Demonstration, judge

PROMPT = built_in_prompt("natural")
SHOWN = Demonstration(PROMPT.demonstration_label, PROMPT.demonstration_answer)
GOOD = "A cat is a small furry animal with pointed ears, whiskers and a long tail, often seen with a bowl."


def judged() -> list[tuple[str, str, str]]:
    lines = Path(__file__).with_name("judged_sentences.tsv").read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]  # type: ignore[misc]


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


def measured() -> dict[str, float]:
    """Precision and recall of "doubtful", over all judged sentences and over those whose fault is in the form."""
    rows = [(kind, judge(sentence, label, SHOWN).good) for kind, label, sentence in judged()]
    doubted = [kind for kind, good in rows if not good]
    poor = [good for kind, good in rows if kind == "poor"]
    bad = [good for kind, good in rows if kind != "good"]
    fine = [good for kind, good in rows if kind == "good"]
    return {
        "precision": sum(kind != "good" for kind in doubted) / len(doubted),
        "recall": 1 - sum(bad) / len(bad),
        "recall_poor": 1 - sum(poor) / len(poor),
        "good_kept": sum(fine) / len(fine),
    }


def test_against_sentences_that_a_person_judged() -> None:
    assert len(judged()) >= 200
    figures = measured()
    # The measured values are in docs/results.md; a rule that makes them worse has to be argued for.
    assert figures["precision"] >= PRECISION, figures
    assert figures["recall_poor"] >= RECALL_POOR, figures
    assert figures["recall"] >= RECALL, figures
    assert figures["good_kept"] >= GOOD_KEPT, figures


PRECISION, RECALL_POOR, RECALL, GOOD_KEPT = 0.95, 0.85, 0.65, 0.88
