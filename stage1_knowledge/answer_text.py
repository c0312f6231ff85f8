"""What a model writes around its answer (thinking, lists, headings, quotes), and the first sentence without it."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sspa.shared.terminal import printable
from sspa.stage1_knowledge.engines.contract import Answer

# Far above the longest answer that any option asks for.
MAX_CHARACTERS = 20_000
# What is kept of thinking that never came to an end.
UNFINISHED = "<think>"

_TAGS = "think|thinking|thought|thoughts|reasoning|reflection|seed:think"
_OPENED = re.compile(rf"<(?:{_TAGS})>|\[THINK\]|◁think▷", re.IGNORECASE)
_CLOSED = re.compile(rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷", re.IGNORECASE)
# gpt-oss: the channels `analysis` and `final`; vLLM removes the markers between them, but not the names.
_ANALYSIS = re.compile(r"\s*(?:<\|channel\|>)?analysis(?=\W|[A-Z])")
_FINAL = re.compile(r"(?:assistant|<\|channel\|>)+final(?:<\|message\|>)?")
# A chat's own markers, of the common templates.
_CHAT_TOKEN = re.compile(r"<\|[^<>|]{1,40}\|>|<｜[^<>｜]{1,40}｜>|</?s>|\[/?(?:INST|SYS)\]|<<?/?SYS>>?")

_FENCE = re.compile(r"\s*(?:```|~~~)")
_EMPHASIS = re.compile(r"\*\*+|`+|(?<!\w)[*_]+(?=\w)|(?<=[\w.!?,;:])[*_]+(?!\w)")
_ITEM = re.compile(r"\s*(?:[-*•–—>#]+|\(?\d{1,2}[.):]|\(?[a-z]\))\s+")
_PREAMBLE = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok|great)(?: thing)?[!,.:]+\s+)*"
    r"(?:(?:here(?: is|'s|’s| are)|below is|the following is)\b[^.:!?]{0,160}:\s*)?",
    re.IGNORECASE,
)
_DECORATION = re.compile(r"(?:[\s\"“”'‘*_`#>-]+|(?:answer|description|sentence|a)\s*:\s*)+", re.IGNORECASE)
_TRAILING = re.compile(r"[\s*_`]+$")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’')]*\s+(?=[\"“‘'(]*[A-Z])")
# A full stop that ends no sentence: of an abbreviation, or of an initial.
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"“'‘])(?:e\.g|i\.e|cf|vs|ca|approx|incl|esp|mr|mrs|ms|dr|prof|st|mt|jr|sr|no|fig|[a-z]|(?:[a-z]\.)+[a-z])\.$",
    re.IGNORECASE,
)


def cleaned(answer: Answer) -> Answer:
    """The answer as it is kept: without thinking, of bounded length, up to the first chat token, printable.

    Thinking that never came to an end is a truncated answer: `UNFINISHED`, with the finish "length".

    Example:
        >>> cleaned(Answer("<think>A cat?</think>A cat\\x1b[2J sits.<|im_end|>\\nuser", "stop")).text
        'A cat [2J sits.'
    """
    text = _without_thinking(answer.text)
    if text is None:
        return replace(answer, text=UNFINISHED, finish="length")
    text = _CHAT_TOKEN.split(text[:MAX_CHARACTERS], maxsplit=1)[0]
    text = printable(text, instead=" ")
    return answer if text == answer.text else replace(answer, text=text)


def _without_thinking(text: str) -> str | None:
    """The text behind the thinking; None if nothing but thinking came."""
    if _ANALYSIS.match(text):
        *thinking, text = _FINAL.split(text)
        if not thinking:
            return None
    # Templates that open the thinking themselves leave only its end in the answer.
    text = _CLOSED.split(text)[-1]
    if opened := _OPENED.search(text):
        text = text[: opened.start()]
        return text if text.strip() else None
    return text


def first_sentence(text: str, label_text: str) -> tuple[str, bool]:
    """The first sentence about a label, without list numbers, headings, emphasis, quotes and introductions.

    Args:
        text: a model's answer.
        label_text: the label as the model read it; "Cat:" before a sentence is dropped.

    Returns:
        The sentence, on one line; and True if more came after it.

    Example:
        >>> first_sentence("Here is one:\\n\\n1. **Cat:** A cat (e.g. St. Paul's) sits. It\\n2. ...", "cat")
        ("A cat (e.g. St. Paul's) sits.", True)
    """
    paragraph, more = _first_paragraph(text, label_text)
    start = _without_decoration(paragraph, label_text)
    for end in _SENTENCE_END.finditer(start):
        before = start[: end.start()]
        inside = before.count("(") > before.count(")") and ")" in start[end.end() :]
        if not inside and not _ABBREVIATED.search(before):
            start, more = start[: end.end()].rstrip(), True
            break
    sentence = _TRAILING.sub("", start)
    for opening, closing in ('""', "“”"):
        if sentence.endswith(closing) and sentence.count(opening) == (1 if opening == closing else 0):
            # The closing quote of a quoted answer, whose opening quote went with the decoration.
            sentence = sentence[:-1]
    return sentence, more


def _first_paragraph(text: str, label_text: str) -> tuple[str, bool]:
    """The lines of the first paragraph or list item that is no heading, joined; and True if more came after it."""
    lines = [_EMPHASIS.sub("", line).strip() for line in text.splitlines() if not _FENCE.match(line)]
    last = max((position for position, line in enumerate(lines) if line), default=-1)
    kept: list[str] = []
    for position, line in enumerate(lines[: last + 1]):
        if kept and (not line or _ITEM.match(f"{line} ")):
            return " ".join(kept), True
        if line and not (position < last and _is_heading(line, label_text)):
            kept.append(line)
    return " ".join(kept), False


def _is_heading(line: str, label_text: str) -> bool:
    named = line.strip("#*_= :.-\"'").casefold()
    return line.startswith("#") or line.endswith(":") or named == label_text.casefold() or not named


def _without_decoration(text: str, label_text: str) -> str:
    # With a capital behind it, or "Cat: a cat" would become a sentence that begins in the middle.
    about = re.compile(
        rf"(?:(?:an?|the)\s+)?{re.escape(label_text)}(?:\s*:|\s+[-–—])\s+(?=[\"“‘'(]*[A-Z])", re.IGNORECASE
    )
    while True:
        rest = text
        for pattern in (_ITEM, _DECORATION, _PREAMBLE):
            if found := pattern.match(rest):
                rest = rest[found.end() :]
        if (found := about.match(rest)) and rest[found.end() :].lstrip("\"“‘'(")[:1].isupper():
            rest = rest[found.end() :]
        if rest == text:
            return text
        text = rest


def json_objects(text: str, most: int = 10) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, wherever they begin: within a code fence, or behind an introduction."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    for _ in range(most):
        if start < 0:
            return
        end = start + 1
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            yield found
        start = text.find("{", end)
