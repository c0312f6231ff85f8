"""The definition of a comparison: variants of a configuration, over seeds and data, from a small YAML file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from sspa.shared.errors import UserError
from sspa.shared.suggestions import nearest_or_all
from sspa.shared.yaml_files import parse_yaml, read_yaml
from sspa.stage2_training.model.options import Options


def _dotted(tree: Any, path: str = "") -> Any:
    """{"model": {"qsm": {"layers": 3}}} -> {"model.qsm.layers": 3}; dotted keys stay as they are."""
    if tree is None and not path:
        return {}
    if not isinstance(tree, dict) or (not tree and path):
        return {path: tree} if path else tree
    return {
        key: value
        for name, child in tree.items()
        for key, value in _dotted(child, f"{path}.{name}" if path else str(name)).items()
    }


def _named(tree: Any) -> Any:
    """A name, or a list of names, as a mapping of names to empty settings."""
    if isinstance(tree, str):
        return {tree: {}}
    return {name: {} for name in tree} if isinstance(tree, list) else tree


# Dotted keys of a run's configuration, with their values.
Settings = Annotated[dict[str, Any], BeforeValidator(_dotted)]
# Names become part of folder names, and of lists on the command line.
Name = Annotated[str, Field(pattern=r"^[^./\\,\x00-\x1f][^/\\,\x00-\x1f]*$")]


def short_name(data: str) -> str:
    """A data set's name in titles and folder names: of a manifest, that of its file."""
    return Path(data).name.removesuffix(".parquet").removesuffix(".manifest")


@dataclass(frozen=True)
class Group:
    """Runs that are compared with each other: one data set under one condition ("" if there is only one)."""

    data: str
    condition: str
    settings: dict[str, Any] = field(compare=False)

    @property
    def title(self) -> str:
        """Its name in tables; "" if there is only one."""
        return ", ".join(part for part in (short_name(self.data), self.condition) if part)


class Comparison(Options):
    """One comparison: every variant with every seed, for every data set under every condition.

    `settings` applies to every run and is overridden by what the user sets for all of them, which in turn is
    overridden by the settings under `data`, then `conditions`, then `variants`. `data` can be a list of data sets, or
    map each to its own settings; if it is left out, the command line names the one data set. A variant can be trained
    on a control of its knowledge: `knowledge: control:shuffled`. `reference` is the variant that the others are
    compared with, for the same data and condition.
    """

    about: str
    reference: str
    settings: Settings = {}
    data: Annotated[dict[str, Settings], BeforeValidator(_named)] = {}
    conditions: dict[Name, Settings] = {}
    variants: Annotated[dict[Name, Settings], Field(min_length=2)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)

    @model_validator(mode="after")
    def _reference_is_a_variant(self) -> "Comparison":
        if self.reference not in self.variants:
            raise ValueError(f"reference {self.reference!r} is none of the variants {', '.join(self.variants)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} hold one twice")
        return self

    def groups(self) -> list[Group]:
        """Every data set under every condition."""
        data = {name: {"data.name": name, **own} for name, own in self.data.items()} or {"": {}}
        conditions = self.conditions or {"": {}}
        return [
            Group(name, condition, {**of_data, **of_condition})
            for name, of_data in data.items()
            for condition, of_condition in conditions.items()
        ]

    def only(self, variants: Sequence[str] | None = None, conditions: Sequence[str] | None = None) -> "Comparison":
        """The same comparison with fewer variants (the reference is kept) or fewer conditions.

        Raises:
            UserError: one of them does not exist.
        """
        kept = {}
        for kind, names in (("variants", variants), ("conditions", conditions)):
            there = getattr(self, kind)
            for name in names or ():
                if name not in there:
                    raise UserError(f"there is no {kind[:-1]} {name!r}; there are {', '.join(there) or 'none'}")
            if names is not None:
                wanted = {*names, self.reference} if kind == "variants" else {*names}
                kept[kind] = {name: own for name, own in there.items() if name in wanted}
        return self.model_copy(update=kept)

    def with_reference(self, name: str) -> "Comparison":
        """The same comparison with another reference variant.

        Raises:
            UserError: there is no such variant.
        """
        if name not in self.variants:
            raise UserError(f"--reference {name}: there is no such variant; there are {', '.join(self.variants)}")
        return self.model_copy(update={"reference": name})

    def with_seeds(self, text: str) -> "Comparison":
        """The same comparison with the seeds that `text` lists, as in "0,1,2".

        Raises:
            UserError: they are not distinct non-negative integers.
        """
        seeds = [word.strip() for word in text.split(",")]
        if not all(word.isdecimal() for word in seeds) or len(set(map(int, seeds))) < len(seeds):
            raise UserError(f"--seeds {text}: write different whole numbers, as in 0,1,2")
        return self.model_copy(update={"seeds": tuple(map(int, seeds))})


def ready_names() -> tuple[str, ...]:
    """The names of the comparisons that ship with the program."""
    files = resources.files("sspa.stage2_training.comparison").joinpath("ready").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def read_comparison(name_or_file: str) -> Comparison:
    """A ready-made comparison by name, or a user's own (*.yaml).

    Raises:
        UserError: there is none of that name, or the file is invalid.
    """
    if name_or_file.endswith((".yaml", ".yml")):
        tree = read_yaml(Path(name_or_file))
    elif name_or_file in ready_names():
        ready = resources.files("sspa.stage2_training.comparison").joinpath("ready", f"{name_or_file}.yaml")
        tree = parse_yaml(ready.read_text(encoding="utf-8"), name_or_file)
    else:
        hint = nearest_or_all(name_or_file, ready_names())
        raise UserError(f"there is no comparison {name_or_file!r}; {hint} Your own is named by its path (*.yaml)")
    try:
        return Comparison.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{name_or_file}: {where + ': ' if where else ''}{first['msg']}") from error
