"""Is a description usable? Each rule states its reason, with the figure behind it.

The thresholds were set on descriptions by real models that a person judged
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
# Prefix of the one reason that depends on the whole table: it comes and goes with the other labels.
NEAR_DUPLICATE = "nearly the same as "

# A word, or a punctuation mark that ends an item of a list.
_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|[,;.]")
_BOILERPLATE = re.compile(
    r"\b(?:i(?:'m| am| can| cannot| can't| do| don't| will| would| have)|i|my|me|sorry|sure|certainly|of course|"
    r"let me|here (?:is|are|'s)|hope this|feel free|as an ai|as requested|you can|thank you)\b",
)
_ABOUT_ITSELF = re.compile(
    r"\b(?:language model|ai (?:model|assistant)|assistant|smollm|hugging face|openai|the question|the answer|"
    r"(?:this|the|a) (?:sentence|prompt|label|word|term|phrase)|the description|in one sentence|"
    r"(?:this|the|an?) (?:photo|picture|image|photograph|illustration)(?: \w+)? "
    r"(?:of|shows?|depicts?|is|might|can|has)|"
    r"(?:is|are) shown in the (?:photo|picture|image)|(?:the|a) camera (?:sees|takes|shows|captures|looks|records))\b",
)
_USES = re.compile(
    r"\b(?:used (?:for|to|in|as|by)|designed (?:to|for)|made to|intended (?:to|for)|powered by|known for|"
    r"(?:is|are) an? (?:type|kind|form) of|allows?|transport(?:s|ing|ation)?|displays|"
    r"associated with|forms when|caused by|serves as)\b",
)
_METAPHOR = re.compile(
    r"\b(?:symbols?|symbolic|reflections?|representations?|embodiment|metaphor|testament|tapestry of|sight to behold|"
    r"classic example)\b"
)
_VERB = re.compile(
    r"\b(?:is|are|has|have|can|may|features?|includes?|looks?|resembles?|consists?|comes?|shows?|stands?|holds?|sits?|"
    r"lies|covers?|carries|wears?|contains?|appears?|hangs?|runs?|stretch(?:es)?|surrounds?|lines?|spreads?)\b",
)
_LIST_ENDS = frozenset([",", ";", ".", "and", "or", "with", "has", "have"])


@dataclass(frozen=True)
class Verdict:
    """Good, or doubtful for `reason`; `severity` orders the doubtful (0 is good, more is worse)."""

    good: bool
    reason: str = ""
    severity: int = 0


GOOD = Verdict(good=True)


def kind_of(reason: str) -> str:
    """What a verdict's reason has in common with those of other descriptions.

    Example:
        >>> kind_of("too short: 3 words")
        'too short'
    """
    kind = reason.split(":")[0].split('"')[0].strip()
    return f"{NEAR_DUPLICATE}another label's" if kind.startswith(NEAR_DUPLICATE) else kind


@dataclass(frozen=True)
class Demonstration:
    """The prompt's example: its label and its answer, neither of which an answer may repeat."""

    label: str = ""
    answer: str = ""


NO_DEMONSTRATION = Demonstration()


def judge(
    description: str,
    label_text: str,
    demonstration: Demonstration = NO_DEMONSTRATION,
    complete: bool = True,
    fault: str = "",
) -> Verdict:
    """Judge one description of one label.

    Args:
        description: as it would be stored.
        label_text: the label as models see it.
        demonstration: the prompt's, which must not turn up in the description.
        complete: False if the answer was truncated within the description.
        fault: what is wrong with the answer's form, if anything.

    Returns:
        The verdict of the most severe rule that objects. A well-formed but false description passes.

    Example:
        >>> judge("A cat, a cat and a cat.", "cat").reason
        'no sentence: no verb in it'
    """
    if fault:
        return Verdict(False, fault, 10)
    if not complete:
        return Verdict(False, "cut: the model ran out of room", 9)
    said = description.lower()
    words = _words(said)
    label = label_text.lower()
    if reason := _empty(said, words, label, demonstration):
        return Verdict(False, reason, 8)
    for severity, rule in _RULES:
        if reason := rule(said, words, label, demonstration):
            return Verdict(False, reason, severity)
    return GOOD


