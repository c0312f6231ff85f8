"""Labels that a text tower cannot read are warned of, and no others."""

import open_clip
import pytest

from sspa.shared.label_sets import Label, built_in_label_set, built_in_names
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.backbones.unfamiliar_labels import say_unfamiliar, unfamiliar

ODD = ("zzqx", "собака", "狗", "كلب", "red собака", "xk9")
FAMILIAR = ("TV", "giraffe", "photovoltaic panel", "wheelbarrow", "T-shirt", "écharpe", "long sleeves", "no. 7")


@pytest.fixture(scope="module")
def embedded() -> Backbone:
    return create_backbone("embedded", image_size=64)


def test_made_up_words_and_other_scripts_are_unfamiliar(embedded: Backbone) -> None:
    assert [text for text in (*ODD, *FAMILIAR) if unfamiliar(Label("key", text), embedded)] == list(ODD)


def test_no_built_in_label_is(embedded: Backbone) -> None:
    labels = [label for name in built_in_names() for label in built_in_label_set(name).labels]
    assert len(labels) > 200
    assert [label.text for label in labels if unfamiliar(label, embedded)] == []


def test_clips_own_tokenizer_spells_other_scripts_in_bytes(embedded: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_tokenizer", open_clip.tokenizer.SimpleTokenizer())
    found = [text for text in (*ODD, *FAMILIAR) if unfamiliar(Label("key", text), embedded)]
    assert found == ["собака", "狗", "كلب", "red собака", "xk9"]


def test_the_warning_names_the_first_few(embedded: Backbone, capsys: pytest.CaptureFixture[str]) -> None:
    say_unfamiliar([Label("dog", "dog")], embedded)
    assert capsys.readouterr().err == ""
    say_unfamiliar([Label(f"zzqx{number}", f"zzqx{number}") for number in range(7)], embedded)
    said = capsys.readouterr().err
    assert "hardly knows the words of zzqx0, zzqx1, zzqx2, zzqx3, zzqx4 and 2 more" in said
