"""`sspa-train data`: prepare, check, describe and query manifests. Heavy imports happen inside the commands."""

import json
import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sspa.shared.errors import UserError
from sspa.shared.query_options import QuerySeconds
from sspa.shared.tables import print_table
from sspa.shared.terminal import output, say
from sspa.stage2_training.cli.options import Protocol, Root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sspa.stage2_training.data.adapters.adapter import Adapter
    from sspa.stage2_training.data.manifest import Manifest

# Odd things that `prepare` lists; --json has all.
_ODD = 10
# Problems that `check` lists: all of them fit a terminal's memory, and a list of a thousand is looked at in a file.
_PROBLEMS = 1000

# Labelled training images below which the recipe for few of them is suggested, and how many times their number of
# others the one that learns from these too.
_FEW, _MANY = 400, 4

data_app = typer.Typer(help="Prepare, check, describe and query data sets.", no_args_is_help=True)


class Missing(StrEnum):
    """What to do about listed images that do not exist."""

    refuse = "refuse"
    leave_out = "leave-out"


class Blank(StrEnum):
    """What it means that no label is given."""

    none = "none"
    unknown = "unknown"


Name = Annotated[str, typer.Argument(metavar="DATA", help="A data set's name (see: data list), or a manifest.")]


@data_app.command("list")
def list_data() -> None:
    """List the supported data sets: where to get each, its files, and its protocols."""
    from sspa.stage2_training.data.adapters import adapter_names, get_adapter

    for name in adapter_names():
        adapter = get_adapter(name)
        output.print(f"[bold]{name}[/]: {adapter.title}, {adapter.label_count} labels")
        output.print(f"  get: {adapter.download}", markup=False)
        output.print("  files: " + adapter.layout.replace("\n", ", "), markup=False)
        output.print(f"  protocols: {', '.join(adapter.protocols)}", markup=False)


