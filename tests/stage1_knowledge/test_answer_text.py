"""What models write around an answer, and the sentence or fields in it."""

import json

import pytest

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import FieldsForm, SentenceForm
from sspa.stage1_knowledge.answer_text import UNFINISHED, cleaned, first_sentence, json_objects
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Sampling
from sspa.stage1_knowledge.prompt import built_in_prompt

GOOD = "A cat is a small furry animal with pointed ears, four legs and a long tail, often seen with a bowl."
ABBREVIATED = "A cat (e.g. St. Bernard or Mr. Whiskers) is a furry animal, i.e. one with a tail."
FIELDS = {"appearance": "a small furry animal", "parts": ["ears"], "company": ["sofa"], "look_alikes": ["fox"]}
CAT = Label("cat", "cat")
PROMPT = built_in_prompt("natural")


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\nOkay, one sentence. A cat is an animal.\n</think>\n\n{GOOD}",
        f"Okay, one sentence about a cat.\n</think>\n\n{GOOD}",
        f"<THINKING>Hm.</THINKING>{GOOD}",
        f"[THINK]Hm.[/THINK]{GOOD}",
        f"◁think▷Hm.◁/think▷{GOOD}",
        f"<think>a</think><think>b</think>{GOOD}",
        f"<think>{'so ' * 20_000}</think>{GOOD}",
        f"{GOOD}<think>Was that right?",
        f"analysisThe user wants a sentence. Let me write.assistantfinal{GOOD}",
        f"<|channel|>analysis<|message|>A cat.<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}<|return|>",
    ],
)
def test_thinking_is_dropped(text: str) -> None:
    assert cleaned(Answer(text, "stop")) == Answer(cleaned(Answer(text, "stop")).text, "stop")
    assert cleaned(Answer(text, "stop")).text.strip() == GOOD


@pytest.mark.parametrize(
    "text", ["<think>\nOkay, the user wants", "analysisThe user wants", "<|channel|>analysis<|message|>The user wants"]
)
@pytest.mark.parametrize("form", [SentenceForm(), FieldsForm()])
def test_thinking_without_an_end_is_cut_and_given_more_room(text: str, form: SentenceForm | FieldsForm) -> None:
    answer = cleaned(Answer(text, "stop", 5, 7))
    assert answer == Answer(UNFINISHED, "length", 5, 7)
    asker = Asker(PROMPT, form, Sampling(max_tokens=80), 3, "common", lambda _: None)
    description, verdict = asker.judged(answer, CAT)
    assert description == ""
    assert verdict.reason == "cut: the model was still thinking; raise --max-tokens"
    question = asker.questions(CAT, 1)[0]
    question.answers.append(answer)
    assert asker.draw(question) == (1, 160)


def test_what_only_looks_like_thinking_stays() -> None:
    for text in ("Analysis of a cat shows fur.", "A cat I think > all.", "analysts see a cat"):
        assert cleaned(Answer(text, "stop")).text == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD, GOOD),
        (f"  {GOOD}\n", GOOD),
        (GOOD.replace("with ", "with\n"), GOOD),
        (f"1. {GOOD}\n2. It is often brown.\n", GOOD),
        (f"(1) {GOOD}", GOOD),
        (f"a) {GOOD}", GOOD),
        (f"- {GOOD}\n- It is often brown.", GOOD),
        (f"• {GOOD}", GOOD),
        (f"> {GOOD}", GOOD),
        (f"**Cat:** {GOOD}", GOOD),
        (f"**Cat**: {GOOD}", GOOD),
        (f"**Cat**\n\n{GOOD}", GOOD),
        (f"A cat: {GOOD}", GOOD),
        (f"Cat - {GOOD}", GOOD),
        (f"1. **Cat** – {GOOD}", GOOD),
        (f"# A cat\n{GOOD}", GOOD),
        (f"### Description\n\n{GOOD}\n\n### Notes\n", GOOD),
        (f"Cat\n===\n{GOOD}", GOOD),
        (f"Here is a one-sentence description:\n\n{GOOD}", GOOD),
        (f"Here's a description of a cat: {GOOD}", GOOD),
        (f"Sure! Here is one: {GOOD}", GOOD),
        (f"Certainly! {GOOD}", GOOD),
        (f"Okay, here's one:\n{GOOD}", GOOD),
        (f'"{GOOD}"', GOOD),
        (f"“{GOOD}”", GOOD),
        (f'Answer: "{GOOD}" It is brown.', GOOD),
        (f"```\n{GOOD}\n```", GOOD),
        (f"```text\n{GOOD}\n```\nI hope this helps!", GOOD),
        (f"{GOOD} It is often brown.", GOOD),
        (GOOD.replace("furry", "**furry**").replace("tail", "_tail_").replace("bowl", "`bowl`"), GOOD),
        (ABBREVIATED, ABBREVIATED),
        (f"{ABBREVIATED} It sits.", ABBREVIATED),
        ("A cat (it purrs. It sits) is furry. It runs.", "A cat (it purrs. It sits) is furry."),
        ("A cat (it purrs is furry. It runs.", "A cat (it purrs is furry."),
        ("A cat by J. S. Bach has fur. It runs.", "A cat by J. S. Bach has fur."),
        ("A tv_monitor has a snake_case name.", "A tv_monitor has a snake_case name."),
        ("Great Danes are tall dogs.", "Great Danes are tall dogs."),
        ("Here is a cat.", "Here is a cat."),
        ("Cat: a furry pet", "Cat: a furry pet"),
        ("", ""),
        ("**", ""),
        ("```", ""),
    ],
)
def test_the_sentence_is_found_in_what_is_around_it(text: str, sentence: str) -> None:
    assert first_sentence(text, "cat")[0] == sentence


def test_a_cut_second_sentence_costs_nothing() -> None:
    form = SentenceForm()
    for text, complete in (
        (f"{GOOD} It is oft", True),
        (f"{GOOD}\n\n- It is oft", True),
        (f"1. {GOOD[:-1]}\n2. It is oft", True),
        (GOOD[:-9], False),
        ("A cat (e.g. St.", True),
    ):
        assert form.read(Answer(text, "length"), PROMPT, CAT).complete == complete, text


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(FIELDS),
        f"```json\n{json.dumps(FIELDS, indent=1)}\n```",
        f"Sure! Here is the JSON:\n{json.dumps(FIELDS)}",
        f"As {{asked}}: {json.dumps(FIELDS)} Hope this helps {{",
        f'{{"cat": 1}} {json.dumps(FIELDS)}',
    ],
)
def test_fields_are_found_in_what_is_around_them(text: str) -> None:
    read = FieldsForm().read(Answer(text, "stop"), PROMPT, CAT)
    assert read.description == ("A cat is a small furry animal with ears, often seen with sofa, similar to fox."), (
        read.fault
    )


def test_no_fields_are_a_fault_that_says_which() -> None:
    read = FieldsForm().read(Answer('Here: {"appearance": "a pet"}', "stop"), PROMPT, CAT)
    assert read.fault.startswith("not the asked fields: ")


def test_a_text_full_of_braces_takes_no_time() -> None:
    assert list(json_objects("{" * 20_000)) == []
    assert list(json_objects('{"a":' * 4_000)) == []


def test_a_filtered_answer_is_doubtful_for_that_reason() -> None:
    asker = Asker(PROMPT, SentenceForm(), Sampling(), 3, "common", lambda _: None)
    assert asker.judged(Answer("", "filter"), CAT)[1].reason == "the server's filter withheld the answer"