def _empty(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    return "" if words else "empty"


def _foreign(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if not description.isascii():
        letters = [character for character in description if character.isalpha()]
        foreign = sum(not character.isascii() for character in letters) / len(letters)
        if foreign > MAX_FOREIGN_LETTERS:
            return f"not English: {foreign:.0%} foreign letters"
    share = sum(word in FUNCTION_WORDS for word in words) / len(words)
    if len(words) >= MIN_WORDS and share < MIN_FUNCTION_WORDS:
        return f"not an English sentence: {share:.0%} function words"
    return ""


def _length(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if len(words) < MIN_WORDS:
        return f"too short: {len(words)} words"
    return f"too long: {len(words)} words" if len(words) > MAX_WORDS else ""


def _loops(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    pairs = list(itertools.pairwise(words))
    if len(set(pairs)) < len(pairs):
        bigrams = Counter(pair for pair in pairs if not FUNCTION_WORDS.issuperset(pair))
        repeated = bigrams.total() - len(bigrams)
        if repeated / len(pairs) > MAX_REPEATED_BIGRAMS:
            return f"repeats itself: {repeated} of {len(pairs)} word pairs came before"
    telling = [word for word in words if word not in FUNCTION_WORDS]
    if len(telling) == len(set(telling)):
        return ""
    own = label.split()
    for word, count in Counter(telling).most_common():
        if count >= MAX_SAME_WORD + (word in own and len(words) > 20):
            return f'repeats itself: "{word}" {count} times'
    item, count = max(Counter(_listed(description)).items(), key=lambda pair: pair[1], default=("", 0))
    return f'lists "{item}" {count} times' if count > 1 else ""


def _listed(description: str) -> list[str]:
    """The things a description lists, without articles; single words and pairs only, longer parts are clauses."""
    items: list[str] = []
    item: list[str] = []
    for token in (*_TOKEN.findall(description), "."):
        if token in _LIST_ENDS:
            if 0 < len(item) <= 2:
                items.append(" ".join(item))
            item = []
        elif token not in FUNCTION_WORDS:
            item.append(token)
    return items


def _boilerplate(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    found = _BOILERPLATE.search(description)
    return f'chat talk or refusal: "{found[0]}"' if found else ""


def _about_itself(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if found := _ABOUT_ITSELF.search(description):
        return f'talks about the question or a picture: "{found[0]}"'
    strange = set(demonstration.label.split()) - set(label.split()) - FUNCTION_WORDS
    # A substring test first: cheap, and few descriptions pass it.
    if (
        strange
        and all(word in description for word in strange)
        and strange <= {*words, *(word.rstrip("s") for word in words)}
    ):
        return f'talks about the demonstration: "{demonstration.label}"'
    if demonstration.answer:
        said = set(words) - set(label.split())
        shown = _demonstrated_words(demonstration)
        common = len(said & shown) / len(said | shown)
        if common > MAX_OF_DEMONSTRATION:
            return f"copies the demonstration: {common:.0%} of the words in common"
    return ""


@lru_cache(maxsize=64)
def _demonstrated_words(demonstration: Demonstration) -> frozenset[str]:
    own = set(demonstration.label.split())
    return frozenset(_words(demonstration.answer.lower())) - own


def _elsewhere(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    # The first four letters, so that plurals and "monitors" for "tv monitor" count.
    stems = {word[:4] for word in _words(label) if word not in FUNCTION_WORDS}
    said = " ".join(words)
    if any(stem in said for stem in stems) or any(len(word) > 3 and word in label for word in words):
        return ""
    return f'does not speak of "{label}"'


def _no_verb(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    # A participle as in "often seen with" does not count: fragments have those too.
    return "" if _VERB.search(description) else "no sentence: no verb in it"


def _not_visual(description: str, words: list[str], label: str, demonstration: Demonstration) -> str:
    if found := _METAPHOR.search(description):
        return f'not visual: speaks of a "{found[0]}"'
    own = set(label.split())
    seen = {_stem(word) for word in words if word not in own and _is_visual(word)}
    flowery = sum(word in FLOWERY_WORDS for word in words)
    needed = MIN_VISUAL_WORDS_BESIDE_USES if _USES.search(description) else MIN_VISUAL_WORDS
    if len(seen) - flowery < needed:
        return f"not visual: {len(seen)} words for what can be seen, {flowery} of praise; {needed} are needed"
    return ""


def _words(text: str) -> list[str]:
    return [token for token in _TOKEN.findall(text) if token not in ",;."]


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
    (7, _foreign),
    (6, _boilerplate),
    (5, _length),
    (4, _about_itself),
    (4, _elsewhere),
    (4, _no_verb),
    (3, _loops),
    (2, _not_visual),
)
