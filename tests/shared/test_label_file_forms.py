"""Label files that are something else are recognised; odd labels are not."""

from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_file_forms import other_form
from sspa.shared.label_sets import built_in_names, read_label_set


@pytest.mark.parametrize(
    ("content", "ending", "form"),
    [
        ("cat,dog,horse\n", ".txt", "is a list in one line"),
        ("cat; dog", ".txt", "is a list in one line"),
        ('["cat", "dog"]', ".txt", "is JSON"),
        ('{"0": "cat"}', ".json", "is JSON"),
        ("names:\n  0: cat\n  1: dog\n", ".yaml", "is YAML"),
        ("names:\n  0: cat\n  1: dog\n", ".txt", "is YAML"),
        ("- cat\n- dog\n", ".txt", "is YAML"),
        ("1. cat\n2. dog\n", ".txt", "is a numbered list"),
        ("0: cat\n1: dog\n", ".txt", "is a numbered list"),
        ("1) cat\n\n2) dog\n", ".txt", "is a numbered list"),
        ("path,labels\n00.jpg,dog\n", ".csv", "is a table"),
        ("path;labels\n00.jpg;dog\n", ".txt", "is a table"),
        ("label,count\ncat,3\n", ".csv", "is a table"),
        ("cat\ndog\n", ".txt", None),
        ("cat\n", ".csv", None),
        ("sofa, couch\ncar, automobile\n", ".txt", None),
        ("cat\tdomestic cat\tthe animal\n", ".txt", None),
        ("# domain: natural\n[object]\n", ".txt", None),
        ("3. street\n3. avenue\n", ".txt", None),
        ("7up\n", ".txt", None),
        ("9" * 5000 + ". cat\n1. dog\n", ".txt", None),
        ("[" * 100_000, ".txt", None),
        ("ratio 1:2\nratio 2:1\n", ".txt", None),
        ("", ".txt", None),
    ],
)
def test_forms(content: str, ending: str, form: str | None) -> None:
    assert other_form(content, ending) == form


def test_a_label_file_in_another_form_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,labels\n00.jpg,dog\n")
    with pytest.raises(UserError, match=r"mine\.csv: is a table, not a label file; write one label per line"):
        read_label_set(tmp_path / "mine.csv")


@pytest.mark.parametrize("name", built_in_names())
def test_the_built_in_sets_are_label_files(name: str, tmp_path: Path) -> None:
    labels = read_label_set(name)
    (tmp_path / "copy.txt").write_text("\n".join(labels.keys))
    assert read_label_set(tmp_path / "copy.txt").keys == labels.keys
