"""Damaged, hostile and random files against everything that reads one: each must be accepted or end in one UserError.

    python benchmarks/fuzz.py RUN                    # a finished run folder; 10,000 inputs, ten minutes
    python benchmarks/fuzz.py RUN --inputs 500 --seed 7 --only "run folder"
    strace -f -o calls.txt -e trace=%file,connect,execve python benchmarks/fuzz.py RUN   # what the system saw

Inputs are made from good files by flipped bytes, cuts, doublings and JSON of other shapes; a seed gives the same inputs
again. Fails where another exception escapes, where memory grows by more than 2 GB, or where something outside of the
temporary folder is written, started or connected to (watched by Python's audit events).
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_damage import Damage
from fuzz_good_inputs import TAUGHT, write_good_inputs

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.shared.label_sets import Label, read_label_set
from sspa.shared.locked_sql import run_locked
from sspa.stage1_knowledge import exchange
from sspa.stage1_knowledge.journal import read_journal
from sspa.stage1_knowledge.prompt import read_prompt
from sspa.stage1_knowledge.template_blocks import BoundedBlocks
from sspa.stage2_training.backbones.model_folders import check_model_folder
from sspa.stage2_training.backbones.text_cache import cached_text_features
from sspa.stage2_training.backbones.weight_files import convert_weights_file
from sspa.stage2_training.comparison.definition import read_comparison
from sspa.stage2_training.compute.processes import ALONE
from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.data.custom.reading import read_custom
from sspa.stage2_training.data.dataset import Split, load_manifest
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.manifest import read_manifest
from sspa.stage2_training.data.reviewed.answers import read_answers
from sspa.stage2_training.demo.gate import Gate
from sspa.stage2_training.demo.uploads import Uploads
from sspa.stage2_training.evaluation.own_protocol import read_own_protocol
from sspa.stage2_training.export.package import package_run
from sspa.stage2_training.features.kept_features import FeatureCache
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.runs.listing import list_runs
from sspa.stage2_training.runs.run_folder import open_run_folder
from sspa.stage2_training.runs.stored_tensors import read_predictions
from sspa.stage2_training.runs.taught import read_taught
from sspa.stage2_training.serving.origin import hosts_of
from sspa.stage2_training.training.checkpoint import CheckpointWriter, load_checkpoint
from sspa.stage2_training.training.optimization import make_optimization
from sspa.stage2_training.training.train_state import TrainState

MEMORY_GROWTH = 2 << 30
# Of audit events that change a file: which argument is the open folder that the path is relative to.
_FOLDER_ARGUMENT = {"os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.mkdir": 2, "os.symlink": 2, "os.chmod": 2}
# Templates are rendered in a process of their own, and kept features record the state of this clone.
_PROGRAMS = (BoundedBlocks.__module__, "'git', 'describe'", "sspa.stage2_training.data.adapters.mat_files")
_SQL = (
    *(
        "SELECT",
        "*",
        "FROM t",
        "FROM range(99999999)",
        "repeat('a', 99999999)",
        ";",
        "'",
        "COPY t TO 'x'",
        "n",
        "(",
        ")",
    ),
    *("UNION ALL", "read_text('/etc/passwd')", "JOIN t b", "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 1 FROM r)"),
)


class Fuzzer:
    """Good inputs below `folder`, and what reads each kind of them."""

    def __init__(self, folder: Path, run: Path, seed: int) -> None:
        self.folder, self.damage = folder, Damage(seed)
        self.good = folder / "good"
        self.good.mkdir()
        shutil.copytree(run, self.good / "run", ignore=shutil.ignore_patterns("checkpoints", "report.html"))
        write_good_inputs(self.good)
        self.kinds: dict[str, Callable[[], None]] = {
            "knowledge": self._file("knowledge.parquet", read_knowledge),
            "manifest": self._file("manifest.parquet", read_manifest),
            "label file": self._file("labels.txt", read_label_set),
            "journal": self._file("journal", read_journal),
            "protocol": self._file("own.yaml", read_own_protocol),
            "comparison": self._file("comparison.yaml", lambda file: read_comparison(str(file))),
            "taught": self._file("taught.parquet", lambda file: read_taught(file, *TAUGHT)),
            "review": self._file("mine.review.jsonl", read_answers),
            "weights": self._weights("weights.pt"),
            "archive": self._weights("archive.pt"),
            "import": self._import,
            "custom data": self._custom,
            "annotations": self._annotations,
            "image": self._image,
            "model folder": self._model_folder,
            "run folder": self._run_folder,
            "sql": self._sql,
            "demo": self._demo,
        }
        # Each takes a tenth of a second or more: tried a tenth as often.
        self.slow_kinds: dict[str, Callable[[], None]] = {
            "template": self._template,
            "official tables": self._official_tables,
            **self._of_models(run),
        }

    def schedule(self) -> list[str]:
        """The kinds in turn, the slow ones less often."""
        return [*list(self.kinds) * 10, *self.slow_kinds]

    def _of_models(self, run: Path) -> dict[str, Callable[[], None]]:
        """The files that a trained model is read from: packages, caches, checkpoints."""
        package_run(run, self.good / "package")
        tagger = Tagger.load(self.good / "package", device="cpu")
        backbone = tagger.recognizer.backbone
        paths = tuple(sorted(self.good.glob("image.*"))[:2])
        split = Split("test", ("a", "b"), paths, np.zeros((2, 1), np.int8))
        optimization = make_optimization(tagger.recognizer, TrainingOptions(), 4)
        checkpoints = self.good / "checkpoints"
        with CheckpointWriter(checkpoints, ALONE) as writer:
            writer.save(optimization, TrainState())
        cpu = torch.device("cpu")

        def features() -> None:
            FeatureCache(backbone, cpu, workers=0).kept([split], "plain")[0].take(np.arange(2))

        def texts() -> None:
            cached_text_features(backbone, ["a cat", "a dog"], "hash")

        features()
        texts()
        return {
            "package": self._in_place(self.good / "package", lambda: Tagger.load(self.good / "package", device="cpu")),
            "checkpoint": self._in_place(checkpoints, lambda: load_checkpoint(checkpoints, optimization, ALONE)),
            "kept features": self._in_place(cache_folder("features"), features),
            "text cache": self._in_place(cache_folder("texts"), texts),
        }

    def _in_place(self, folder: Path, read: Callable[[], Any]) -> Callable[[], None]:
        """Damage one of the files below `folder`, read, and put everything back."""
        content = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

        def once() -> None:
            path = self.damage.draw.choice(list(content))
            path.write_bytes(self.damage.reshaped(content[path]))
            try:
                read()
            finally:
                shutil.rmtree(folder)
                for other, good in content.items():
                    other.parent.mkdir(parents=True, exist_ok=True)
                    other.write_bytes(good)

        return once

    def _template(self) -> None:
        path = self.folder / "prompt.jinja"
        path.write_bytes(self.damage.damaged(resources.files("sspa.prompts").joinpath("natural.jinja").read_bytes()))
        read_prompt(path).chat(Label("cat", "cat"))

    def _file(self, name: str, read: Callable[[Path], Any]) -> Callable[[], None]:
        content, path = (self.good / name).read_bytes(), self.folder / name

        def once() -> None:
            path.write_bytes(self.damage.damaged(content))
            read(path)

        return once

    def _weights(self, name: str) -> Callable[[], None]:
        """Half of the inputs are damaged in the parts of the zip, which are then packed as if whole."""
        good, whole = self.good / name, self.folder / name
        damaged = self._file(name, self._convert)

        def repacked() -> None:
            with zipfile.ZipFile(good) as old, zipfile.ZipFile(whole, "w") as new:
                chosen = self.damage.draw.choice(
                    [info for info in old.infolist() if info.filename.endswith((".pkl", ".py"))]
                )
                for info in old.infolist():
                    data = old.read(info)
                    new.writestr(info.filename, self.damage.damaged(data) if info is chosen else data)
            self._convert(whole)

        return lambda: self.damage.draw.choice((damaged, repacked))()

    def _convert(self, path: Path) -> None:
        target = self.folder / "converted.safetensors"
        try:
            convert_weights_file(path, target)
        finally:
            target.unlink(missing_ok=True)

    def _import(self) -> None:
        name = self.damage.draw.choice(("rows.csv", "rows.jsonl"))
        (self.folder / name).write_bytes(self.damage.damaged((self.good / name).read_bytes()))
        shutil.copy(self.good / "knowledge.parquet", self.folder / "table.parquet")
        exchange.import_(self.folder / "table.parquet", self.folder / name)

    def _custom(self) -> None:
        name = self.damage.draw.choice(("data.csv", "marks.tsv", "data.jsonl", "coco.json"))
        (self.folder / name).write_bytes(self.damage.reshaped((self.good / name).read_bytes()))
        read_custom("d", self.folder, self.folder / name)

    def _annotations(self) -> None:
        """A tool's file, or a folder with several, of which one is damaged."""
        root = self.folder / "annotated"
        shutil.rmtree(root, ignore_errors=True)
        (root / "images" / "train").mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            shutil.copy(self.good / "image.jpg", root / "images" / "train" / name)
        names = ("voc.xml", "cvat.xml", "studio.json", "min.json", "labelme.json", "data.yaml", "openimages.csv")
        name = self.damage.draw.choice((*names, "labels.txt"))
        if name == "labels.txt":
            (root / "labels" / "train").mkdir(parents=True)
            shutil.copy(self.good / "data.yaml", root)
            (root / "labels" / "train" / "a.txt").write_bytes(
                self.damage.damaged(b"0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1\n")
            )
            read_custom("d", root)
            return
        content = self.damage.reshaped((self.good / name).read_bytes())
        if self.damage.draw.random() < 0.5 and name in ("voc.xml", "labelme.json", "data.yaml"):
            (root / "images" / "train" / name).write_bytes(content)
            read_custom("d", root / "images" / "train")
            return
        (root / name).write_bytes(content)
        read_custom("d", root, root / name)

    def _official_tables(self) -> None:
        name, data, folder = self.damage.draw.choice(
            (("annotation.mat", "pa100k", "data"), ("PETA.mat", "peta", "images"),
             ("LandUse_Multilabeled.txt", "ucm", "Images"), ("LandUse_Multilabeled.xlsx", "ucm", "Images"))
        )  # fmt: skip
        root = self.folder / "official"
        shutil.rmtree(root, ignore_errors=True)
        (root / folder).mkdir(parents=True)
        (root / name).write_bytes(self.damage.damaged((self.good / name).read_bytes()))
        load_manifest(data, root, None)

    def _image(self) -> None:
        good = self.damage.draw.choice(sorted(self.good.glob("image.*")))
        (self.folder / good.name).write_bytes(self.damage.damaged(good.read_bytes()))
        load_image(self.folder / good.name)

    def _model_folder(self) -> None:
        (self.folder / "model").mkdir(exist_ok=True)
        content = (self.good / "open_clip_config.json").read_bytes()
        (self.folder / "model" / "open_clip_config.json").write_bytes(self.damage.reshaped(content))
        check_model_folder(self.folder / "model")

    def _run_folder(self) -> None:
        files = [path for path in (self.good / "run").iterdir() if path.is_file()]
        good = self.damage.draw.choice(files)
        run = self.folder / "run"
        if not run.exists():
            shutil.copytree(self.good / "run", run)
        changed = run / good.name
        try:
            changed.write_bytes(self.damage.reshaped(good.read_bytes()))
            list_runs(run)
            folder = open_run_folder(run)
            folder.record()
            folder.config()
            folder.knowledge()
            folder.result()
            folder.thresholds()
            folder.epochs()
            folder.test_ids()
            read_predictions(folder)
        finally:
            shutil.copy(good, changed)

    def _sql(self) -> None:
        import pyarrow as pa

        words = [self.damage.draw.choice(_SQL) for _ in range(self.damage.draw.randint(1, 8))]
        run_locked(" ".join(words), {"t": pa.table({"n": [1, 2, 3]})}, seconds=1)

    def _demo(self) -> None:
        async def page(scope: Any, receive: Any, send: Any) -> None:
            while scope["method"] == "POST" and (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        gate = Gate(
            page, Uploads(self.folder / "uploads", 10**6), hosts_of("127.0.0.1", 1), 1, frozenset({0, 1}), 10**5
        )
        call = {"data": [{"path": "x", "url": None}, 1], "fn_index": 0, "session_hash": "a"}
        path = self.damage.draw.choice(
            ("/", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/file=/etc/passwd")
        )
        scope = {
            "type": "http",
            "method": self.damage.draw.choice(("GET", "POST", "PUT", "HEAD")),
            "path": path + self.damage.draw.choice(("", "/", "\x00", "../" * 9, "a" * 9999)),
            "headers": [
                (b"host", self.damage.draw.choice((b"127.0.0.1:1", b"evil", b"\xff"))),
                (b"content-length", self.damage.draw.choice((b"10", b"-1", b"99999999999999999999", b"x"))),
            ],
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self.damage.reshaped(json.dumps(call).encode()), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(gate(scope, receive, send))
        assert 200 <= sent[0]["status"] < 500, sent


def watch(allowed: Path) -> list[str]:
    """What Python does outside of `allowed` from now on: files written or removed, programs, connections."""
    seen: list[str] = []
    inside = (str(allowed), "/dev/null")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            if arguments[2] & 3 and not arguments[0].startswith(inside):
                seen.append(f"{event} {arguments[0]}")
        elif event in _FOLDER_ARGUMENT:
            place, within = str(arguments[0]), arguments[_FOLDER_ARGUMENT[event]]
            if within >= 0 and not place.startswith("/"):
                place = f"{Path(f'/proc/self/fd/{within}').readlink()}/{place}"
            if not place.startswith(inside):
                seen.append(f"{event} {place}")
        elif event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect") and not any(
            own in str(arguments[1:2]) for own in _PROGRAMS
        ):
            seen.append(f"{event} {arguments[:2]}")

    sys.addaudithook(hook)
    return seen


def main() -> None:
    """Run, print a line per kind, and exit with 1 where anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only")
    asked = parser.parse_args()
    outcomes: Counter[tuple[str, str]] = Counter()
    escaped = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["SSPA_CACHE"] = str(Path(name) / "cache")
        fuzzer = Fuzzer(Path(name), asked.run, asked.seed)
        kinds = [asked.only] if asked.only else fuzzer.schedule()
        touched, before, began = watch(Path(name)), _peak(), time.monotonic()
        for number in range(asked.inputs):
            kind = kinds[number % len(kinds)]
            try:
                (fuzzer.kinds | fuzzer.slow_kinds)[kind]()
            except UserError as error:
                outcomes[kind, "refused" if "\n" not in str(error) else "of several lines"] += 1
            except Exception:
                outcomes[kind, "ESCAPED"] += 1
                escaped.append(f"input {number}, {kind}:\n{traceback.format_exc()}")
            else:
                outcomes[kind, "accepted"] += 1
        seconds, growth = time.monotonic() - began, _peak() - before
        outside = list(touched)
    for kind in dict.fromkeys(kinds):
        counts = [f"{count} {what}" for (of, what), count in sorted(outcomes.items()) if of == kind]
        print(f"{kind:14s} {', '.join(counts)}")
    print(
        f"{asked.inputs:,} inputs in {seconds:.0f} s, memory grew by {growth / 1e6:.0f} MB, "
        f"outside: {outside[:3] or 'nothing'}"
    )
    print("\n".join({text.splitlines()[-1]: text for text in reversed(escaped)}.values()))
    sys.exit(bool(escaped or outside or growth > MEMORY_GROWTH))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    main()
