"""The commands on tables: export and import, controls, diff, check, report, query, migrate, dry run."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sspa.shared.errors import UserError
from sspa.shared.knowledge import read_knowledge
from sspa.shared.knowledge_control import KINDS
from sspa.shared.knowledge_format import ADDED_SINCE, migrate, read_table, write_knowledge
from sspa.stage1_knowledge import control, exchange
from sspa.stage1_knowledge.dry_run import describe_plan
from sspa.stage1_knowledge.generation import generate
from sspa.stage1_knowledge.query import run_query
from sspa.stage1_knowledge.report import check, diff, report
from sspa.stage1_knowledge.show import show_all, show_label


@pytest.fixture
def table(make_job, teller) -> Path:
    job = make_job("cat", "dog", "cow", samples=2)
    generate(job, teller)
    return job.output


def rows(path: Path) -> list[dict]:
    return read_table(path)[0].to_pylist()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_exported_file_comes_back_as_it_was_and_corrected(
    table: Path, tmp_path: Path, ending: str, make_job, teller
) -> None:
    target = tmp_path / f"out.{ending}"
    assert exchange.export(table, target) == 6
    before = table.read_bytes()
    assert exchange.import_(table, target) == 0
    assert table.read_bytes() == before
    description = 'A "dog", with ears; häßlich, {{ 7 }} = "x".'
    if ending == "csv":
        with target.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
        lines[3]["description"] = description
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, lines[0])
            writer.writeheader()
            writer.writerows(reversed(lines))  # sorted otherwise by a spreadsheet
    else:
        entries = [json.loads(line) for line in target.read_text().splitlines()]
        entries[3]["description"] = description
        target.write_text("\n".join(json.dumps(entry) for entry in entries))
    assert exchange.import_(table, target) == 1
    corrected = rows(table)[3]
    assert (corrected["label"], corrected["sample"], corrected["description"]) == ("dog", 1, description)
    assert (corrected["origin"], corrected["verdict"], corrected["model"], corrected["key"]) == (
        "human",
        "good",
        "",
        "",
    )
    assert corrected["clip_tokens"] > 10
    teller.asked.clear()
    job = make_job("cat", "dog", "cow", "ox", samples=2)
    generate(job, teller)
    assert len(teller.asked) == 2
    assert rows(table)[3] == corrected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"Label ;SAMPLE; Description;\n\ncat;0;A cat, with fur, sits.;\n;;;\n"),
        ("a.CSV", 'label,sample,description\r\ncat,0,"A cat, with fur, sits."\r\n'.encode("utf-16")),
        ("a.tsv", b"\xef\xbb\xbflabel\tsample\tdescription\tnotes\ncat\t0\tA cat, with fur, sits.\tmine\n"),
        ("a.csv", b'"label","sample","description"\n"cat","0","A cat, with fur, sits."\n'),
        ("a.JSONL", b'{"label": "cat", "sample": 0, "description": "A cat, with fur, sits."}\n\n'),
    ],
)
def test_an_import_is_read_as_spreadsheets_write_it(table: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert exchange.import_(table, tmp_path / name) == 1
    assert [row["description"] for row in rows(table) if (row["label"], row["sample"]) == ("cat", 0)] == [
        "A cat, with fur, sits."
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "'=", "''+", "'", "'a", "\t="])
def test_no_cell_is_a_formula(table: Path, tmp_path: Path, start: str) -> None:
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("label", "sample", "description"))
        writer.writeheader()
        typed = f"'{start}" if start[0] in "=+-@" or start.startswith(("'=", "''+")) else start
        writer.writerow({"label": "dog", "sample": 1, "description": f"{typed}HYPERLINK(1) is a dog."})
    assert exchange.import_(table, tmp_path / "in.csv") == 1
    assert rows(table)[3]["description"] == f"{start}HYPERLINK(1) is a dog.".strip()
    exchange.export(table, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert exchange.import_(table, tmp_path / "out.csv") == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "label,sample,description\nwolf,0,x\n", "line 2: .*no label 'wolf'"),
        ("a.csv", "label,sample,description\ncat,7,x\n", "no sample 7 of label 'cat'"),
        ("a.csv", "label,sample,description\ncat,one,x\n", "sample 'one' of label 'cat' is no whole number"),
        ("a.csv", "label,sample,description\ncat,0,x\ncat,0,y\n", "line 3: label 'cat', sample 0 comes twice"),
        ("a.csv", "label,description\ncat,x\n", "lacks the column 'sample'"),
        ("a.csv", "label,sample,description\ncat,0\n", "line 2: has another number of cells"),
        ("a.csv", "label,sample,description\ncat,0,  \n", "line 2: the description of 'cat' is empty"),
        ("a.csv", "", "has no rows"),
        ("a.csv", f"label,sample,description\ncat,0,{'x' * 3000}\n", "3,000 characters"),
        ("a.jsonl", '{"label": "cat"\n', "line 1: cannot be read as JSON"),
        ("a.jsonl", "[1]\n", "not a JSON object"),
        ("a.txt", "cat", "neither .csv nor .jsonl"),
    ],
)
def test_a_bad_import_is_refused_and_changes_nothing(
    table: Path, tmp_path: Path, name: str, content: str, words: str
) -> None:
    before = table.read_bytes()
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        exchange.import_(table, tmp_path / name)
    assert table.read_bytes() == before


def test_controls_keep_labels_and_numbers_and_lose_the_knowledge(table: Path, tmp_path: Path) -> None:
    original = read_knowledge(table)
    for kind in KINDS:
        target = tmp_path / f"{kind}.parquet"
        assert control.make_control(table, kind, target, seed=3) == 6
        made = read_knowledge(target)
        assert made.labels == original.labels
        assert {row["origin"] for row in rows(target)} == {"control"}
        assert {row["prompt"] for row in rows(target)} == {f"control: {kind}"}
        again = tmp_path / "again.parquet"
        control.make_control(table, kind, again, seed=3)
        assert again.read_bytes() == target.read_bytes()
        if kind == "name-only":
            assert set(made.descriptions.values()) == {("", "")}
        elif kind == "shuffled":
            assert sorted(made.descriptions.values()) == sorted(original.descriptions.values())
            assert all(made.descriptions[key] != original.descriptions[key] for key in original.descriptions)
        else:
            lengths = {key: [len(s.split()) for s in kept] for key, kept in original.descriptions.items()}
            assert {key: [len(s.split()) for s in kept] for key, kept in made.descriptions.items()} == lengths
            assert made.descriptions != original.descriptions
    with pytest.raises(UserError, match="noise: unknown"):
        control.make_control(table, "noise", tmp_path / "x.parquet")


def test_diff_names_the_label_and_the_setting(table: Path, make_job, scripted, tmp_path: Path) -> None:
    other = make_job("cat", "dog", "ox", samples=2, output=tmp_path / "other.parquet")
    changed = dataclasses.replace(other, sampling=dataclasses.replace(other.sampling, temperature=0.9))
    engine = scripted(lambda question, seed: f"The {'cat dog ox'} is a red box with {seed} wheels and a tail, by day.")
    generate(changed, engine)
    lines = diff(table, other.output).splitlines()
    assert "~ cat: temperature 0.7 -> 0.9" in lines
    assert f"- cow: only in {table}" in lines
    assert any(line.startswith("+ ox (sample 1): only in") for line in lines)
    assert lines[-1] == "0 descriptions are the same"
    assert diff(table, table) == "6 descriptions are the same"


def test_diff_after_an_edit_shows_the_edit(table: Path, tmp_path: Path) -> None:
    before, rows = tmp_path / "before.parquet", tmp_path / "rows.csv"
    shutil.copyfile(table, before)
    exchange.export(table, rows)
    old = next(row for row in read_table(table)[0].to_pylist() if (row["label"], row["sample"]) == ("cat", 0))
    rows.write_text(rows.read_text().replace(old["description"], "A cat is a small animal.", 1))
    exchange.import_(table, rows)
    assert diff(before, table).splitlines() == [
        "~ cat: edited by a person",
        f"    - {old['description']}",
        "    + A cat is a small animal.",
        "5 descriptions are the same",
    ]
    assert diff(table, before).splitlines()[0] == "~ cat: a person's, now the model's"


def test_check_verifies_and_judges_again(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "sound; 6 rows, schema version 2" in check(table)
    assert "0 more by today's rules" in check(table)
    monkeypatch.setattr("sspa.stage1_knowledge.verdicts.MAX_WORDS", 10)
    text = check(table)
    assert "6 more by today's rules" in text
    assert "  dog, sample 1: good in the file, today too long" in text
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(UserError, match="cut short"):
        check(table)


def test_report_counts_verdicts_and_shows_the_doubtful(make_job, scripted) -> None:
    engine = scripted(lambda question, _: "" if "dog" in question else "The cat is a round box with a lid and a tail.")
    job = make_job("cat", "dog")
    generate(job, engine)
    text = report(job.output)
    assert "verdicts   1 good (50%), 1 doubtful (50%)" in text
    assert "retried    1 (50%), 5 answers in all" in text
    assert "doubtful   1 empty" in text
    assert "  dog: (empty)  [empty]" in text
    assert "prompt tokens from the prefix cache" in text
    assert "diversity" not in text


def test_report_says_how_different_a_labels_descriptions_are(make_job, scripted) -> None:
    seen = ["A box with a red lid.", "A box with a red lid.", "A tall tail."]
    job = make_job("cat", samples=3, retries=0)
    generate(job, scripted(lambda _, seed: seen[seed // 1000]))
    # Words in common of all: 5 of 5, and twice 1 of 7.
    assert f"share {(1 + 2 / 7) / 3:.0%} of their words on average; 1 nearly repeat an earlier one" in report(
        job.output
    )


def test_show_reads_all_or_one_with_its_origin(table: Path) -> None:
    assert show_all(table).splitlines()[::3] == ["cat", "dog", "cow"]
    text = show_label(table, "dog")
    assert "seed 1000" in text
    assert "key" in text
    with pytest.raises(UserError, match="no label 'wolf'"):
        show_label(table, "wolf")


def test_query_answers_and_is_locked_down(table: Path, tmp_path: Path) -> None:
    columns, found = run_query(table, "SELECT label, count(*) AS n FROM knowledge GROUP BY label ORDER BY label")
    assert (columns, found) == (["label", "n"], [("cat", 2), ("cow", 2), ("dog", 2)])
    target = tmp_path / "written.csv"
    for sql in (
        f"COPY knowledge TO '{target}'",
        "SELECT * FROM read_text('/etc/hostname')",
        f"SELECT * FROM '{table}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '/tmp/x.db'",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "SELECT * FROM nothing",
        "SELEC",
    ):
        with pytest.raises(UserError, match="query refused"):
            run_query(table, sql)
    assert not target.exists()
    with pytest.raises(UserError, match="more than 1,000,000 rows; add a LIMIT"):
        run_query(table, "SELECT * FROM range(100000000)")
    before = table.read_bytes()
    with pytest.raises(UserError):
        run_query(table, "DELETE FROM knowledge")
    assert table.read_bytes() == before


def test_two_tables_can_be_asked_side_by_side(table: Path, make_job, scripted, tmp_path: Path) -> None:
    second = make_job("cat", "ox", samples=2, output=tmp_path / "second.parquet")
    generate(second, scripted(lambda question, seed: f"An animal with {seed} brown spots and a long tail, a cat."))
    columns, found = run_query(
        table,
        "SELECT label, sample, knowledge.model, other.description FROM knowledge JOIN other USING (label, sample)",
        second.output,
    )
    assert columns == ["label", "sample", "model", "description"]
    assert {row[:2] for row in found} == {("cat", 0), ("cat", 1)}


def test_an_older_schema_is_refused_and_migrated(table: Path) -> None:
    current, content_hash = read_table(table)
    older = current.drop_columns(list(ADDED_SINCE[1]))
    metadata = {"sspa.schema_version": "1", "sspa.content_hash": content_hash}
    pq.write_table(older.replace_schema_metadata(metadata), table, write_page_checksum=True)
    with pytest.raises(UserError, match=r"schema version 1 is older than 2; run `sspa-knowledge migrate"):
        read_knowledge(table)
    assert migrate(table) == 1
    migrated, same = read_table(table)
    assert same == content_hash
    assert migrated["description"].equals(current["description"])
    assert set(migrated["origin"].to_pylist()) == {"model"}
    with pytest.raises(UserError, match="has schema version 2 already"):
        migrate(table)


def test_dry_run_says_what_would_be_asked_and_asks_nothing(make_job, teller, scripted) -> None:
    generate(make_job("cat", "dog"), teller)
    job = make_job("cat", "dog", "ox")
    before = {path: path.read_bytes() for path in job.output.parent.iterdir() if path.is_file()}
    text = describe_plan(job, scripted(lambda *_: pytest.fail("asked")), None)
    assert "known      2 in the table" in text
    assert "to ask     1 descriptions, about " in text
    assert "user: Describe in one sentence what a photo of a ox shows" in text
    assert {path: path.read_bytes() for path in job.output.parent.iterdir() if path.is_file()} == before


def test_a_full_disk_keeps_the_old_file(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_knowledge(table, rows(table))
    assert table.read_bytes() == before
    assert [path.name for path in table.parent.glob(".*parquet.*")] == []


def test_corrections_are_not_overwritten(table: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    exchange.export(table, target)
    exchange.export(table, target)  # the same again
    corrected = target.read_text(encoding="utf-8").replace("has", "had", 1) + "\n"
    target.write_text(corrected, encoding="utf-8")
    with pytest.raises(UserError, match=r"perhaps your corrections; nothing was changed.*sspa-knowledge import"):
        exchange.export(table, target)
    assert target.read_text(encoding="utf-8") == corrected


def test_swapped_arguments_are_recognised(table: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    exchange.export(table, target)
    with pytest.raises(UserError, match=f"are swapped; write sspa-knowledge import {table} {target}"):
        exchange.import_(target, table)