@data_app.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="DATA", help="A data set's name, or `custom` for your own.")],
    root: Root = None,
    out: Annotated[Path | None, typer.Option("--output", help="artifacts/DATA.manifest.parquet by default.")] = None,
    protocol: Protocol = None,
    own_name: Annotated[
        str | None, typer.Option("--name", help="custom: what your data set is called. [default: custom]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a manifest of other content.")] = False,
    download: Annotated[bool, typer.Option("--download", help="Download VOC into --root through torchvision.")] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(help="custom: a list or a tool's annotations, or train=FILE and others; without it, folders."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="custom: a label file or built-in set, for order and texts; other labels go.")
    ] = None,
    val: Annotated[float, typer.Option(help="custom: the share to draw for val if no split is given.")] = 0.1,
    test: Annotated[float, typer.Option(help="custom: the share to draw for test if no split is given.")] = 0.2,
    seed: Annotated[int, typer.Option(help="custom: of that draw.")] = 0,
    image_column: Annotated[str | None, typer.Option(help="custom: the table's column with the images' paths.")] = None,
    label_columns: Annotated[
        str | None, typer.Option(help="custom: the column with labels, or a,b,c: columns of 1, 0 and -1 (unknown).")
    ] = None,
    separator: Annotated[str | None, typer.Option(help="custom: between the labels in a cell; ; by default.")] = None,
    group: Annotated[
        str | None, typer.Option(help="custom: the column with what must stay in one split, such as a patient.")
    ] = None,
    blank: Annotated[Blank, typer.Option(help="custom: what empty cells and rows without labels mean.")] = Blank.none,
    review: Annotated[
        Path | None, typer.Option(help="custom: the answers of sspa-train review; of a manifest: its corrections.")
    ] = None,
    unanswered: Annotated[
        bool,
        typer.Option("--unanswered", help="With --review: also the other photos below --root, without any label."),
    ] = False,
    missing: Annotated[Missing, typer.Option(help="Images that are listed and do not exist.")] = Missing.refuse,
    knowledge: Annotated[Path | None, typer.Option(help="Also check that this knowledge has every label.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was understood as JSON.")] = False,
) -> None:
    """Read a data set in its own layout, check it, write its manifest, and show what was understood."""
    from sspa.stage2_training.data.custom.understood import understood
    from sspa.stage2_training.data.dataset import load_manifest
    from sspa.stage2_training.data.images_on_disk import check_images, missing_images
    from sspa.stage2_training.data.manifest import (
        check_manifest,
        check_replaceable,
        under_protocol,
        without_images,
        write_manifest,
    )
    from sspa.stage2_training.data.reviewed.answers import read_answers
    from sspa.stage2_training.data.reviewed.applied import corrected, reviewed_manifest

    if unanswered and (review is None or name != "custom"):
        raise UserError("--unanswered: is for custom data that --review says the labels of")
    if name == "custom":
        from sspa.shared.label_sets import read_label_set
        from sspa.stage2_training.data.custom.reading import Source, read_custom
        from sspa.stage2_training.data.custom.tables import TableColumns
        from sspa.stage2_training.evaluation.own_protocol import find_protocol

        called = _own_name(own_name)
        if root is None:
            raise UserError("custom needs the folder that the paths are relative to: --root DIR")
        own_labels = read_label_set(labels) if labels else None
        if review is not None and source:
            raise UserError("--review and --source: choose one of them; a manifest takes --review as corrections")
        columns = TableColumns(image_column, _names(label_columns), separator, group, blank.value)
        sources = [Source.parse(text, len(source) > 1) for text in source] if source else []
        if review is not None:
            reviewed = reviewed_manifest(read_answers(review), review, root, own_labels, val, test, seed, unanswered)
            manifest = replace(reviewed, dataset=called)
        else:
            manifest = read_custom(called, root, sources, own_labels, val, test, seed, columns)
        if protocol is not None:
            manifest = under_protocol(manifest, find_protocol(protocol), "custom data")
        check_manifest(manifest, str(review or (sources[0].path if sources else root)))
    else:
        if own_name is not None:
            raise UserError(f"--name {own_name}: is for custom data; {name} has its name")
        if download:
            _download_voc(name, root)
        manifest, root = load_manifest(name, root, protocol)
        if review is not None:
            manifest = corrected(manifest, read_answers(review), review, root)
    if missing is Missing.leave_out and (gone := missing_images(manifest, root)):
        manifest = without_images(manifest, {path.relative_to(root).as_posix() for path in gone})
        more = f" and {len(gone) - _ODD} more" if len(gone) > _ODD else ""
        total = len(manifest.ids) + len(gone)
        say(f"left out, since missing: {len(gone):,} of {total:,} images: {', '.join(map(str, gone[:_ODD]))}{more}")
    else:
        check_images(manifest, root)
    if knowledge is not None:
        from sspa.shared.knowledge import read_knowledge

        read_knowledge(knowledge).for_labels(manifest.labels.keys)
    path = out or Path("artifacts") / f"{own_name or name.removesuffix('.parquet')}.manifest.parquet"
    if not overwrite:
        check_replaceable(path, manifest)
    write_manifest(manifest, path)
    found = understood(manifest)
    if as_json:
        output.print_json(json.dumps(found))
    else:
        _print_labels(manifest)
        for row in found["first_rows"]:
            unknown = f"; unknown: {', '.join(row['unknown'])}" if row["unknown"] else ""
            labels_of_row = ", ".join(row["labels"]) or "no label"
            output.print(f"{row['path']} ({row['split']}): {labels_of_row}{unknown}", markup=False)
        for line in found["odd"][:_ODD]:
            say(f"look at this: {line}")
        if len(found["odd"]) > _ODD:
            say(f"look at this: {len(found['odd']) - _ODD} more; --json has all")
    say(f"{path}: {len(manifest.ids):,} images, {len(manifest.labels.keys)} labels, protocol {manifest.protocol.name}")
    known = knowledge
    if knowledge is None and name == "custom":
        given = f"artifacts/{own_name or 'mine'}"
        say(
            f"describe its labels with: sspa-train data labels {path} --output {given}.txt && "
            f"sspa-knowledge generate --labels {given}.txt --output {given}.parquet"
        )
        known = Path(f"{given}.parquet")
    named = f" --knowledge {known}" if known else ""
    say(f"train with: sspa-train run{named} --data {path} --root {root}{_recipe_for(manifest)}")


