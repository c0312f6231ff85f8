"""Packages a run as a folder to share: everything that tagging needs, nothing about the machine it was made on."""

import shutil
from pathlib import Path
from typing import Any

import torch

from sspa.shared.errors import UserError
from sspa.shared.files import replacing_folder
from sspa.shared.holding import held
from sspa.shared.knowledge_format import read_table, write_knowledge
from sspa.stage2_training.backbones.model_folders import CONFIG, check_model_folder
from sspa.stage2_training.backbones.weight_files import convert_weights_file
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.export.model_card import write_model_card
from sspa.stage2_training.export.wheel import write_wheel
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.records import BackboneRecord, RunRecord, written
from sspa.stage2_training.runs.run_folder import OWN_FOLDER, RunFolder, open_run_folder

_COPIED = ("weights.safetensors", "metrics.jsonl", "thresholds.json")
_BACKBONE = "backbone"
# The contents of a model folder besides weights: configurations and tokenizers.
_BACKBONE_ENDINGS = {".safetensors", ".json", ".txt", ".model"}


def package_run(run: Path, out: Path) -> Path:
    """Write the folder `out` and return it.

    It contains weights, configuration, label order, knowledge, thresholds, metrics and a model card, this program as a
    wheel, and the backbone if it consists of local files; `Tagger.load` and the commands accept it like a run. Images,
    predictions and the report are left out. The folder is loaded and compared with the run before it is kept.

    Raises:
        UserError: not a finished run, an existing folder, or one that cannot be written.
    """
    folder = open_run_folder(run)
    config, result = folder.config(), folder.result()
    with held(out, "wait for it, or choose another --out"), replacing_folder(out) as beside:
        if out.exists():
            raise UserError(f"{out}: exists already; nothing was changed. Name another folder with --out")
        for name in _COPIED:
            shutil.copyfile(folder.file(name), beside / name)
        own = RunFolder(beside)
        own.write_json("run.json", _about(folder).model_dump(mode="json"))
        tree = _configuration(config, beside)
        own.write_json("config.json", tree)
        backbone = _backbone(result.backbone, config, tree)
        taught = result.taught and result.taught.model_copy(update={"teacher": Path(result.taught.teacher).name})
        own.write_json("result.json", written(result.model_copy(update={"backbone": backbone, "taught": taught})))
        _write_knowledge(folder.file("knowledge.parquet"), own.file("knowledge.parquet"))
        tagger = _same_as_the_run(run, beside)
        write_model_card(folder, tagger, own.file("README.md"), out.name, write_wheel(beside).name)
    return out


def _about(folder: RunFolder) -> RunRecord:
    """run.json without the paths of the knowledge and of the run that was measured."""
    about = folder.record()
    refit = about.refit and about.refit.model_copy(update={"of": Path(about.refit.of).name})
    knowledge = about.knowledge.model_copy(update={"file": Path(about.knowledge.file).name})
    return about.model_copy(update={"knowledge": knowledge, "refit": refit})


def _configuration(config: RunConfig, out: Path) -> dict[str, Any]:
    """config.json without paths; a backbone in local files is copied to `out`."""
    tree = config.model_dump(mode="json")
    tree["knowledge"] = "knowledge.parquet"
    tree["data"].update(root=None, name=Path(config.data.name).name)
    if config.data.protocol is not None:
        tree["data"]["protocol"] = Path(config.data.protocol).name  # of one's own; run.json has its rules
    if config.teacher.run is not None:
        tree["teacher"]["run"] = Path(config.teacher.run).name
    backbone, within = tree["backbone"], f"{OWN_FOLDER}/{_BACKBONE}"
    if backbone["name"].startswith("local-dir:"):
        source = Path(backbone["name"].removeprefix("local-dir:"))
        check_model_folder(source)
        _copy_backbone([path for path in source.iterdir() if path.suffix in _BACKBONE_ENDINGS], out)
        backbone["name"] = f"local-dir:{within}"
    elif backbone["weights"] is not None and (weights := Path(backbone["weights"])).is_file():
        # open_clip's configuration beside a weights file says which activation it was trained with.
        beside = weights.parent / CONFIG
        _copy_backbone([beside] if beside.is_file() else [], out)
        name = weights.with_suffix(".safetensors").name
        convert_weights_file(weights, out / _BACKBONE / name)
        backbone["weights"] = f"{within}/{name}"
    return tree


def _backbone(named: BackboneRecord, config: RunConfig, tree: dict[str, Any]) -> BackboneRecord:
    """The backbone in result.json, with local files renamed to their place in the folder."""
    renamed = [(config.backbone.name, tree["backbone"]["name"])]
    if config.backbone.weights is not None:
        renamed.append((config.backbone.weights, tree["backbone"]["weights"]))
    for old, new in renamed:
        named = BackboneRecord(name=named.name.replace(old, new), description=named.description.replace(old, new))
    return named


def _copy_backbone(files: list[Path], out: Path) -> None:
    (out / _BACKBONE).mkdir()
    for path in files:
        if path.is_file():
            shutil.copyfile(path, out / _BACKBONE / path.name)


def _write_knowledge(source: Path, path: Path) -> None:
    """Copy the knowledge; paths of models and prompts are reduced to their last part."""
    table, _ = read_table(source)
    rows = table.to_pylist()
    for row in rows:
        for column in ("model", "prompt"):
            if Path(row[column]).is_absolute():
                row[column] = Path(row[column]).name
    write_knowledge(path, rows)


def _same_as_the_run(run: Path, out: Path) -> Tagger:
    """The tagger of the folder.

    Raises:
        UserError: its probabilities differ from the run's.
    """
    ours, theirs = (Tagger.load(path, device="cpu", precision="float32", threshold=None) for path in (run, out))
    images = torch.randn(2, 3, *ours.recognizer.backbone.image_size, generator=torch.Generator().manual_seed(0))
    difference = abs(ours.probabilities(images) - theirs.probabilities(images)).max()
    if not difference <= 1e-6:
        raise UserError(f"{out}: gives other probabilities than {run} (by {difference:.1e}); it was not kept")
    return theirs
