"""Knowledge as stage two reads it: the sentences of each label, in the order of its own labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import content_hash, read_table
from sspa.shared.label_sets import Label, LabelSet, fold


@dataclass(frozen=True)
class Knowledge:
    """The sentences a knowledge file holds.

    `sentences` maps a label's key to its sentences in sample order. `content_hash` (hex) covers labels,
    texts and sentences, not their order nor where they came from.
    """

    path: Path
    labels: tuple[Label, ...]
    domain: str
    content_hash: str
    sentences: Mapping[str, tuple[str, ...]]

    def for_labels(self, keys: Sequence[str]) -> "Knowledge":
        """The same knowledge for these labels, in this order. The hash is that of what remains.

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
            {key: self.sentences[key] for key in keys},
        )

    def with_labels(self, more: Mapping[Label, str]) -> "Knowledge":
        """The same knowledge and, after it, further labels, each with a sentence or "".

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
            {**self.sentences, **{label.key: (sentence,) for label, sentence in more.items()}},
        )


def read_knowledge(path: Path) -> Knowledge:
    """Read a knowledge file, verifying checksums, schema and content hash.

    Raises:
        UserError: the file is missing, cut short, damaged, of another schema, or breaks the contract.
    """
    table, _ = read_table(path)
    columns = {name: table[name].to_pylist() for name in ("label", "text", "hint", "description")}
    labels: dict[str, Label] = {}
    sentences: dict[str, list[str]] = {}
    for key, text, hint, sentence in zip(*columns.values(), strict=True):
        labels.setdefault(key, Label(key=key, text=text, hint=hint))
        sentences.setdefault(key, []).append(sentence)
    domain = table["domain"][0].as_py()
    return _knowledge(path, tuple(labels.values()), domain, {key: tuple(kept) for key, kept in sentences.items()})


def names_only(labels: LabelSet) -> Knowledge:
    """Labels without a sentence: their prompts hold the bare name."""
    return _knowledge(Path(labels.name), labels.labels, labels.domain, dict.fromkeys(labels.keys, ("",)))


def _knowledge(
    path: Path, labels: tuple[Label, ...], domain: str, sentences: Mapping[str, tuple[str, ...]]
) -> Knowledge:
    rows = [
        (label.key, label.text, sample, sentence)
        for label in labels
        for sample, sentence in enumerate(sentences[label.key])
    ]
    keys, texts, samples, kept = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Knowledge(
        path=path,
        labels=labels,
        domain=domain,
        content_hash=content_hash(keys, texts, samples, kept),
        sentences=MappingProxyType(dict(sentences)),
    )
