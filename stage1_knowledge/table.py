"""Rows of the knowledge table: reading those of an earlier run, and building those of this one."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from sspa.shared.knowledge_format import COLUMNS, arrow_schema, read_table, write_knowledge
from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.asking import Asker, Question
from sspa.stage1_knowledge.clip_tokens import clip_tokens
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.journal import answer_from_dict, answer_to_dict
from sspa.stage1_knowledge.near_duplicates import near_duplicates
from sspa.stage1_knowledge.prompt import Prompt
from sspa.stage1_knowledge.verdicts import NEAR_DUPLICATE

# Created once: json.dumps would create one for each of hundreds of thousands of rows.
_ENCODER = json.JSONEncoder(ensure_ascii=False)


class StoredTable:
    """The rows of an earlier run, looked up by the question's key, or by label and sample if a person wrote them."""

    def __init__(self, table: pa.Table, content_hash: str) -> None:
        self._table, self.content_hash, self.count = table, content_hash, table.num_rows
        self._lists: dict[str, list[Any]] = {}
        self._by_key: dict[str, int] = {}
        # Labels with the same text and hint share the key of their question, but each has its own row.
        self._twins: dict[tuple[str, str], int] = {}
        for row, key in enumerate(self.column("key")):
            if key and self._by_key.setdefault(key, row) != row:
                self._twins[self.column("label")[row], key] = row
        self._by_hand = {
            (self.column("label")[row], self.column("sample")[row]): row
            for row, origin in enumerate(self.column("origin"))
            if origin == "human"
        }

    @classmethod
    def read(cls, path: Path) -> "StoredTable":
        """Read and verify an earlier output.

        Raises:
            UserError: it is no knowledge file of this version.
        """
        return cls(*read_table(path))

    def column(self, name: str) -> list[Any]:
        """A column as a list, built on first use, with one object per distinct value."""
        if name not in self._lists:
            encoded = self._table[name].combine_chunks().dictionary_encode()
            if isinstance(encoded, pa.ChunkedArray):
                encoded = encoded.combine_chunks()
            values = encoded.dictionary.to_pylist()
            self._lists[name] = [values[index] for index in encoded.indices.to_pylist()]
        return self._lists[name]

    def find(self, label: Label, sample: int, key: str) -> int | None:
        """The row a person wrote for this label and sample, else the row with this key, else None."""
        if (row := self._by_hand.get((label.key, sample))) is None:
            row = self._twins.get((label.key, key), self._by_key.get(key))
        return row

    def origin(self, row: int) -> str:
        """model, human or control."""
        return self.column("origin")[row]

    def is_settled(self, row: int, retries: int) -> bool:
        """False where a doubtful answer may still be asked again."""
        good = self.column("verdict")[row] == "good" or self.column("reason")[row].startswith(NEAR_DUPLICATE)
        return good or self.column("attempts")[row] > retries

    def is_about(self, row: int, label: Label, domain: str) -> bool:
        """False where the same question now belongs to a label of another name."""
        found = tuple(self.column(name)[row] for name in ("label", "text", "hint", "domain"))
        return found == (label.key, label.text, label.hint, domain)

    def answers(self, row: int) -> list[Answer]:
        """All answers of the row's question so far."""
        return [answer_from_dict(values) for values in json.loads(self.column("answers")[row])]

    def doubtful_reasons(self) -> list[str]:
        """The reason of each doubtful description."""
        return doubtful_reasons(self.column("verdict"), self.column("reason"))

    def rows_without(self, kept: set[int], keys: set[str]) -> list[int]:
        """The rows that are neither kept nor answers to one of these questions."""
        return [row for row in range(self.count) if row not in kept and self.column("key")[row] not in keys]


