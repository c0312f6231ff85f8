"""The commands of `sspa-train data` that write a data set in other forms. Heavy imports happen inside them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.cli.data import Name, data_app
from sspa.stage2_training.cli.options import Protocol, Root


class Form(StrEnum):
    """What `data export` writes."""

    csv = "csv"
    jsonl = "jsonl"
    coco = "coco"
    label_studio = "label-studio"
    fiftyone = "fiftyone"


@data_app.command("labels")
def write_labels(
    manifest: Annotated[Path, typer.Argument(help="A manifest that `data prepare` wrote.")],
    out: Annotated[Path, typer.Option("--output", help="The label file, for sspa-knowledge generate --labels.")],
) -> None:
    """Write a manifest's labels as a label file."""
    from sspa.shared.files import replacing
    from sspa.shared.label_sets import label_file
    from sspa.stage2_training.data.manifest import read_manifest

    if out.exists():
        raise UserError(f"{out}: exists already; nothing was changed. Name another file with --output")
    labels = read_manifest(manifest).labels
    with replacing(out) as beside:
        beside.write_text(label_file(labels), encoding="utf-8")
    say(f"{out}: {len(labels.keys)} labels; next: sspa-knowledge generate --labels {out}")


@data_app.command("export")
def export_data(
    file: Annotated[Path, typer.Argument(help="A manifest, or what `predict --out` wrote.")],
    target: Annotated[str, typer.Argument(help="The file to write; for fiftyone, the name of the data set.")],
    form: Annotated[Form | None, typer.Option("--to", help="[default: csv or jsonl, by the file's ending]")] = None,
    root: Root = None,
) -> None:
    """Write a manifest or predictions as CSV, JSON lines, COCO, Label Studio tasks, or a FiftyOne data set."""
    from sspa.shared.files import replacing
    from sspa.shared.parquet_files import metadata_of
    from sspa.stage2_training.data.export_forms.coco import write_coco
    from sspa.stage2_training.data.export_forms.fiftyone_dataset import write_fiftyone
    from sspa.stage2_training.data.export_forms.label_studio import write_label_studio
    from sspa.stage2_training.data.export_forms.lists import write_csv, write_json_lines
    from sspa.stage2_training.data.export_forms.marked_images import manifest_images
    from sspa.stage2_training.data.manifest import read_manifest
    from sspa.stage2_training.prediction.reading import predicted_images

    chosen = form or {".csv": Form.csv, ".jsonl": Form.jsonl}.get(Path(target).suffix.lower())
    if chosen is None:
        raise UserError(f"{target}: its ending does not say the form; add --to {', '.join(Form)}")
    is_manifest = b"sspa_manifest" in metadata_of(file)
    found = manifest_images(read_manifest(file)) if is_manifest else predicted_images(file)
    # Predictions name images as the command line did.
    where = root or Path()
    if root is None and is_manifest and chosen in (Form.coco, Form.fiftyone):
        raise UserError(f"--to {chosen.value} opens the images: say where they are with --root")
    if chosen is Form.fiftyone:
        count = write_fiftyone(found, target, where)
        say(f"{target}: {count:,} images; look at them with: fiftyone app launch {target}")
        return
    path = Path(target)
    if path.exists():
        raise UserError(f"{path}: exists already; nothing was changed. Name another file")
    with replacing(path) as beside:
        if chosen is Form.coco:
            count = write_coco(found, beside, where)
        elif chosen is Form.label_studio:
            count = write_label_studio(found, beside, file.stem)
        else:
            count = (write_csv if chosen is Form.csv else write_json_lines)(found, beside)
    say(f"{path}: {count:,} images, {len(found.labels)} labels, as {chosen.value}")


@data_app.command()
def shard(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A new folder for the shards and their manifest.")],
    root: Root = None,
    protocol: Protocol = None,
    per_shard: Annotated[int, typer.Option(help="Images per shard.")] = 5000,
) -> None:
    """Copy a data set into WebDataset shards, for file systems that are slow with millions of small files."""
    from sspa.stage2_training.data.dataset import load_manifest
    from sspa.stage2_training.data.sharding import MANIFEST, write_shards

    manifest, found_root = load_manifest(name, root, protocol)
    shards = write_shards(manifest, found_root, folder, per_shard)
    say(f"{folder}: {shards} shards; train with: sspa-train run --data {folder / MANIFEST} --root {folder}")
