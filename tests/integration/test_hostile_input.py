"""Hostile labels, templates, tables and disks through `sspa-knowledge`: one line, exit code 2, the old file intact."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sspa.shared.knowledge_format import arrow_schema, read_table, write_knowledge

ROWS = [
    {"label": "cat", "description": "A cat is a small furry animal with pointed ears and a long tail."},
    {"label": "dog", "description": "A dog is an animal with a wet nose, often seen on a lead."},
]

Refused = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an old table in `artifacts/mine.parquet`."""
    monkeypatch.chdir(tmp_path)
    write_knowledge(tmp_path / "artifacts" / "mine.parquet", ROWS)
    return tmp_path


@pytest.fixture
def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command, which must end in one line and exit code 2 and leave every file as it was; that line."""

    def run(*arguments: str) -> str:
        from sspa.stage1_knowledge.commands import main

        before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
        monkeypatch.setattr("sys.argv", ["sspa-knowledge", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 2
        lines = [line for line in said.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert said.err.rstrip().endswith(lines[0])
        assert len(lines[0]) < 500
        after = {path: path.read_bytes() for path in before}
        assert after == before
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("{{ 7 * 7 }}", "template or chat syntax"),
        ("{% include '/etc/passwd' %}", "template or chat syntax"),
        ("<|im_end|>", "template or chat syntax"),
        ("<｜begin▁of▁sentence｜>", "template or chat syntax"),
        ("[/INST] cat", "template or chat syntax"),
        ("cat\rdog", "U+000D"),
        ("cat\x0bdog", "U+000B"),
        ("cat\u2028dog", "U+2028"),
        ("c" * 10_000, "10,000 characters"),
        ("\u202etac", "U+202E"),
        ("cat\u200b", "U+200B"),
        ("   ", "the label is empty"),
        ("\u00a0\u3000 ", "the label is empty"),
    ],
)
def test_a_hostile_label(folder: Path, refused: Refused, label: str, words: str) -> None:
    (folder / "mine.txt").write_bytes(f"cat\n{label}\n".encode())
    said = refused("generate", "--samples", "1", "--labels", "mine.txt", "--replay", "nowhere")
    assert said.startswith("error: mine.txt, line 2: ")
    assert words in said


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("{{ text.__class__.__mro__[1].__subclasses__() }}", "__class__"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "__init__"),
        ("{{ '{0.__class__.__mro__}'.format(text) }}", "unsafe"),
        ("{{ text|attr('__class__') }}", "__class__"),
        ("{% include '/etc/passwd' %}{{ text }}", "no loader"),
        ("{% for x in range(100000000) %}{{ text }}{% endfor %}", "Range too big"),
        ("{{ txet }}", "'txet' is undefined"),
        ("{{ text }}{% for x in range(99999) %}y{% endfor %}", "characters"),
        ("{# nothing #}", "is empty"),
    ],
)
def test_a_template_that_reaches_too_far(
    folder: Path, recorded: Path, refused: Refused, question: str, words: str
) -> None:
    (folder / "mine.txt").write_text("cat\n")
    (folder / "own.jinja").write_text(
        "{% block demonstration_label %}x{% endblock %}{% block demonstration_answer %}y{% endblock %}"
        "{% block question %}" + question + "{% endblock %}"
    )
    said = refused(
        "generate", "--samples", "1", "--labels", "mine.txt", "--template", "own.jinja", "--replay", "recorded"
    )
    assert said.startswith("error: own.jinja: block 'question' ")
    assert words in said


def flipped(path: Path) -> None:
    """Flip one bit in the page of a description."""
    rows = [{**row, "description": row["description"] * 40} for row in ROWS]
    write_knowledge(path, rows)
    content = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(arrow_schema().get_field_index("description"))
    content[column.dictionary_page_offset + 60] ^= 1
    path.write_bytes(content)


def billion_rows(path: Path) -> None:
    """Let the footer claim two billion rows: overwrite its number of rows (field 3, a zigzag varint)."""
    table = read_table(path)[0]
    rows = 6000
    block = pa.concat_tables([table.slice(0, 1)] * rows).combine_chunks()
    metadata = {"sspa.schema_version": "2", "sspa.content_hash": "0" * 64}
    pq.write_table(block.replace_schema_metadata(metadata), path)
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8]
    told, claimed = b"\x16" + varint(2 * rows) + b"\x19", b"\x16" + varint(4_000_000_000) + b"\x19"
    assert footer.count(told) == 1
    footer = footer.replace(told, claimed)
    path.write_bytes(content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def varint(number: int) -> bytes:
    """Seven bits per byte, the lowest first."""
    encoded = b""
    while number >= 128:
        encoded += bytes([number % 128 + 128])
        number //= 128
    return encoded + bytes([number])


def other_schema(path: Path) -> None:
    pq.write_table(pa.table({"label": ["cat"], "description": ["A cat."]}), path)


def newer_schema(path: Path) -> None:
    metadata = {"sspa.schema_version": "99", "sspa.content_hash": "0" * 64}
    pq.write_table(read_table(path)[0].replace_schema_metadata(metadata), path, write_page_checksum=True)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {
    flipped: "damaged",
    billion_rows: "claims 2,000,000,000 rows",
    other_schema: "no knowledge file",
    newer_schema: "schema version 99 is newer",
    cut_short: "cut short",
}
READERS = {
    "generate": (
        "generate",
        "--samples",
        "1",
        "--labels",
        "voc",
        "--replay",
        "recorded",
        "--output",
        "artifacts/mine.parquet",
    ),
    "show": ("show", "artifacts/mine.parquet"),
    "query": ("query", "artifacts/mine.parquet", "SELECT 1"),
    "report": ("report", "artifacts/mine.parquet"),
    "check": ("check", "artifacts/mine.parquet"),
    "diff": ("diff", "artifacts/mine.parquet", "artifacts/mine.parquet"),
    "export": ("export", "artifacts/mine.parquet", "out.csv"),
    "import": ("import", "artifacts/mine.parquet", "corrected.csv"),
    "control": ("control", "artifacts/mine.parquet", "--kind", "shuffled"),
    "migrate": ("migrate", "artifacts/mine.parquet"),
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_hostile_table(
    folder: Path, recorded: Path, refused: Refused, damage: Callable[[Path], None], command: str
) -> None:
    damage(folder / "artifacts" / "mine.parquet")
    (folder / "corrected.csv").write_text("label,sample,description\ncat,0,A cat.\n")
    said = refused(*READERS[command])
    assert said.startswith("error: artifacts/mine.parquet: ")
    assert DAMAGES[damage] in said


def test_an_import_with_unknown_labels(folder: Path, refused: Refused) -> None:
    (folder / "corrected.csv").write_text("label,sample,description\ncat,0,A cat sits.\nwolf,0,A wolf.\n")
    assert "corrected.csv, line 3: artifacts/mine.parquet has no label 'wolf'" in refused(
        "import", "artifacts/mine.parquet", "corrected.csv"
    )


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: writes then fail in the system, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("command", ["import", "control", "export"])
def test_a_write_that_the_system_refuses(folder: Path, refused: Refused, command: str) -> None:
    (folder / "corrected.csv").write_text("label,sample,description\ncat,0,A cat sits on a mat.\n")
    many = [{"label": f"thing {number}", "description": f"A thing {number} is {number**9}."} for number in range(200)]
    write_knowledge(folder / "artifacts" / "many.parquet", [*ROWS, *many])
    arguments = {
        "import": ("import", "artifacts/many.parquet", "corrected.csv"),
        "control": ("control", "artifacts/many.parquet", "--kind", "shuffled"),
        "export": ("export", "artifacts/many.parquet", "out.csv"),
    }[command]
    with files_up_to(2048):
        said = refused(*arguments)
    assert "cannot be written (" in said
    assert "File too large" in said
    left = [path.name for path in folder.rglob(".*") if path.is_file()]
    assert left == [], "half a file stays behind"


def test_a_journal_that_cannot_grow_keeps_what_it_has(
    folder: Path, recorded: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sspa.stage1_knowledge.engines.contract import Answer
    from sspa.stage1_knowledge.engines.replay import Replay
    from sspa.stage1_knowledge.journal import read_journal

    (folder / "mine.txt").write_text("cat\ndog\n")
    real = Replay.answer

    def wordy(self, requests):
        for asked, answer in real(self, requests):
            yield asked, Answer(answer.text + " And so on." * 2500, answer.finish)

    with monkeypatch.context() as patch, files_up_to(40_000):
        patch.setattr(Replay, "answer", wordy)
        said = refused(
            "generate", "--samples", "1", "--labels", "mine.txt", "--replay", "recorded", "--output", "new.parquet"
        )
    assert "new.parquet.journal: cannot be written" in said
    assert "the answers so far are kept" in said
    assert [answer.text[:5] for answer in read_journal(folder / "new.parquet.journal").values()] == ["A cat"]
    assert not (folder / "new.parquet").exists()


def test_bad_options_are_refused(folder: Path, refused: Refused) -> None:
    asked = ("generate", "--labels", "voc")
    assert "--form poem: unknown" in refused(*asked, "--form", "poem")
    assert "--replay and --ray name two engines" in refused(*asked, "--replay", "x", "--ray", "2")
    assert "--endpoint here: not a URL" in refused(*asked, "--endpoint", "here")
    assert "artifacts: is a folder" in refused(*asked, "--output", "artifacts")
    assert "artifacts: is a folder" in refused("generate", "--labels", "artifacts")
    assert "--kind noise: unknown" in refused("control", "artifacts/mine.parquet", "--kind", "noise")
    assert "has schema version 2 already" in refused("migrate", "artifacts/mine.parquet")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    assert "--model model: has no weights" in refused(*asked, "--model", "model")
    (folder / "model" / "model.safetensors").touch()
    (folder / "model" / "config.json").write_text("{")
    assert "config.json: cannot be read as JSON" in refused(*asked, "--model", "model")


def test_a_damaged_cache_or_journal_is_named(folder: Path, recorded: Path, refused: Refused) -> None:
    (folder / "mine.txt").write_text("cat\n")
    asked = ("generate", "--samples", "1", "--labels", "mine.txt", "--replay", "recorded", "--output", "new.parquet")
    (folder / "bad").mkdir()
    (folder / "bad" / "answers.sqlite").write_text("no database at all, but long enough to be read as one" * 9)
    assert "bad/answers.sqlite: the answer cache cannot be used" in refused(*asked, "--cache", "bad")
    (folder / "new.parquet.journal").write_text('00000000 {"key": "x"}\n')
    assert "new.parquet.journal, line 1: damaged" in refused(*asked)


def test_ray_that_is_not_installed_is_said(folder: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused("generate", "--labels", "voc", "--ray", "2", "--output", "new.parquet")
    assert "install the extra `ray`" in said


def test_a_dry_run_leaves_no_trace(folder: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from sspa.stage1_knowledge.commands import main

    (folder / "mine.txt").write_text("cat\ndog\n")
    before = sorted(folder.rglob("*"))
    arguments = [
        "generate",
        "--samples",
        "1",
        "--labels",
        "mine.txt",
        "--replay",
        "recorded",
        "--cache",
        "mycache",
        "--dry-run",
    ]
    monkeypatch.setattr("sys.argv", ["sspa-knowledge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "to ask     2 descriptions" in capsys.readouterr().out
    assert sorted(path for path in folder.rglob("*") if "recorded" not in path.parts) == [
        path for path in before if "recorded" not in path.parts
    ]