class Writer:
    """Collects rows as columns, judges what only the whole table shows, and writes."""

    def __init__(self, domain: str, prompt: Prompt, form: str, sampling: Sampling, identity: Identity) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name, _, _ in COLUMNS}
        self._sampling, self._sampling_texts = sampling, dict[int, str]()
        self._domain = domain
        self._same = {
            "origin": "model",
            "model": identity.model,
            "revision": identity.revision,
            "quantisation": identity.quantisation,
            "engine": identity.engine,
            "prompt": prompt.name,
            "prompt_hash": prompt.hash,
            "answer_form": form,
            "clip_tokens": 0,
            "clip_cut": "",
        }

    def add_stored(self, stored: StoredTable, row: int) -> None:
        """Copy a row unchanged."""
        for name, values in self._columns.items():
            values.append(stored.column(name)[row])
        if self._columns["reason"][-1].startswith(NEAR_DUPLICATE):
            self._columns["verdict"][-1], self._columns["reason"][-1] = "good", ""

    def add_question(self, question: Question, asker: Asker) -> None:
        """Add a settled question."""
        settled = question.settled
        if settled is None:
            raise RuntimeError(f"{question.label.key!r}, sample {question.sample}: not settled")
        seed, room = asker.draw(question, settled.attempt)
        row = {
            **self._same,
            "label": question.label.key,
            "text": question.label.text,
            "hint": question.label.hint,
            "domain": self._domain,
            "sample": question.sample,
            "description": settled.description,
            "verdict": "good" if settled.verdict.good else "doubtful",
            "reason": settled.verdict.reason,
            "attempts": len(question.answers),
            "answers": _ENCODER.encode([answer_to_dict(answer) for answer in question.answers]),
            "sampling": self._sampling_json(room),
            "seed": seed,
            "key": question.key,
        }
        for name, values in self._columns.items():
            values.append(row[name])

    def write(self, path: Path) -> list[str]:
        """Judge the table as a whole and write it; the writer cannot be used again.

        Returns:
            The reason of each doubtful description.
        """
        self._mark_near_duplicates()
        reasons = doubtful_reasons(self._columns["verdict"], self._columns["reason"])
        count_clip_tokens(self._columns)
        # Each list is freed as its column is built: together they are as large as the table itself.
        arrays = [pa.array(self._columns.pop(field.name), field.type) for field in arrow_schema()]
        write_knowledge(path, pa.table(arrays, schema=arrow_schema()))
        return reasons

    def _sampling_json(self, room: int) -> str:
        if room not in self._sampling_texts:
            sampling = self._sampling
            values = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "repetition_penalty": sampling.repetition_penalty,
                "max_tokens": room,
            }
            self._sampling_texts[room] = json.dumps(values)
        return self._sampling_texts[room]

    def _mark_near_duplicates(self) -> None:
        columns = self._columns
        found = near_duplicates(columns["label"], columns["text"], columns["description"])
        for row, (other, index) in found.items():
            # What a person wrote is that person's decision; what is doubtful already keeps its reason.
            if columns["verdict"][row] == "good" and columns["origin"][row] == "model":
                named = f"{NEAR_DUPLICATE}{columns['label'][other]}'s"
                columns["verdict"][row] = "doubtful"
                columns["reason"][row] = f"{named}: {index:.0%} of the words in common"


def doubtful_reasons(verdicts: list[str], reasons: list[str]) -> list[str]:
    """The reason of each doubtful row."""
    return [reason for verdict, reason in zip(verdicts, reasons, strict=True) if verdict != "good"]


def count_clip_tokens(columns: dict[str, list[Any]]) -> None:
    """Fill `clip_tokens` and `clip_cut` of the rows that were not counted yet."""
    uncounted = [row for row, count in enumerate(columns["clip_tokens"]) if not count]
    counted = clip_tokens(
        [columns["text"][row] for row in uncounted], [columns["description"][row] for row in uncounted]
    )
    for row, (count, cut) in zip(uncounted, counted, strict=True):
        columns["clip_tokens"][row], columns["clip_cut"][row] = count, cut
