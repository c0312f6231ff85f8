"""Many images tagged in four ways, three of them disturbed: whether each image has its row, once, and the same one.

Run: python benchmarks/very_many_images.py RUN [IMAGES] [FOLDER]

Writes IMAGES (200,000) tiny JPEGs into 200 shards in FOLDER (a temporary one), and tags them with the trained run RUN:
by one process; by two of torchrun's, of which one is killed, and the same command again; by two jobs that overlap; by
two Ray actors, of which one is killed. Linux only; the killed actor is found by its process title.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from PIL import Image

SHARDS = 200
KILLED_AT = 60  # finished files
ROWS = (
    "SELECT count(*), count(DISTINCT path), count(error), sum(hash(path, probabilities, predicted)::HUGEINT) FROM '{}'"
)


def make(folder: Path, images: int) -> None:
    """Shards of JPEGs of 48 x 32 pixels of noise; only those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        path, generator = folder / f"s-{shard:05}.tar", np.random.default_rng(shard)
        if path.exists():
            continue
        with tarfile.open(path.with_suffix(".part"), "w") as tar:
            for number in range(images // SHARDS):
                pixels, written = generator.integers(90, 160, (32, 48, 3), dtype=np.uint8), io.BytesIO()
                Image.fromarray(pixels).save(written, "JPEG")
                member = tarfile.TarInfo(f"{number:06}.jpg")
                member.size = written.tell()
                written.seek(0)
                tar.addfile(member, written)
        path.with_suffix(".part").rename(path)


@dataclass(frozen=True)
class Job:
    """`sspa-train predict RUN SHARDS --out OUT/`, started in some way."""

    run: str
    shards: Path
    out: Path

    def start(self, *options: str, **place: int) -> subprocess.Popen[bytes]:
        program = [str(Path(sys.executable).with_name("sspa-train")), "predict", self.run, str(self.shards)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in place.items()}}
        return subprocess.Popen(
            [*program, "--out", f"{self.out}/", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start_two(self) -> list[subprocess.Popen[bytes]]:
        """As torchrun starts them, which would end both when one dies."""
        return [self.start(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, LOCAL_WORLD_SIZE=2) for rank in range(2)]

    def wait_for_files(self) -> None:
        while len(list(self.out.glob("*.parquet"))) < KILLED_AT:
            time.sleep(0.2)


def by_one(job: Job) -> None:
    assert job.start().wait() == 0


def by_two_of_which_one_dies(job: Job) -> None:
    both = job.start_two()
    job.wait_for_files()
    both[1].send_signal(signal.SIGKILL)
    assert [process.wait() for process in both] == [0, -signal.SIGKILL]
    assert [process.wait() for process in job.start_two()] == [0, 0]


def by_overlapping_jobs(job: Job) -> None:
    assert [process.wait() for process in [job.start("--shard", "1/2"), job.start()]] == [0, 0]


def by_actors_of_which_one_dies(job: Job) -> None:
    driver = job.start("--ray", "2")
    job.wait_for_files()
    actors = subprocess.run(["pgrep", "-f", "ray::.*Map"], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(actors[-1]), signal.SIGKILL)
    assert driver.wait() == 0


WAYS: dict[str, Callable[[Job], None]] = {
    "one process": by_one,
    "two processes, one killed": by_two_of_which_one_dies,
    "two overlapping jobs": by_overlapping_jobs,
    "two Ray actors, one killed": by_actors_of_which_one_dies,
}


def main() -> None:
    """Print a row for each way."""
    run, images = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[3] if len(sys.argv) > 3 else temporary)
        make(folder / "shards", images)
        print("| how | s | rows | paths | errors | checksum |\n|---|---|---|---|---|---|", flush=True)
        for name, way in WAYS.items():
            out = folder / name.replace(" ", "-").replace(",", "")
            shutil.rmtree(out, ignore_errors=True)
            started = time.monotonic()
            way(Job(run, folder / "shards", out))
            (rows,) = duckdb.execute(ROWS.format(f"{out}/*.parquet")).fetchall()
            print("|", name, *(f"| {figure}" for figure in (round(time.monotonic() - started), *rows)), "|", flush=True)


if __name__ == "__main__":
    main()
