"""Is a sentence a description? Each rule gives its reason with the figure behind it.

The thresholds are set against sentences of real engines that a person judged
(tests/stage1_knowledge/judged_sentences.tsv); docs/results.md reports precision and recall.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from sspa.stage1_knowledge.visual_words import FLOWERY_WORDS, FUNCTION_WORDS, VISUAL_WORDS

MIN_WORDS = 6
MAX_WORDS = 60
MAX_REPEATED_BIGRAMS = 0.12
MAX_SAME_WORD = 3
MIN_FUNCTION_WORDS = 0.15
MAX_FOREIGN_LETTERS = 0.1
MAX_OF_DEMONSTRATION = 0.5
MIN_VISUAL_WORDS = 2
MIN_VISUAL_WORDS_BESIDE_USES = 3

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BOILERPLATE = re.compile(
    r"\b(?:i(?:'m| am| can| cannot| can't| do| don't| will| would| have)|i|my|me|sorry|sure|certainly|of course|"
    r"let me|here (?:is|are|'s)|hope this|feel free|as an ai|as requested|you can|thank you)\b",
    re.IGNORECASE,
)
_ABOUT_ITSELF = re.compile(
    r"\b(?:language model|ai (?:model|assistant)|assistant|smollm|hugging face|openai|the question|the answer|"
    r"(?:this|the|a) (?:sentence|prompt|label|word|term|phrase)|the description|in one sentence|"
    r"(?:this|the|an?) (?:photo|picture|image|photograph|illustration)(?: \w+)? "
    r"(?:of|shows?|depicts?|is|might|can|has)|"
    r"(?:is|are) shown in the (?:photo|picture|image))\b",
    re.IGNORECASE,
)
_USES = re.compile(
    r"\b(?:used (?:for|to|in|as|by)|designed (?:to|for)|made to|intended (?:to|for)|powered by|known for|"
    r"(?:is|are) an? (?:type|kind|form) of|allows?|transport(?:s|ing|ation)?|displays|"
    r"associated with)\b",
    re.IGNORECASE,
)
_METAPHOR = re.compile(r"\b(?:symbols?|symbolic|reflections?|representations?|embodiment|metaphor)\b", re.IGNORECASE)
_VERB = re.compile(
    r"\b(?:is|are|has|have|can|may|features?|includes?|looks?|resembles?|consists?|comes?|shows?|stands?|holds?|sits?|"
    r"lies|covers?|carries|wears?|contains?|appears?|hangs?|runs?|stretch(?:es)?|surrounds?|lines?|spreads?)\b",
    re.IGNORECASE,
)
_LIST_END = re.compile(r"[,;.]|\b(?:and|or|with|has|have)\b")


@dataclass(frozen=True)
class Verdict:
    """Good, or doubtful for `reason`; `severity` orders the doubtful (0 is good, more is worse)."""

    good: bool
    reason: str = ""
    severity: int = 0


GOOD = Verdict(good=True)


@dataclass(frozen=True)
class Demonstration:
    """The prompt's example: its label and its answer, neither of which may come back as an answer."""

    label: str = ""
    answer: str = ""


NO_DEMONSTRATION = Demonstration()


def judge(
    sentence: str,
    label_text: str,
    demonstration: Demonstration = NO_DEMONSTRATION,
    complete: bool = True,
    fault: str = "",
) -> Verdict:
    """Judge one sentence about one label.

    Args:
        sentence: as it would be kept.
        label_text: the label as models see it.
        demonstration: the prompt's, which must not turn up in the sentence.
        complete: False where the model ran out of room inside the sentence.
        fault: what is wrong with the answer's form, if anything is.

    Returns:
        The verdict of the most severe rule that objects; `judge` cannot see that a sentence is false.

    Example:
        >>> judge("A cat, a cat and a cat.", "cat").reason
        'repeats itself: "cat" 3 times'
    """
    if fault:
        return Verdict(False, fault, 10)
    if not complete:
        return Verdict(False, "cut: the model ran out of room", 9)
    words = [word.lower() for word in _WORD.findall(sentence)]
    for severity, rule in _RULES:
        if reason := rule(sentence, words, label_text, demonstration):
            return Verdict(False, reason, severity)
    return GOOD


