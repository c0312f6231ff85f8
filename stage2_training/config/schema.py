"""The configuration's keys, and the messages about unknown keys and invalid values."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from sspa.shared.suggestions import nearest
from sspa.stage2_training.config.run_config import RunConfig


@dataclass(frozen=True)
class Variants:
    """A section with a variant per value of its `tag`, such as `loss` by `loss.kind`.

    Attributes:
        fields: the keys of each variant, by the tag's value.
    """

    tag: str
    default: str
    fields: Mapping[str, frozenset[str]]


@cache
def variant_sections() -> dict[str, Variants]:
    """The sections with variants, by name."""
    found = {}
    for name, field in RunConfig.model_fields.items():
        if isinstance(tag := field.discriminator, str):
            forms = {
                form.model_fields[tag].default: frozenset(form.model_fields) for form in get_args(field.annotation)
            }
            found[name] = Variants(tag, getattr(field.default, tag), forms)
    return found


@cache
def setting_keys() -> tuple[str, ...]:
    """All dotted keys that --set and --config accept."""
    return tuple(sorted(_keys(RunConfig.model_json_schema())))


def explained(kind: str, location: tuple[int | str, ...], value: Any, message: str) -> str:
    """One line for one of pydantic's errors, given its type, location, value and message."""
    key = _key_of(location)
    if kind == "missing" and key == "knowledge":
        return "no knowledge file is named: give --knowledge FILE (made by `sspa-knowledge generate`)"
    if kind == "extra_forbidden":
        return f"configuration: {_unknown_key(key, location)}"
    if kind == "union_tag_invalid":
        section = variant_sections()[key]
        chosen = value.get(section.tag) if isinstance(value, Mapping) else value
        return f"configuration: {key}.{section.tag} = {chosen!r}: take one of {', '.join(section.fields)}"
    below = sorted(known for known in setting_keys() if known.startswith(f"{key}."))
    if below and not isinstance(value, Mapping):
        return f"configuration: {key} = {value!r}: is a section, not a value; set its keys, such as {below[0]}"
    if isinstance(value, Mapping) and not below:
        return f"configuration: {key} is a value, not a section; it has no keys {', '.join(map(str, value))}"
    return f"configuration: {key} = {value!r}: {message}"


def _key_of(location: tuple[int | str, ...]) -> str:
    """The dotted key, without the variant of a section and what pydantic appends to a key (union members)."""
    sections = variant_sections()
    parts = [str(part) for place, part in enumerate(location) if not (place == 1 and location[0] in sections)]
    keys = set(setting_keys())
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in keys:
            return ".".join(parts[:length])
    return ".".join(parts)


def _unknown_key(key: str, location: tuple[int | str, ...]) -> str:
    section = variant_sections().get(str(location[0]))
    if section is not None and len(location) == 3:
        owners = [form for form, fields in section.fields.items() if location[2] in fields]
        if owners:
            name = f"{location[0]}.{section.tag}"
            return f"{key} belongs to {name}={' or '.join(owners)}, and {name} is {location[1]}"
    hint = nearest(key, setting_keys(), count=3, cutoff=0.5)
    return f"there is no key {key!r}; {hint or '`sspa-train settings` lists all'}"


def _keys(schema: dict[str, Any]) -> set[str]:
    definitions = schema.get("$defs", {})

    def walk(node: dict[str, Any], prefix: str) -> set[str]:
        found: set[str] = set()
        for name, child in node.get("properties", {}).items():
            options = [child, *child.get("anyOf", []), *child.get("oneOf", []), *child.get("allOf", [])]
            sections = [definitions[option["$ref"].rsplit("/", 1)[1]] for option in options if "$ref" in option]
            below = set[str]().union(*(walk(section, f"{prefix}{name}.") for section in sections))
            found |= below or {prefix + name}
        return found

    return walk(schema, "")
