"""Answers that another version of the program kept: one line, and nothing is lost."""

import json
import sqlite3
import zlib
from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.answer_store import FILE, AnswerStore
from sspa.stage1_knowledge.engines.contract import Answer, Identity
from sspa.stage1_knowledge.journal import Journal, read_journal


def test_a_cache_with_other_identities_or_columns(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    store.add(Identity("scripted 1", "teller"), [("key", Answer("A cat.", "stop", 1, 1))])
    store.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("INSERT INTO identities VALUES (?)", (json.dumps({"engine": "x", "weights": "y"}),))
    database.close()
    store = AnswerStore(tmp_path)
    with pytest.raises(UserError, match=rf"{FILE}: holds what another version of sspa wrote .*name another --cache"):
        store.identities()
    assert [answer.text for _, answer in store.find(["key"])] == ["A cat."]
    store.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("ALTER TABLE answers RENAME COLUMN finish TO ending")
    database.close()
    store = AnswerStore(tmp_path)
    with pytest.raises(UserError, match=r"the answer cache cannot be used \(no such column: finish\)"):
        list(store.find(["key"]))
    store.close()


@pytest.mark.parametrize("values", [{"question": "k", "text": "A cat."}, ["k", "A cat."], {"key": "k", "text": "t"}])
def test_a_journal_of_another_version(tmp_path: Path, values: object) -> None:
    path = tmp_path / "voc.parquet.journal"
    content = json.dumps(values).encode()
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(content), content))
    before = path.read_bytes()
    for opened in (read_journal, Journal):
        with pytest.raises(UserError, match=r"line 1: was not written by this version of sspa; finish with"):
            opened(path)
    assert path.read_bytes() == before