def _recipe_for(manifest: "Manifest") -> str:
    """The options that suit few labels, and photos without any."""
    known = (manifest.targets[manifest.rows_of("train")] >= 0).any(axis=1)
    count, others = int(known.sum()), int((~known).sum())
    if manifest.labels.domain == "natural" and count < _FEW:
        return f" --preset embedded-photos-{'taught' if others >= _MANY * count else 'few'}"
    return " --teacher self" if others else ""


@data_app.command()
def check(
    name: Name,
    root: Root = None,
    protocol: Protocol = None,
    decode: Annotated[bool, typer.Option("--decode", help="Also decode every image, and list what cannot be.")] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Also list images that are the same, or nearly, in two splits.")
    ] = False,
    blurred: Annotated[
        bool, typer.Option("--blurred", help="Also list images without detail: out of focus, or empty.")
    ] = False,
) -> None:
    """Report what is missing or wrong, and compare counts with the published ones; exit code 2 on any problem."""
    from sspa.stage2_training.data.adapters import get_adapter
    from sspa.stage2_training.data.checking import check_data, decoding_problems, duplicate_problems
    from sspa.stage2_training.data.dataset import load_manifest
    from sspa.stage2_training.data.images_on_disk import check_images, resolve_paths

    if name.endswith(".parquet"):
        manifest, root = load_manifest(name, root, protocol)
        check_images(manifest, root)
        say(f"{name}: all {len(manifest.ids):,} images exist")
        title, problems, last = name, [], ""
    else:
        adapter = get_adapter(name)
        root = adapter.find_root(root)
        findings = check_data(adapter, root, protocol)
        for row in findings.counts:
            published = "" if row.published is None else f"published: {row.published:,}"
            beside = f" ({published}{', DIFFERS' if row.differs else ''})" if published else ""
            output.print(f"{row.what}: {row.found:,}{beside}")
        problems = list(findings.problems)
        whole = not any(row.differs for row in findings.counts)
        title = adapter.title
        last = f"{root}: {'all of' if whole else 'a cut of'} {title}; every file that its lists name exists"
        if problems:
            _stop_at(problems, f"{root}: {_counted(problems)} with {title}; {_where_from(adapter)}")
        manifest, root = load_manifest(name, root, protocol)
    if blurred:
        _list_blurred(resolve_paths(manifest, root))
    if decode:
        problems += decoding_problems(manifest, root)
    if duplicates:
        problems += duplicate_problems(manifest, root)
    if problems:
        _stop_at(problems, f"{root}: {_counted(problems)} with {title}")
    if decode:
        say(f"every one of {len(manifest.ids):,} images can be decoded")
    if duplicates:
        say(f"no two splits share an image among {len(manifest.ids):,}")
    if last:
        say(last)


def _list_blurred(paths: "Sequence[Path]") -> None:
    """A hint, and no problem: some photos are meant to be like that."""
    from sspa.stage2_training.data.sharpness import blurred_images

    found = blurred_images(paths)
    for path, value in found[:_PROBLEMS]:
        output.print(f"{path}: without detail (sharpness {value:.3f})", markup=False)
    say(f"{len(found):,} of {len(paths):,} images are without detail: blurred, or empty; look at them")


def _counted(problems: list[str]) -> str:
    return f"{len(problems):,} problem{'' if len(problems) == 1 else 's'}"


def _stop_at(problems: list[str], summary: str) -> NoReturn:
    """List the problems and end the command."""
    for problem in problems[:_PROBLEMS]:
        output.print(problem, markup=False)
    if len(problems) > _PROBLEMS:
        output.print(f"... and {len(problems) - _PROBLEMS} more")
    raise UserError(summary)


@data_app.command()
def stats(
    name: Name,
    root: Root = None,
    protocol: Protocol = None,
    picture: Annotated[Path | None, typer.Option(help="Also plot them (.png, .svg, .pdf).")] = None,
    pairs: Annotated[int, typer.Option(help="Number of label pairs to list.")] = 10,
) -> None:
    """Show positives per label and split, labels per image, and labels that occur together."""
    from sspa.stage2_training.data.dataset import load_manifest
    from sspa.stage2_training.data.manifest import read_manifest
    from sspa.stage2_training.data.statistics import draw_figures, frequent_pairs

    manifest = read_manifest(Path(name)) if name.endswith(".parquet") else load_manifest(name, root, protocol)[0]
    _print_labels(manifest)
    for one, other, count in frequent_pairs(manifest, pairs):
        output.print(f"{one} with {other}: {count:,} images", markup=False)
    if picture is not None:
        draw_figures(manifest, picture)
        say(f"{picture}: drawn")


