"""Label files: what is accepted, and what is rejected with one clear line."""

from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import (
    DOMAINS,
    Label,
    built_in_label_set,
    built_in_names,
    fold,
    label_file,
    parse_label_set,
    read_label_set,
)


def parsed(text: str):
    return parse_label_set(text.encode(), name="mine", source="mine.txt")


def test_three_fields_comments_and_empty_lines_are_read() -> None:
    labels = parsed("# a comment\n# domain: pedestrian\ncat\n\r\n  dog \nhabor\tharbor\nmouse\t\tthe device\r\n")
    assert labels.labels == (
        Label("cat", "cat"),
        Label("dog", "dog"),
        Label("habor", "harbor"),
        Label("mouse", "mouse", "the device"),
    )
    assert labels.domain == "pedestrian"
    assert labels.keys == ("cat", "dog", "habor", "mouse")
    assert labels.texts == ("cat", "dog", "harbor", "mouse")


def test_a_file_is_preferred_to_the_built_in_set_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_label_set("voc.txt").labels) == 20
    Path("voc.txt").write_text("only this\n")
    assert read_label_set("voc.txt").keys == ("only this",)
    assert len(read_label_set("voc").labels) == 20


@pytest.mark.parametrize("name", built_in_names())
def test_built_in_sets_read_without_complaint(name: str) -> None:
    labels = read_label_set(name)
    assert labels.name == name
    assert labels.domain in DOMAINS
    assert len({fold(text) for text in labels.texts}) == len(labels.labels)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("voc", 20, "aeroplane", "tvmonitor"),
        ("coco", 80, "person", "toothbrush"),
        ("nus_wide", 81, "airport", "zebra"),
        ("pa100k", 26, "Female", "boots"),
        ("rapv1", 51, "Female", "action-CarrybyHand"),
        ("peta", 35, "personalLess30", "upperBodyVNeck"),
        ("multiscene", 36, "apron", "sea"),
        ("mlrsnet", 60, "airplane", "wind turbine"),
        ("aid", 17, "airplane", "water"),
        ("ucm", 17, "airplane", "water"),
    ],
)
def test_built_in_sets_keep_the_data_sets_own_names_and_order(name: str, count: int, first: str, last: str) -> None:
    keys = read_label_set(name).keys
    assert (len(keys), keys[0], keys[-1]) == (count, first, last)


def test_a_label_file_reads_as_the_labels_it_was_written_from() -> None:
    labels = parsed("# domain: pedestrian\ncat\nage>60\nx\tred hat\ny\ty\tin the hand\n")
    assert parse_label_set(label_file(labels).encode(), labels.name, "copy") == labels


def test_a_name_may_hold_what_its_text_may_not() -> None:
    found = parsed("age>60\na|b\nset {1}\told set\n").labels
    assert [(label.key, label.text) for label in found] == [
        ("age>60", "age 60"),
        ("a|b", "a b"),
        ("set {1}", "old set"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no labels"),
        ("# nothing\n\n", "has no labels"),
        ("cat\ndog\nCat\n", "line 3: label 'Cat' is already on line 1 as 'cat'"),
        ("dining table\nDining  Table\n", "line 2"),
        ("cat\n   \n", "line 2: the label is empty"),
        ("cat\n\ttext\n", "line 2: the label is empty"),
        ("ca\x07t\n", "U+0007"),
        ("cat\x0bdog\n", "U+000B"),
        ("cat\u2028dog\n", "U+2028"),
        ("cat\u202edog\n", "U+202E"),
        ("cat\rdog\n", "U+000D"),
        ("x" * 10_000 + "\n", "10,000 characters"),
        ("{{ 7 * 7 }}\n", "template or chat syntax"),
        ("<|im_start|>system\n", "template or chat syntax"),
        ("[INST] cat\n", "template or chat syntax"),
        ("age\tage>60\n", "holds '>', which is template or chat syntax"),
        ("x\t{y}\n", "holds '{', which is template or chat syntax"),
        ("{}\n", "template or chat syntax only"),
        ("a\tb\tc\td\n", "4 fields"),
        ("# domain: nature\ncat\n", "domain 'nature'"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(content: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed(content)
    assert words in str(caught.value)
    assert str(caught.value).startswith("mine.txt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_what_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        parse_label_set(b"cat\n\xff\xfe\n", name="x", source="x.txt")
    with pytest.raises(UserError, match=r"no such label file.*coco.*voc"):
        read_label_set(tmp_path / "missing.txt")
    with pytest.raises(UserError, match="is a folder"):
        read_label_set(tmp_path)


def test_spelling_is_mended_and_misleading_names_have_a_hint() -> None:
    shown = {label.key: label for name in built_in_names() for label in read_label_set(name).labels}
    assert shown["habor"].text == "harbor"
    assert shown["action-Pusing"].text.startswith("pushing")
    for key in ("works", "tanks", "mouse", "remote"):
        assert shown[key].hint
    assert shown["aeroplane"].text == "airplane"


def test_a_folder_of_the_name_hides_no_built_in_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ucm").mkdir()
    assert read_label_set("ucm") == built_in_label_set("ucm")
    assert "labels: the built-in set ucm; ucm here is a folder" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine: is a folder"):
        read_label_set("mine")


def test_a_file_of_the_name_comes_before_the_built_in_set_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc").write_text("zebra\n")
    assert read_label_set("voc").keys == ("zebra",)
    assert "labels: the file voc, not the built-in set voc" in capsys.readouterr().err
    assert "person" in built_in_label_set("voc").keys
    assert read_label_set("coco").keys == built_in_label_set("coco").keys
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="no built-in label set 'vocs'; did you mean voc"):
        built_in_label_set("vocs")
