"""The trip of a new user, timed: tags of ten photos, then a tagger of 12 labels from 300 photos, every hint followed.

    python benchmarks/first_hour.py FOLDER

FOLDER is new, and keeps the photos (scenes drawn from OpenMoji), what each command said, and the run. Besides the two
commands that a user types, everything is what the program printed after "next:", "describe its labels with:" and
"train with:", pasted with the placeholders filled in. The last line says whether the goals were met: tags within 2
minutes after installing, the tagger trained within 10, on two cores. Exit status 1 if not, or if a hint did not work.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from sspa.stage2_training.data.manifest import read_manifest
from sspa.stage2_training.data.scenes.make import make_scenes

PROGRAMS = Path(sys.executable).parent
TAGS_SECONDS, TAGGER_SECONDS = 120, 600
LABELS = ("person", "dog", "cat", "bird", "car", "boat", "train", "chair", "bottle", "bicycle", "horse", "sheep")
_HINT = re.compile(r"(?:next|describe its labels with|train with): (.*)")


class Trip:
    """Runs commands in one folder, and keeps what they say and how long they take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self.environment = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}

    def take(self, name: str, command: str) -> list[str]:
        """Run a command as a user would paste it; the hints that it prints."""
        print(f"$ {command}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        self.seconds[name] = time.perf_counter() - start
        said = done.stdout + done.stderr
        (self.folder / f"{name}.log").write_text(f"$ {command}\n{said}")
        print(f"  {self.seconds[name]:.0f} s", flush=True)
        if done.returncode:
            sys.exit(f"it ended with {done.returncode}:\n{said[-2000:]}")
        return [hint.strip() for line in _HINT.findall(said) for hint in line.split("; ")]

    def serve(self, name: str, command: str) -> None:
        """Start a command that serves a page, until it answers."""
        print(f"$ {command}", flush=True)
        start = time.perf_counter()
        with (self.folder / f"{name}.log").open("w") as log:
            server = subprocess.Popen(
                shlex.split(command), cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                while not self._answers(name):
                    if server.poll() is not None or time.perf_counter() - start > 300:
                        sys.exit(f"no page came:\n{(self.folder / f'{name}.log').read_text()[-2000:]}")
                    time.sleep(0.5)
            finally:
                server.terminate()
                server.wait()
        self.seconds[name] = time.perf_counter() - start
        print(f"  {self.seconds[name]:.0f} s until its page answered", flush=True)

    def _answers(self, name: str) -> bool:
        address = re.search(r"http://\S+", (self.folder / f"{name}.log").read_text())
        if address is None:
            return False
        try:
            with urllib.request.urlopen(address.group().rstrip(".,;"), timeout=5) as page:
                return bool(page.status == 200)
        except (urllib.error.URLError, TimeoutError):
            return False


def main() -> None:
    """See the module's docstring."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    trip = Trip(folder)
    make_photos(folder)

    trip.take("tags", f'sspa-train tag TEN --labels "{",".join(LABELS)}" --expect 1.5')
    hints = trip.take("prepare", "sspa-train data prepare custom --name mine --root PHOTOS --source mine.csv")
    describe, train = hints
    (photo, *_) = sorted((folder / "TEN").iterdir())
    placeholders = {"PHOTOS": "TEN", "PHOTO": str(photo.relative_to(folder))}
    after_describing = trip.take("describe", describe)
    for number, hint in enumerate(after_describing):
        if " tag " in hint:
            trip.take(f"describe-next-{number}", filled(hint, placeholders))
    for number, hint in enumerate(trip.take("train", train)):
        follow = trip.serve if " demo " in hint else trip.take
        follow(f"train-next-{number}", filled(hint, placeholders))

    tagger = trip.seconds["prepare"] + trip.seconds["train"]
    met = {
        f"first tags in {trip.seconds['tags']:.0f} s (goal {TAGS_SECONDS})": trip.seconds["tags"] <= TAGS_SECONDS,
        f"a tagger in {tagger:.0f} s (goal {TAGGER_SECONDS}), and {trip.seconds['describe']:.0f} s for describing its "
        "labels": tagger <= TAGGER_SECONDS,
    }
    print("; ".join(f"{what}: {'met' if ok else 'MISSED'}" for what, ok in met.items()))
    sys.exit(0 if all(met.values()) else 1)


def filled(hint: str, placeholders: dict[str, str]) -> str:
    """The hint with its placeholders filled in."""
    return " ".join(placeholders.get(word, word) for word in hint.split(" "))


def make_photos(folder: Path) -> None:
    """PHOTOS, 300 scenes; mine.csv, their labels among LABELS; TEN of them."""
    scenes = folder / "scenes"
    make_scenes(scenes, counts={"train": 298, "val": 1, "test": 1})
    (scenes / "pictures").rename(folder / "PHOTOS")
    (folder / "TEN").mkdir()
    for path in sorted((folder / "PHOTOS").iterdir())[:10]:
        shutil.copyfile(path, folder / "TEN" / path.name)
    manifest = read_manifest(scenes / "manifest.parquet")
    with (folder / "mine.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "labels"))
        for name, targets in zip(manifest.paths, manifest.targets, strict=True):
            there = [
                key for key, mark in zip(manifest.labels.keys, targets, strict=True) if mark == 1 and key in LABELS
            ]
            table.writerow((Path(name).name, ";".join(there)))
    shutil.rmtree(scenes)


if __name__ == "__main__":
    main()
