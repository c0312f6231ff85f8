"""Resolves a run's configuration: a preset, then files, then `--set`, then options; later sources override earlier."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sspa.shared.errors import UserError
from sspa.shared.yaml_files import parse_yaml
from sspa.stage2_training.backbones.backbone_names import check_name
from sspa.stage2_training.backbones.hub_models import pinned
from sspa.stage2_training.config.presets import preset_of, preset_settings
from sspa.stage2_training.config.run_config import OWN_TEACHER, RunConfig, TeacherOptions
from sspa.stage2_training.config.schema import explained, variant_sections
from sspa.stage2_training.config.trees import Tree, flat, nested, overridden, read_tree

# Keys without effect on the result. Knowledge is compared by content hash instead of path, and the effect of a preset
# is in the other keys.
_WITHOUT_EFFECT = frozenset(
    {"data.workers", "knowledge", "preset", "training.checkpoint_every", "training.tensorboard"}
)
# What runs did before there was an option for it: they used all descriptions, and two branches with equal shares.
_EARLIER = {
    "model": {"kap": {"select": "all", "keep": None}, "knowledge_branch": False, "mixture": "probabilities"},
    "training": {"branch_shares": "equal"},
}


def resolve_config(
    files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> RunConfig:
    """The configuration; later arguments override earlier ones, and all of them the preset.

    A source that selects another variant of a section (`model.head`, `loss.kind`) discards earlier settings of keys
    that this variant lacks.

    Args:
        files: YAML files.
        settings: "model.qsm.layers=2".
        values: by dotted key.
        base: by dotted key, overridden by everything but the preset.
        preset: the name of a preset, or "none"; see `presets` for the default.

    Raises:
        UserError: a file that cannot be read, an unknown key (with the nearest valid one), a bad value, or a model that
            there is not.
    """
    sources = [nested(base or {}), *map(read_tree, files), nested(dict(map(_parsed, settings))), nested(values or {})]
    merged: Tree = {}
    for source in sources:
        merged = _overridden(merged, source)
    name = preset or preset_of(merged)
    if name is not None and name != "none":
        merged = _overridden(_overridden(preset_settings(name), merged), {"preset": name})
    config = _pinned(validated(merged))
    if config.teacher.preset is not None:
        if config.teacher.run != OWN_TEACHER:
            raise UserError(
                f"configuration: teacher.preset = {config.teacher.preset!r}: is the recipe of a teacher that the run "
                f"makes itself; set teacher.run={OWN_TEACHER} too"
            )
        teacher_config(config)
    return config


def teacher_config(config: RunConfig) -> RunConfig:
    """The configuration of the teacher that a run makes itself: its own, or that with another recipe.

    Raises:
        UserError: there is no such recipe, or no such model.
    """
    own = config.model_copy(update={"teacher": TeacherOptions()})
    if (name := config.teacher.preset) is None:
        return own
    return _pinned(validated(_overridden(own.model_dump(mode="json"), {**preset_settings(name), "preset": name})))


def _pinned(config: RunConfig) -> RunConfig:
    """Whoever gets the run later loads these weights and no others of that name."""
    check_name(config.backbone.name, config.backbone.weights)
    backbone = config.backbone.model_copy(update={"name": pinned(config.backbone.name)})
    return config.model_copy(update={"backbone": backbone})


def validated(tree: Mapping[str, Any]) -> RunConfig:
    """A RunConfig from a nested mapping; the first mistake is reported in one line.

    Raises:
        UserError: see `resolve_config`.
    """
    for name, section in variant_sections().items():
        if isinstance(given := tree.get(name, {}), dict):
            tree = {**tree, name: {section.tag: section.default, **given}}
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(explained(first["type"], first["loc"], first.get("input"), reason)) from error


def stored_config(tree: Mapping[str, Any]) -> RunConfig:
    """The configuration in a run folder, of this version or an earlier one.

    Earlier versions wrote the options of all losses; those of losses that the run does not use are dropped. What an
    earlier version could not choose gets the value that it had then.

    Raises:
        UserError: a key or value that no version wrote.
    """
    tree = _with_missing(tree, _EARLIER)
    return validated(_without_other_forms(tree, tree))


def differing_keys(one: RunConfig, other: RunConfig) -> list[str]:
    """The dotted keys that differ between two configurations and can affect the result."""
    first, second = (flat(config.model_dump(mode="json")) for config in (one, other))
    keys = [key for key in {**first, **second} if first.get(key, ...) != second.get(key, ...)]
    return [key for key in keys if key not in _WITHOUT_EFFECT]


def _with_missing(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with these values where it has the section but not the key."""
    result = dict(tree)
    for key, value in values.items():
        if not isinstance(value, Mapping):
            result.setdefault(key, value)
        elif isinstance(section := tree.get(key), Mapping):
            result[key] = _with_missing(section, value)
    return result


def _parsed(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set {setting!r}: write it as key=value, for example --set model.qsm.layers=2")
    return key, parse_yaml(text, f"--set {setting!r}")


def _overridden(tree: Tree, source: Tree) -> Tree:
    return overridden(_without_other_forms(tree, source), source)


def _without_other_forms(tree: Mapping[str, Any], source: Mapping[str, Any]) -> Tree:
    """`tree` without the keys that do not exist in the variant of a section that `source` selects."""
    kept = dict(tree)
    for name, section in variant_sections().items():
        given, own = source.get(name), tree.get(name)
        chosen = given.get(section.tag) if isinstance(given, dict) else None
        if isinstance(chosen, str) and chosen in section.fields and isinstance(own, dict):
            others = frozenset().union(*section.fields.values()) - section.fields[chosen]
            kept[name] = {key: value for key, value in own.items() if key not in others}
    return kept
