"""What `--set` and `--config` can say: the keys, defaults, values and meanings of all settings."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sspa.stage2_training.config.run_config import RunConfig

_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text", "null": "null"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: dotted, as in `--set key=value`.
        only_with: the choice that it belongs to, such as "model.head=sspa"; None if it always exists.
        default: as JSON.
        takes: which values, in words.
        meaning: one line.
    """

    key: str
    only_with: str | None
    default: str
    takes: str
    meaning: str


def list_settings(containing: str = "") -> list[Setting]:
    """All settings in the order of the configuration, or those that contain a text in their key or meaning."""
    schema = RunConfig.model_json_schema()
    wanted = containing.lower()
    return [
        setting
        for setting in _below(schema, schema["$defs"], "", None, {})
        if wanted in setting.key.lower() or wanted in setting.meaning.lower()
    ]


def _below(
    node: Mapping[str, Any],
    definitions: Mapping[str, Any],
    prefix: str,
    only_with: str | None,
    defaults: Mapping[str, Any],
) -> Iterator[Setting]:
    """`defaults` are those that the owner of this section gives it, where they differ from the section's own."""
    for name, child in node["properties"].items():
        key = f"{prefix}{name}"
        if "discriminator" in child:
            yield from _variants(child["discriminator"], child["default"], definitions, key)
        elif (below := _reference(child)) is not None:
            yield from _below(definitions[below], definitions, f"{key}.", only_with, child.get("default", {}))
        else:
            given = defaults.get(name, child.get("default"))
            default = "(needed)" if name in node.get("required", ()) else _as_json(given)
            yield Setting(key, only_with, default, _values(child), child.get("description", ""))


def _variants(
    discriminator: Mapping[str, Any], default: Mapping[str, Any], definitions: Mapping[str, Any], key: str
) -> Iterator[Setting]:
    tag, forms = discriminator["propertyName"], discriminator["mapping"]
    # The default's variant first, as everywhere.
    ordered = sorted(forms, key=lambda form: form != default[tag])
    meanings = "; ".join(f"{form}: {_title(definitions[_name(forms[form])])}" for form in ordered)
    yield Setting(f"{key}.{tag}", None, _as_json(default[tag]), " | ".join(ordered), meanings)
    for form in ordered:
        section = definitions[_name(forms[form])]
        others = {name: child for name, child in section["properties"].items() if name != tag}
        yield from _below({**section, "properties": others}, definitions, f"{key}.", f"{key}.{tag}={form}", {})


def _title(section: Mapping[str, Any]) -> str:
    """The first sentence of an options class, which names the method."""
    first: str = section["description"].splitlines()[0]
    return first.partition("; ")[0].rstrip(".")


def _reference(child: Mapping[str, Any]) -> str | None:
    return _name(child["$ref"]) if "$ref" in child else None


def _name(reference: str) -> str:
    return reference.rsplit("/", 1)[1]


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _values(child: Mapping[str, Any]) -> str:
    if options := child.get("anyOf"):
        return " or ".join(dict.fromkeys(map(_values, options)))
    if "enum" in child:
        return " | ".join(map(str, child["enum"]))
    if "const" in child:
        return str(child["const"])
    if child["type"] == "array":
        of = child.get("items") or child["prefixItems"][0]
        count = child.get("minItems") if child.get("minItems") == child.get("maxItems") else None
        return f"[{', '.join([_values(of)] * count)}]" if count else f"list of {_values(of)}"
    return _TYPES[child["type"]] + _range(child)


def _range(child: Mapping[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    said = [f"{word} {child[bound]:g}" for bound, word in words.items() if bound in child and child[bound] < 10**9]
    if "multipleOf" in child:
        said.append(f"in steps of {child['multipleOf']:g}")
    return f" {' '.join(said)}" if said else ""
