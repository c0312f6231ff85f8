"""Token counts against open_clip's own tokenizer."""

import pytest

from sspa.stage1_knowledge.clip_tokens import CONTEXT, clip_tokens, knowledge_prompt

TEXTS = [
    "A cat is a small furry animal with pointed ears, often seen with a bowl.",
    "It's the dog's 2nd collar – 35 cm, red/blue; they've 3 of 'em!",
    "Überraschung: naïve café, 漢字, emoji 🙂 and a \t tab.",
    "",
    "word " * 90,
]


@pytest.mark.parametrize("text", TEXTS)
def test_counts_equal_those_of_open_clip(text: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    expected = len(tokenizer.encode(knowledge_prompt("cat", text))) + 2
    ((count, cut),) = clip_tokens(["cat"], [text])
    assert count == expected
    assert bool(cut) == (expected > CONTEXT)


def test_what_is_cut_is_what_clip_does_not_read() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    description = " ".join(f"{number} red" for number in range(40))
    ((count, cut),) = clip_tokens(["cat"], [description])
    prompt = knowledge_prompt("cat", description)
    assert count > CONTEXT
    assert prompt.endswith(cut)
    assert len(tokenizer.encode(prompt[: -len(cut)])) == CONTEXT - 2
