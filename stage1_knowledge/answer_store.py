"""A user's answer cache: every answer ever received, by its content-addressed key, in one SQLite file.

It is shared across label files and outputs, and it is what the replay engine reads.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.engines.contract import Answer, Identity

FILE = "answers.sqlite"
_BLOCK = 500


class AnswerStore:
    """An open answer cache. Several runs may use one at a time."""

    def __init__(self, folder: Path, create: bool = True) -> None:
        """Open the cache in `folder`.

        Raises:
            UserError: the folder holds no cache and `create` is False, or the file is not an answer cache.
        """
        self.path = folder / FILE
        if not create and not self.path.is_file():
            raise UserError(f"{folder}: has no {FILE}; record one with `sspa-knowledge generate --cache {folder}`")
        with self._reported():
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=60)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL, finish TEXT NOT NULL, "
                "prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL) WITHOUT ROWID"
            )
            self._database.execute("CREATE TABLE IF NOT EXISTS identities (identity TEXT PRIMARY KEY) WITHOUT ROWID")
            self._database.commit()

    def find(self, keys: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """The known answers, in any order."""
        wanted = list(dict.fromkeys(keys))
        with self._reported():
            for start in range(0, len(wanted), _BLOCK):
                block = wanted[start : start + _BLOCK]
                marks = ",".join("?" * len(block))
                rows = self._database.execute(
                    f"SELECT key, text, finish, prompt_tokens, output_tokens FROM answers WHERE key IN ({marks})", block
                )
                for key, *values in rows.fetchall():
                    yield key, Answer(*values)

    def add(self, identity: Identity, answers: Iterable[tuple[str, Answer]]) -> None:
        """Store answers of an engine; one that is already known stays as it is."""
        rows = (
            (key, answer.text, answer.finish, answer.prompt_tokens, answer.output_tokens) for key, answer in answers
        )
        with self._reported(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", rows)
            known = json.dumps(asdict(identity), sort_keys=True)
            self._database.execute("INSERT OR IGNORE INTO identities VALUES (?)", (known,))

    def identities(self) -> list[Identity]:
        """Every engine and model that has answers in the cache."""
        with self._reported():
            rows = self._database.execute("SELECT identity FROM identities ORDER BY identity").fetchall()
            return [Identity(**json.loads(row[0])) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise UserError(f"{self.path}: the answer cache cannot be used ({error}); name another --cache") from error
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self.path}: holds what another version of sspa wrote ({error}); name another --cache"
            ) from error
