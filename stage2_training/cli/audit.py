"""`sspa-train data audit`: marks that are probably wrong. Heavy imports happen inside the command."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sspa.shared.errors import UserError
from sspa.shared.tables import print_table
from sspa.shared.terminal import loading, say
from sspa.stage2_training.cli.data import Name, data_app
from sspa.stage2_training.cli.options import (
    FAST_MODEL,
    ConfigFiles,
    Device,
    Root,
    Settings,
    command_device,
    given_settings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sspa.shared.label_sets import Label
    from sspa.stage2_training.audit.images import ImageFinding
    from sspa.stage2_training.audit.marks import Expected, LabelAudit
    from sspa.stage2_training.config.run_config import RunConfig


@data_app.command()
def audit(
    name: Name,
    knowledge: Annotated[Path, typer.Option(help="The knowledge file that sspa-knowledge wrote.")],
    out: Annotated[Path, typer.Option(help="The folder for the models, the table and the page; resumes.")],
    root: Root = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Number of models, each of which misses a part.")] = 3,
    config: ConfigFiles = None,
    set_: Settings = None,
    device: Device = "auto",
) -> None:
    """Find marks that are probably wrong, as models judge that did not see the image, and images that need a look.

    Writes suspects.parquet (path, label, mark, probability, quality, probably_wrong; the most doubtful first),
    images.parquet (unreadable images, copies, images without detail, images without any label) and audit.html.
    """
    for package in ("cleanlab", "imagehash"):
        if find_spec(package) is None:
            raise UserError(f"data audit needs {package}; install the extra `audit`")
    from sspa.stage2_training.config.resolving import resolve_config
    from sspa.stage2_training.data.columns import Paths
    from sspa.stage2_training.data.dataset import load_manifest
    from sspa.stage2_training.runs.inputs import open_inputs

    given = given_settings(knowledge, name, root)
    fast = () if config or any(setting.startswith("model.") for setting in set_ or ()) else FAST_MODEL

    def of_folds(*more: str) -> "list[RunConfig]":
        settings = [*fast, *(set_ or ()), *more]
        return [
            resolve_config(config or [], [*settings, f"data.fold={number}/{folds}"], given)
            for number in range(1, folds + 1)
        ]

    configs = of_folds()
    open_inputs(configs[0])
    with loading():
        from sspa.stage2_training.audit.images import find_in_images, write_findings
        from sspa.stage2_training.audit.marks import audit_labels, probably_wrong
        from sspa.stage2_training.audit.out_of_fold import out_of_fold
        from sspa.stage2_training.audit.page import write_audit_page
        from sspa.stage2_training.audit.suspects import find_suspects, write_suspects

    data = configs[0].data
    manifest, images_root = load_manifest(data.name, data.root, data.protocol)
    found = find_in_images(manifest, Paths(images_root, manifest.paths))
    write_findings(found, out / "images.parquet")
    if unreadable := sum(one.finding == "unreadable" for one in found):
        say(f"cannot be read, so the models do without: {unreadable:,} of {len(manifest.ids):,} images")
        configs = of_folds("data.unreadable=leave-out")
    predicted = out_of_fold(configs, out, command_device(device))
    wrong = probably_wrong(predicted.probabilities, predicted.targets)
    audits, suspects = audit_labels(predicted.targets, wrong), find_suspects(predicted, wrong)
    write_suspects(suspects, out / "suspects.parquet")
    page = write_audit_page(predicted, audits, suspects, found, out / "audit.html")
    _show(predicted.labels, audits)
    say(f"{len(manifest.ids):,} images: {_counted(found)}: {out / 'images.parquet'}")
    say(f"{len(suspects):,} marks are contradicted, {wrong.sum():,} of them probably wrong: {out / 'suspects.parquet'}")
    say(f"page: {page}")


def _counted(found: "Sequence[ImageFinding]") -> str:
    counts = Counter(one.finding for one in found)
    across = sum(one.across_splits for one in found)
    return (
        f"{counts['unreadable']:,} unreadable, {counts['copies']:,} pairs of copies ({across:,} in two splits), "
        f"{counts['without detail']:,} without detail, {counts['without label']:,} without any label"
    )


def _show(labels: "Sequence[Label]", audits: "Sequence[LabelAudit]") -> None:
    rows = [
        [label.key, audit.present, _range(audit.wrongly_present), audit.absent, _range(audit.wrongly_absent)]
        for label, audit in zip(labels, audits, strict=True)
    ]
    print_table(["label", "present", "of these wrong", "absent", "of these present"], [rows], left={"label"})


def _range(expected: "Expected | None") -> str | None:
    return None if expected is None else f"{expected.count} ({expected.low:.0f} to {expected.high:.0f})"
