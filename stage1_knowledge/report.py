"""Reports on a table, and the differences between two, as text."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import SCHEMA_VERSION, read_table
from sspa.stage1_knowledge.clip_tokens import CONTEXT
from sspa.stage1_knowledge.generation import run_record_path
from sspa.stage1_knowledge.near_duplicates import THRESHOLD, word_overlap
from sspa.stage1_knowledge.verdicts import judge, kind_of

_TEXTS = ("text", "hint")
# The settings that can make two rows of one label differ, in the order they are reported.
_SETTINGS = ("origin", "model", "revision", "quantisation", "prompt", "prompt_hash", "answer_form", "domain")


def report(path: Path) -> str:
    """Verdicts, retries, tokens and the doubtful descriptions of a table, and the speed of the run that made it."""
    rows = read_table(path)[0].to_pylist()
    good = sum(row["verdict"] == "good" for row in rows)
    retried = sum(row["attempts"] > 1 for row in rows)
    cut = [row for row in rows if row["clip_cut"]]
    lines = [
        f"{path}: {len(rows)} descriptions of {len({row['label'] for row in rows})} labels",
        f"verdicts   {good} good ({good / len(rows):.0%}), {len(rows) - good} doubtful ({1 - good / len(rows):.0%})",
        f"retried    {retried} ({retried / len(rows):.0%}), {sum(row['attempts'] for row in rows)} answers in all",
        "origin     " + ", ".join(f"{count} {name}" for name, count in Counter(r["origin"] for r in rows).items()),
        f"CLIP       {max(row['clip_tokens'] for row in rows)} of {CONTEXT} tokens at most, {len(cut)} cut short",
    ]
    lines += _diversity(rows)
    lines += _speed(path)
    kinds = Counter(kind_of(row["reason"]) for row in rows if row["verdict"] != "good")
    for kind, count in kinds.most_common():
        lines.append(f"doubtful   {count} {kind}")
    for row in rows:
        if row["verdict"] != "good":
            lines.append(f"  {row['label']}: {row['description'] or '(empty)'}  [{row['reason']}]")
    for row in cut:
        lines.append(f"  {row['label']}: {row['clip_tokens']} tokens, CLIP does not read {row['clip_cut']!r}")
    return "\n".join(lines)


def _diversity(rows: list[dict[str, Any]]) -> list[str]:
    """How different the descriptions of the same label are; nothing where each label has one."""
    of_label: dict[str, list[str]] = {}
    for row in rows:
        if row["description"]:
            of_label.setdefault(row["label"], []).append(row["description"])
    several = [texts for texts in of_label.values() if len(texts) > 1]
    if not several:
        return []
    overlaps = [word_overlap(*pair) for texts in several for pair in combinations(texts, 2)]
    repeated = sum(
        any(word_overlap(text, earlier) >= THRESHOLD for earlier in texts[:place])
        for texts in several
        for place, text in enumerate(texts)
    )
    return [
        f"diversity  two descriptions of a label share {sum(overlaps) / len(overlaps):.0%} of their words on average; "
        f"{repeated} nearly repeat an earlier one of their label"
    ]


def _speed(path: Path) -> list[str]:
    record_path = run_record_path(path)
    if not record_path.is_file():
        return []
    try:
        run = json.loads(record_path.read_bytes())
        asking = max(run["seconds_asking"] - run["seconds_to_first_answer"], 1e-3)
        share = run["cached_prompt_tokens"] / max(run["prompt_tokens"], 1)
        return [
            f"last run   {run['finished']} on {run['host']}: {run['answers']} answers in {run['seconds']:.1f} s, "
            f"the first after {run['seconds_to_first_answer']:.1f} s",
            f"tokens     {run['output_tokens']} written, {run['output_tokens'] / asking:.1f} per second after the "
            f"first answer; {share:.0%} of {run['prompt_tokens']} prompt tokens from the prefix cache",
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record_path}: damaged ({error}); remove it, the knowledge itself is not in it") from error


def check(path: Path) -> str:
    """Verify a table (page checksums, schema, contract, content hash), then judge each model's description again.

    Raises:
        UserError: the file is damaged or breaks the contract.
    """
    table, content_hash = read_table(path)
    rows = table.to_pylist()
    doubtful = sum(row["verdict"] != "good" for row in rows)
    lines = [f"{path}: sound; {len(rows)} rows, schema version {SCHEMA_VERSION}, content hash {content_hash}"]
    changed = 0
    for row in rows:
        if row["origin"] != "model" or not _plain(row):
            continue
        verdict = judge(row["description"], row["text"])
        if not verdict.good and row["verdict"] == "good":
            changed += 1
            lines.append(f"  {row['label']}, sample {row['sample']}: good in the file, today {verdict.reason}")
    lines.append(
        f"{doubtful} doubtful in the file; {changed} more by today's rules (`generate --rejudge` applies them)"
    )
    return "\n".join(lines)


def _plain(row: dict[str, Any]) -> bool:
    """True if the description alone decides: a sentence, not something composed from fields."""
    return row["answer_form"] in ("", "sentence")


def diff(first: Path, second: Path) -> str:
    """Per label, what changed between two tables, and what did it: an edit, or which settings."""
    old, new = (_by_place(path) for path in (first, second))
    lines = []
    for place in [*old, *(place for place in new if place not in old)]:
        name = place[0] if place[1] == 0 else f"{place[0]} (sample {place[1]})"
        if place not in new:
            lines.append(f"- {name}: only in {first}")
        elif place not in old:
            lines.append(f"+ {name}: only in {second}: {new[place]['description']}")
        elif old[place]["description"] != new[place]["description"] or old[place]["text"] != new[place]["text"]:
            lines.append(f"~ {name}: {'; '.join(_causes(old[place], new[place]))}")
            lines += [f"    - {old[place]['description']}", f"    + {new[place]['description']}"]
    same = len(set(old) & set(new)) - sum(line.startswith("~") for line in lines)
    return "\n".join([*lines, f"{same} descriptions are the same"])


def _by_place(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["label"], row["sample"]): row for row in read_table(path)[0].to_pylist()}


def _causes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    def changed(names: Sequence[str]) -> list[str]:
        return [f"{name} {_short(old[name])} -> {_short(new[name])}" for name in names if old[name] != new[name]]

    if "human" in (old["origin"], new["origin"]):
        # A row that a person wrote has no settings, which is no difference in settings.
        written = "edited by a person" if new["origin"] == "human" else "a person's, now the model's"
        return [written, *changed(_TEXTS)]
    causes = changed(_SETTINGS)
    before, after = json.loads(old["sampling"]), json.loads(new["sampling"])
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            causes.append(f"{name} {before.get(name)} -> {after.get(name)}")
    causes += changed((*_TEXTS, "seed", "engine"))
    return causes or ["the same settings gave another answer"]


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 24 else text[:12] + "...") if text else "nothing"
