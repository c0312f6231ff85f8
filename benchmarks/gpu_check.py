"""Everything that only a GPU can show, in one page to send back: `make gpu-check`, about half an hour on one GPU.

Run: python benchmarks/gpu_check.py [PAGE]

The tests marked `gpu`, speed by `sspa-train bench` (ViT-B/16 and L/14, 224 and 448 px; float32, bf16, fp16, compiled),
and stage one with the embedded model. A step that fails is part of the page; the exit code says whether there was one.
"""

import platform
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
TAIL = 40


def bench(model: str, size: int, *options: str) -> list[str]:
    return [str(BIN / "sspa-train"), "bench", "--backbone", f"open_clip:{model}", "--image-size", str(size),
            "--device", "cuda", "--rounds", "3", *options]  # fmt: skip


def steps() -> list[list[str]]:
    pytest = [sys.executable, "-m", "pytest", "-m", "gpu", "-q"]
    generate = [str(BIN / "sspa-knowledge"), "generate", "--labels", "voc", "--output", "gpu-check-voc.parquet"]
    found = [["nvidia-smi"], pytest, generate]
    for model in ("ViT-B-16", "ViT-L-14"):
        for size in (224, 448):
            found += [bench(model, size, "--precision", precision) for precision in ("float32", "bf16", "fp16")]
            found += [bench(model, size, "--precision", "bf16", "--compile")]
    return found


def run(command: list[str]) -> tuple[int, str]:
    began = time.monotonic()
    shown = " ".join(Path(word).name if word.startswith("/") else word for word in command)
    print(shown, file=sys.stderr, flush=True)
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        code, lines = ended.returncode, ended.stdout.splitlines()
    except OSError as error:
        code, lines = 127, [str(error)]
    left = [f"... {len(lines) - TAIL} lines before"] if len(lines) > TAIL else []
    body = "\n".join([*left, *lines[-TAIL:]])
    return code, f"## `{shown}`\n\nexit code {code}, {time.monotonic() - began:.0f} s\n\n```\n{body}\n```\n"


def main(page: Path) -> int:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: every step below needs one"
    parts = [f"# GPU check\n\n{gpu}; torch {torch.__version__}, {platform.platform()}\n"]
    codes = []
    for command in steps() if torch.cuda.is_available() else []:
        code, part = run(command)
        codes.append(code)
        parts.append(part)
        page.write_text("\n".join(parts))  # after each, so that an interrupted check leaves what it has
    page.write_text("\n".join(parts))
    print(f"{page}: {sum(map(bool, codes))} of {len(codes)} steps failed", file=sys.stderr)
    return int(any(codes) or not codes)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "gpu-check.md")))
