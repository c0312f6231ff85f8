"""Columns against the tuples they stand for."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sspa.stage2_training.data import columns
from sspa.stage2_training.data.columns import Paths, Texts

WORDS = ("b", "", "a", "Ünïcödé", "b", "x/../y", "with\nline", "\0")


@pytest.fixture
def texts() -> Texts:
    return Texts(WORDS)


def test_a_column_is_a_sequence_like_the_tuple(texts: Texts) -> None:
    assert (tuple(texts), len(texts), texts[3], texts[-1]) == (WORDS, len(WORDS), WORDS[3], WORDS[-1])
    assert tuple(texts[1:6:2]) == WORDS[1:6:2]
    assert texts == WORDS
    assert texts != WORDS[:-1]
    assert texts != (*WORDS[:-1], "c")
    assert texts[2:] == Texts(WORDS[2:])
    assert texts.index("a") == WORDS.index("a")
    assert texts.count("b") == 2
    assert not Texts(())
    with pytest.raises(IndexError):
        texts[len(WORDS)]


def test_it_is_made_of_anything_that_yields_strings(texts: Texts) -> None:
    chunked = pa.chunked_array([WORDS[:3], WORDS[3:]], pa.string())
    assert Texts(word for word in WORDS) == Texts(list(WORDS)) == Texts(chunked) == texts
    assert pickle.loads(pickle.dumps(texts[1:3])) == WORDS[1:3]
    assert len(pickle.dumps(Texts(map(str, range(100_000)))[10:20])) < 1000
    with pytest.raises(UnicodeEncodeError):
        Texts(["lone surrogate \ud800"])


def test_iteration_crosses_the_borders_of_its_chunks() -> None:
    many = tuple(map(str, range(20_000)))
    assert tuple(Texts(many)) == many


def test_what_is_asked_of_a_column(texts: Texts) -> None:
    rows = np.array([5, 0, 0, 3])
    assert texts.take(rows) == tuple(WORDS[row] for row in rows)
    assert texts.take(rows[:0]) == ()
    assert texts.equal_to("b").tolist() == [word == "b" for word in WORDS]
    assert texts.distinct() == list(dict.fromkeys(WORDS))
    assert texts.first_repeated() == (1, "b")
    assert texts[1:].first_repeated() is None
    assert texts.rows_matching(r"\.\.|\x00").tolist() == [5, 7]
    assert texts.is_in(Texts(("b", "a", "absent"))).tolist() == [word in ("b", "a") for word in WORDS]
    assert not texts.is_in(Texts(())).any()
    assert texts.replaced("/[^/]*$", "!") == tuple(word.replace("/y", "!") for word in WORDS)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_json_of_a_column_is_that_of_the_list(texts: Texts, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(columns, "_CHUNK", chunk)
    for words in (WORDS, ("plain", "a b", "~ !"), ("plain", "", 'a "quote"', "back\\slash", "tab\t", "\x7f"), ()):
        assert b"".join(Texts(words).json_list()).decode() == json.dumps(list(words))
    assert b"".join(texts[2:4].json_list()).decode() == json.dumps(list(WORDS[2:4]))


def test_paths_are_made_below_their_root(texts: Texts) -> None:
    paths = Paths(Path("/data"), texts[2:5])
    assert paths == (Path("/data/a"), Path("/data/Ünïcödé"), Path("/data/b"))
    assert (paths[0], paths[-1], paths[1:]) == (Path("/data/a"), Path("/data/b"), Paths(Path("/data"), texts[3:5]))
    assert paths != Paths(Path("/other"), texts[2:5])
    assert pickle.loads(pickle.dumps(paths)) == paths