def _empty(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    return "" if words else "empty"


def _foreign(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if not sentence.isascii():
        letters = [character for character in sentence if character.isalpha()]
        foreign = sum(not character.isascii() for character in letters) / len(letters)
        if foreign > MAX_FOREIGN_LETTERS:
            return f"not English: {foreign:.0%} foreign letters"
    share = sum(word in FUNCTION_WORDS for word in words) / len(words)
    if len(words) >= MIN_WORDS and share < MIN_FUNCTION_WORDS:
        return f"not an English sentence: {share:.0%} function words"
    return ""


def _length(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if len(words) < MIN_WORDS:
        return f"too short: {len(words)} words"
    return f"too long: {len(words)} words" if len(words) > MAX_WORDS else ""


def _loops(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    own = set(label.lower().split())
    bigrams = Counter(itertools.pairwise(words))
    repeated = sum(count - 1 for pair, count in bigrams.items() if not set(pair) <= FUNCTION_WORDS)
    if repeated / max(len(words) - 1, 1) > MAX_REPEATED_BIGRAMS:
        return f"repeats itself: {repeated} of {len(words) - 1} word pairs came before"
    counts = Counter(word for word in words if word not in FUNCTION_WORDS)
    for word, count in counts.most_common():
        if count >= MAX_SAME_WORD + (word in own and len(words) > 20):
            return f'repeats itself: "{word}" {count} times'
    for item, count in Counter(_listed(sentence)).most_common(1):
        if count > 1:
            return f'lists "{item}" {count} times'
    return ""


def _listed(sentence: str) -> list[str]:
    """The things a sentence lists, without articles; single words and pairs only, longer parts are clauses."""
    parts = ([word.lower() for word in _WORD.findall(part)] for part in _LIST_END.split(sentence))
    items = ([word for word in part if word not in FUNCTION_WORDS] for part in parts)
    return [" ".join(item) for item in items if 0 < len(item) <= 2]


def _boilerplate(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    found = _BOILERPLATE.search(sentence)
    return f'chat talk or refusal: "{found[0]}"' if found else ""


def _about_itself(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if found := _ABOUT_ITSELF.search(sentence):
        return f'talks about the question or a picture: "{found[0]}"'
    strange = set(demonstration.label.lower().split()) - set(label.lower().split()) - FUNCTION_WORDS
    if strange & {word.rstrip("s") for word in words}:
        return f'talks about the demonstration: "{demonstration.label}"'
    if demonstration.answer:
        said = set(words) - set(label.lower().split())
        shown = _demonstrated_words(demonstration)
        common = len(said & shown) / len(said | shown)
        if common > MAX_OF_DEMONSTRATION:
            return f"copies the demonstration: {common:.0%} of the words in common"
    return ""


@lru_cache(maxsize=64)
def _demonstrated_words(demonstration: Demonstration) -> frozenset[str]:
    own = set(demonstration.label.lower().split())
    return frozenset(word.lower() for word in _WORD.findall(demonstration.answer)) - own


def _elsewhere(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    # The first four letters, so that plurals and "monitors" for "tv monitor" count.
    stems = {word[:4] for word in _WORD.findall(label.lower()) if word not in FUNCTION_WORDS}
    said = " ".join(words)
    if any(stem in said for stem in stems) or any(len(word) > 3 and word in label.lower() for word in words):
        return ""
    return f'does not speak of "{label}"'


def _no_sentence(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    # "Often seen" is the half of a verb that fragments have.
    return "" if _VERB.search(sentence) else "no sentence: no verb in it"


def _not_visual(sentence: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if found := _METAPHOR.search(sentence):
        return f'not visual: speaks of a "{found[0]}"'
    own = set(label.lower().split())
    seen = {_stem(word) for word in words if word not in own and _is_visual(word)}
    flowery = sum(word in FLOWERY_WORDS for word in words)
    needed = MIN_VISUAL_WORDS_BESIDE_USES if _USES.search(sentence) else MIN_VISUAL_WORDS
    if len(seen) - flowery < needed:
        return f"not visual: {len(seen)} words for what can be seen, {flowery} of praise; {needed} are needed"
    return ""


def _stem(word: str) -> str:
    return word.removesuffix("s")


@lru_cache(maxsize=65_536)
def _is_visual(word: str) -> bool:
    parts = re.split("[-'’]", word)
    forms = {*parts, word, *(part.removesuffix("s") for part in parts), word.removesuffix("es")}
    return bool(forms & VISUAL_WORDS)


# Worst first: the first rule that objects gives the reason.
_Rule = Callable[[str, list[str], str, Demonstration], str]
_RULES: tuple[tuple[int, _Rule], ...] = (
    (8, _empty),
    (7, _foreign),
    (6, _boilerplate),
    (5, _length),
    (4, _about_itself),
    (4, _elsewhere),
    (4, _no_sentence),
    (3, _loops),
    (2, _not_visual),
)
