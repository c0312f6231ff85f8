"""Exports a run as one file for other programs: written, reopened, compared with the model, and only then kept."""

from collections.abc import Sequence
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.holding import held
from sspa.shared.terminal import say
from sspa.stage2_training.export.checking import images_to_check, largest_difference, seconds_a_batch
from sspa.stage2_training.export.description import describe
from sspa.stage2_training.export.program import capture
from sspa.stage2_training.export.targets import TARGETS, Target
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.run_folder import open_run_folder

LARGEST_DIFFERENCE = 1e-4
_SPEED_AT = (1, 8)


def export_run(run: Path, to: str, out: Path | None, check: Sequence[str] = ()) -> Path:
    """Export a run and return the file's path.

    Args:
        to: "onnx" or "torch".
        out: the file; if None, `model` with the target's extension in the run's folder.
        check: images to compare on; the run's own if empty.

    Raises:
        UserError: not a run folder, an existing file, a missing package, or probabilities that differ from the model's
            by more than `LARGEST_DIFFERENCE`. No file is left behind.
    """
    target = TARGETS[to]
    out = out or run / f"model{target.ending}"
    target.check_needs()
    open_run_folder(run)
    with held(out, "wait for it, or choose another --out"):
        if out.exists():
            raise UserError(f"{out}: exists already; nothing was changed. Name another file with --out")
        _write_checked(run, target, out, check)
    return out


def _write_checked(run: Path, target: Target, out: Path, check: Sequence[str]) -> None:
    tagger = Tagger.load(run, device="cpu", precision="float32")
    description = describe(tagger)
    found = images_to_check(tagger, check)
    say("capturing the model ... (all of it takes a minute or two, longer for a large one)")
    program = capture(tagger)
    size = sum(value.nbytes for value in program.state_dict.values())
    with replacing(out) as beside:
        say(f"writing it for {target.runtime}, about {size / 1e6:,.1f} MB ...")
        target.write(program, description, beside)
        exported = target.open(beside)
        difference = largest_difference(tagger, exported, found.images)
        say(f"checked on {found.source}: largest difference of a probability {difference:.1e}")
        if not difference <= LARGEST_DIFFERENCE:
            raise UserError(
                f"{out}: the exported model differs from the run by {difference:.1e}, more than "
                f"{LARGEST_DIFFERENCE:.0e}; it was not kept. Try the other --to"
            )
        for count in (count for count in _SPEED_AT if count <= len(found.images)):
            images = found.images[:count]
            seconds = seconds_a_batch({"torch": tagger.probabilities, target.runtime: exported}, images)
            figures = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
            ratio = seconds["torch"] / seconds[target.runtime]
            say(f"speed at {count} image{'s' * (count > 1)} per batch, median: {figures} ({ratio:.2f} times as fast)")
