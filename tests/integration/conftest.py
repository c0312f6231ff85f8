"""Recorded answers that the real command can replay."""

from pathlib import Path

import pytest

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.keys import common_parts, digest
from sspa.stage1_knowledge.prompt import built_in_prompt

SENTENCES = {
    "cat": "A cat is a small furry animal with pointed ears and a long tail, often seen with a bowl.",
    "dog": "A dog is a four-legged animal with a wet nose and floppy ears, often seen on a red lead.",
}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A cache folder with answers about a cat and a dog."""
    identity = Identity("scripted 1", "teller", revision="r1")
    form = SentenceForm()
    common = digest(common_parts(identity, Sampling(), form.name, None))
    asker = Asker(built_in_prompt("natural"), form, Sampling(), 3, common, lambda _: None)
    store = AnswerStore(tmp_path / "recorded")
    for label, sentence in SENTENCES.items():
        (question,) = asker.questions(Label(label, label), 1)
        store.add(identity, [(asker.key(question), Answer(sentence, "stop", 9, 9))])
    store.close()
    return tmp_path / "recorded"
