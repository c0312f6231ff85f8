"""The real `sspa-knowledge`: with the real vLLM engine and the embedded model, and with bad input."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sspa.shared.knowledge import read_knowledge
from sspa.shared.knowledge_format import read_table

COMMAND = Path(sys.executable).with_name("sspa-knowledge")


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *arguments],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_the_real_engine_writes_knowledge_and_is_not_started_again(tmp_path: Path) -> None:
    if find_spec("vllm") is None:
        pytest.skip("no vLLM build is installed (extra cpu or gpu)")
    labels = tmp_path / "mine.txt"
    labels.write_text("horse\nbottle\n")
    first = run(
        "generate", "--samples", "1", "--labels", "mine.txt", "--retries", "1", "--max-tokens", "48", cwd=tmp_path
    )
    assert first.returncode == 0, first.stderr
    assert "embedded SmolLM2-135M-Instruct" in first.stderr
    assert "--model" in first.stderr
    output = tmp_path / "artifacts" / "mine.parquet"
    rows = read_table(output)[0].to_pylist()
    assert [row["label"] for row in rows] == ["horse", "bottle"]
    for row in rows:
        assert len(row["description"].split()) >= 4
        assert row["engine"].startswith("vllm ")
        assert json.loads(row["answers"])[0]["output_tokens"] > 4
    again = run(
        "generate", "--samples", "1", "--labels", "mine.txt", "--retries", "1", "--max-tokens", "48", cwd=tmp_path
    )
    assert again.returncode == 0
    assert "up to date" in again.stderr
    assert "starting vLLM" not in again.stderr
    assert read_knowledge(output).descriptions["horse"] == (rows[0]["description"],)


@pytest.mark.slow
def test_the_real_engine_asks_a_base_model_in_plain_text(tmp_path: Path) -> None:
    if find_spec("vllm") is None:
        pytest.skip("no vLLM build is installed (extra cpu or gpu)")
    from sspa.stage1_knowledge.embedded_model import model_folder

    base = tmp_path / "a-base-model"
    shutil.copytree(model_folder(), base, copy_function=shutil.copyfile)
    (base / "chat_template.jinja").unlink()
    (tmp_path / "mine.txt").write_text("horse\n")
    arguments = (
        "generate",
        "--samples",
        "1",
        "--labels",
        "mine.txt",
        "--model",
        "a-base-model",
        "--retries",
        "1",
        "--max-tokens",
        "48",
    )
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stderr.index("a-base-model has no chat template: it is asked in plain text")
    assert said < done.stderr.index("starting vLLM")
    (row,) = read_table(tmp_path / "artifacts" / "mine.parquet")[0].to_pylist()
    assert "horse" in row["description"].lower()
    answers = json.loads(row["answers"])
    assert all("Question:" not in answer["text"] for answer in answers)
    doubtful, following = done.stderr.splitlines()[-2:]
    assert doubtful.startswith("doubtful: ")
    table = "--knowledge artifacts/mine.parquet"
    assert following == f"next: sspa-train tag PHOTOS {table}; sspa-train run {table}"


def _imported(*arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command and list the top-level modules that it imports, which determine its start-up time."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(COMMAND), *arguments], capture_output=True, text=True, cwd=cwd
    )
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return done, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_a_run_that_knows_everything_starts_no_engine(tmp_path: Path, recorded: Path) -> None:
    """So it takes less than two seconds."""
    arguments = ("generate", "--samples", "1", "--labels", "mine.txt", "--replay", str(recorded))
    (tmp_path / "mine.txt").write_text("cat\ndog\n")
    assert run(*arguments, cwd=tmp_path).returncode == 0
    again, imported = _imported(*arguments, cwd=tmp_path)
    assert "up to date" in again.stderr
    assert "pyarrow" in imported
    assert not imported & {"torch", "vllm", "transformers", "open_clip", "timm"}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """So it answers within half a second."""
    done, imported = _imported("--help", cwd=tmp_path)
    assert "generate" in done.stdout
    assert "typer" in imported
    assert not imported & {"torch", "vllm", "pyarrow", "duckdb", "transformers", "open_clip", "numpy"}


def test_query_and_show_read_what_generate_wrote(tmp_path: Path, recorded: Path) -> None:
    (tmp_path / "mine.txt").write_text("cat\ndog\n")
    assert (
        run("generate", "--samples", "1", "--labels", "mine.txt", "--replay", str(recorded), cwd=tmp_path).returncode
        == 0
    )
    found = run("query", "artifacts/mine.parquet", "SELECT label, sample FROM knowledge", "--json", cwd=tmp_path)
    assert [json.loads(line) for line in found.stdout.splitlines()] == [
        {"label": "cat", "sample": 0},
        {"label": "dog", "sample": 0},
    ]
    shown = run("show", "artifacts/mine.parquet", "cat", cwd=tmp_path).stdout
    assert "A cat is a small furry animal" in shown
    assert "teller" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "--labels", "none.txt"), "none.txt: no such label file"),
        (("generate", "--labels", "empty.txt"), "empty.txt: has no labels"),
        (("generate", "--labels", "twice.txt"), "line 2: label 'CAT' is already on line 1"),
        (("generate", "--labels", "control.txt"), "U+0007"),
        (("generate", "--labels", "spaces.txt"), "line 1: the label is empty"),
        (("generate", "--labels", "voc", "--template", "broken.jinja"), "not a Jinja2 template"),
        (("generate", "--labels", "voc", "--template", "escape.jinja"), "escape.jinja: block 'question' fails"),
        (("generate", "--labels", "voc", "--template", "none.jinja"), "none.jinja: the template cannot be read"),
        (("generate", "--labels", "voc", "--domain", "cartoons"), "--domain cartoons: unknown"),
        (("generate", "--labels", "voc", "--model", "no-such-folder"), "no such model folder"),
        (("generate", "--labels", "voc", "--output", "cut.parquet"), "cut.parquet: cut short"),
        (("generate", "--labels", "voc", "--replay", "nowhere"), "nowhere: has no answers.sqlite"),
        (("show", "cut.parquet"), "cut.parquet: cut short"),
        (("query", "none.parquet", "SELECT 1"), "none.parquet: no such knowledge file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    files = {
        "empty.txt": "# nothing\n",
        "twice.txt": "cat\nCAT\n",
        "control.txt": "ca\x07t\n",
        "spaces.txt": "   \n",
        "broken.jinja": "{% block question %}{{ text ",
        "escape.jinja": "{% block demonstration_label %}x{% endblock %}{% block demonstration_answer %}y{% endblock %}"
        "{% block question %}{{ text.__class__.__mro__[1].__subclasses__() }}{% endblock %}",
        "cut.parquet": "PAR1 and nothing",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    assert (tmp_path / "cut.parquet").read_text() == files["cut.parquet"]