def _print_labels(manifest: "Manifest") -> None:
    """A table of positives per label and split."""
    from sspa.stage2_training.data.statistics import split_figures

    figures = split_figures(manifest)
    rows: list[tuple[str, ...]] = []
    for position, key in enumerate(manifest.labels.keys):
        cells = []
        for found in figures.values():
            unknown = f" ({found.unknown[position]} unknown)" if found.unknown[position] else ""
            cells.append(f"{found.positives[position]:,}{unknown}")
        rows.append((key, *cells))
    totals = [
        ("all positives", *(f"{found.positives.sum():,}" for found in figures.values())),
        ("images", *(f"{found.images:,}" for found in figures.values())),
        ("labels per image", *(f"{found.cardinality:.2f}" for found in figures.values())),
        ("without any label", *(f"{found.unlabelled:,}" for found in figures.values())),
    ]
    if any(found.blank for found in figures.values()):
        totals.append(("nothing known", *(f"{found.blank:,}" for found in figures.values())))
    title = f"{manifest.dataset}, protocol {manifest.protocol.name}: images with each label"
    print_table(("label", *figures), [rows, totals], title=title, left=("label",))


def _own_name(name: str | None) -> str:
    from sspa.stage2_training.data.adapters import adapter_names

    if name is None:
        return "custom"
    if not re.fullmatch(r"[\w.-]*\w", name) or name.startswith((".", "-")):
        raise UserError(f"--name {name!r}: take letters, digits, and - _ . between them")
    if name in adapter_names():
        raise UserError(f"--name {name}: is the name of a public data set; choose another")
    return name


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


@data_app.command()
def query(
    manifest: Annotated[Path, typer.Argument(help="A manifest that `data prepare` wrote.")],
    sql: Annotated[str, typer.Argument(help="Tables: manifest, labels, marks.")],
    seconds: QuerySeconds = 60,
) -> None:
    """Query a manifest in SQL."""
    from sspa.stage2_training.data.querying import query_manifest

    columns, rows = query_manifest(manifest, sql, seconds)
    print_table(columns, [rows])


@data_app.command()
def throughput(
    name: Name,
    root: Root = None,
    split: Annotated[str, typer.Option(help="Which split to read.")] = "val",
    size: Annotated[int, typer.Option(help="Side of the tensors, in pixels.")] = 260,
    workers: Annotated[str, typer.Option(help="Numbers of worker processes, separated by commas.")] = "0,1,2",
    rounds: Annotated[int, typer.Option(help="Number of rounds; the best counts.")] = 3,
) -> None:
    """Measure images per second of the loader, compared with a bare Pillow and torchvision loop."""
    from sspa.stage2_training.data.dataset import load_dataset

    images = load_dataset(name, root).split(split)
    counts = tuple(int(count) for count in workers.split(","))
    import torch

    from sspa.stage2_training.bench.loader_speed import measure_throughput

    torch.set_num_threads(1)
    for row in measure_throughput(images, size, counts, rounds):
        ratio = row.ours / row.bare
        output.print(f"{row.workers} workers: {row.ours:.0f} images/s, bare loop {row.bare:.0f}, ratio {ratio:.2f}")


def _download_voc(name: str, root: Path | None) -> None:
    years = {"voc2007": "2007", "voc2012": "2012"}
    if name not in years:
        raise UserError(f"--download serves {' and '.join(years)} only; for {name} see: sspa-train data list")
    if root is None:
        raise UserError("--download needs the folder to unpack into: --root DIR")
    from torchvision.datasets import VOCDetection

    for part in ("trainval", "test") if name == "voc2007" else ("trainval",):
        try:
            VOCDetection(root, year=years[name], image_set=part, download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"{name} {part} cannot be fetched ({error}); {_where_from_name(name)}") from None


def _where_from_name(name: str) -> str:
    from sspa.stage2_training.data.adapters import get_adapter

    return _where_from(get_adapter(name))


def _where_from(adapter: "Adapter") -> str:
    return f"it is offered as {adapter.download}"
