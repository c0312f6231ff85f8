"""What is compared: variants of one configuration, over seeds, from a small YAML file."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from sspa.shared.errors import UserError
from sspa.stage2_training.model.options import Options


class Comparison(Options):
    """One comparison.

    `settings` holds for every variant and `variants` maps a name to its own settings over those, both
    as dotted keys of a run's configuration. `settings` gives way to what a user sets for all runs; a
    variant's own settings do not. `reference` is the variant that the others are set against.
    """

    about: str
    reference: str
    settings: dict[str, Any] = {}
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=2)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)

    @model_validator(mode="after")
    def _reference_is_a_variant(self) -> "Comparison":
        if self.reference not in self.variants:
            raise ValueError(f"reference {self.reference!r} is none of the variants {', '.join(self.variants)}")
        return self

    def only(self, names: Sequence[str]) -> "Comparison":
        """The same with fewer variants; the reference stays.

        Raises:
            UserError: one of `names` is not a variant.
        """
        for name in names:
            if name not in self.variants:
                raise UserError(f"there is no variant {name!r}; there are {', '.join(self.variants)}")
        kept = {name: own for name, own in self.variants.items() if name in names or name == self.reference}
        return self.model_copy(update={"variants": kept})


def ready_names() -> tuple[str, ...]:
    """The comparisons that come with the program."""
    files = resources.files("sspa.stage2_training.comparison").joinpath("ready").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def read_comparison(name_or_file: str) -> Comparison:
    """A ready-made comparison by name, or one of the user's own (*.yaml).

    Raises:
        UserError: there is none of that name, or the file is wrong.
    """
    if name_or_file.endswith((".yaml", ".yml")):
        try:
            text = Path(name_or_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{name_or_file}: cannot be read ({error})") from error
    elif name_or_file in ready_names():
        text = (
            resources.files("sspa.stage2_training.comparison")
            .joinpath("ready", f"{name_or_file}.yaml")
            .read_text(encoding="utf-8")
        )
    else:
        near = difflib.get_close_matches(name_or_file, ready_names(), n=1)
        hint = f"did you mean {near[0]}" if near else "known are " + ", ".join(ready_names())
        raise UserError(f"there is no comparison {name_or_file!r}; {hint}, or give the path of a YAML file")
    try:
        tree = yaml.safe_load(text)
        return Comparison.model_validate(tree)
    except yaml.YAMLError as error:
        raise UserError(f"{name_or_file}: is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{name_or_file}: {where + ': ' if where else ''}{first['msg']}") from error
