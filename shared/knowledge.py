"""Knowledge as stage two reads it: the descriptions of each label, in the order of its own labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import content_hash, read_table
from sspa.shared.label_sets import Label, LabelSet, fold


@dataclass(frozen=True)
class Knowledge:
    """The contents of a knowledge file.

    `descriptions` maps a label's key to its descriptions in sample order. `content_hash` (hex) covers keys,
    texts and descriptions, but neither their order nor their provenance. `by_hand` names the descriptions that a
    person wrote or corrected: the label's key, and the position among its descriptions.
    """

    path: Path
    labels: tuple[Label, ...]
    domain: str
    content_hash: str
    descriptions: Mapping[str, tuple[str, ...]]
    by_hand: frozenset[tuple[str, int]] = frozenset()

    def for_labels(self, keys: Sequence[str]) -> "Knowledge":
        """The knowledge of these labels only, in this order; the hash is recomputed.

        Raises:
            UserError: a label has no knowledge; the message names all such labels and how to get theirs.
        """
        known = {label.key: label for label in self.labels}
        if missing := [key for key in keys if key not in known]:
            named = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            raise UserError(
                f"{self.path}: has no knowledge about {named}; add the missing labels to the label file and run "
                f"`sspa-knowledge generate --labels FILE --output {self.path}` again (the others are not asked again)"
            )
        return _knowledge(
            self.path,
            tuple(known[key] for key in keys),
            self.domain,
            {key: self.descriptions[key] for key in keys},
            self.by_hand,
        )

    def with_labels(self, more: Mapping[Label, str]) -> "Knowledge":
        """This knowledge followed by further labels, each with a description or "".

        Raises:
            UserError: a further label exists already, also after folding case and spaces.
        """
        known = {fold(label.key): label.key for label in self.labels}
        for label in more:
            if fold(label.key) in known:
                raise UserError(f"label {label.key!r} exists already, as {known[fold(label.key)]!r}; name another")
            known[fold(label.key)] = label.key
        return _knowledge(
            self.path,
            (*self.labels, *more),
            self.domain,
            {**self.descriptions, **{label.key: (description,) for label, description in more.items()}},
            self.by_hand,
        )


def read_knowledge(path: Path) -> Knowledge:
    """Read a knowledge file, verifying checksums, schema and content hash.

    Raises:
        UserError: the file is missing, truncated, damaged, of another schema, or breaks the contract.
    """
    table, _ = read_table(path)
    columns = {name: table[name].to_pylist() for name in ("label", "text", "hint", "description", "origin")}
    labels: dict[str, Label] = {}
    descriptions: dict[str, list[str]] = {}
    by_hand = set()
    for key, text, hint, description, origin in zip(*columns.values(), strict=True):
        labels.setdefault(key, Label(key=key, text=text, hint=hint))
        of_label = descriptions.setdefault(key, [])
        if origin == "human":
            by_hand.add((key, len(of_label)))
        of_label.append(description)
    return _knowledge(
        path,
        tuple(labels.values()),
        table["domain"][0].as_py(),
        {key: tuple(kept) for key, kept in descriptions.items()},
        frozenset(by_hand),
    )


def names_only(labels: LabelSet) -> Knowledge:
    """Labels without descriptions: their prompts consist of the bare name."""
    return _knowledge(Path(labels.name), labels.labels, labels.domain, dict.fromkeys(labels.keys, ("",)))


def _knowledge(
    path: Path,
    labels: tuple[Label, ...],
    domain: str,
    descriptions: Mapping[str, tuple[str, ...]],
    by_hand: frozenset[tuple[str, int]] = frozenset(),
) -> Knowledge:
    rows = [
        (label.key, label.text, sample, description)
        for label in labels
        for sample, description in enumerate(descriptions[label.key])
    ]
    keys, texts, samples, kept = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Knowledge(
        path=path,
        labels=labels,
        domain=domain,
        content_hash=content_hash(keys, texts, samples, kept),
        descriptions=MappingProxyType(dict(descriptions)),
        by_hand=by_hand,
    )
