"""100,000 labels with 3 descriptions each through the replay engine, and the same command again when all is known.

Run: python benchmarks/replay_at_scale.py [LABELS] [SAMPLES]

Records the answers in a folder of its own, runs the real `sspa-knowledge generate --replay` twice as processes
of their own, and prints what the system says about each: wall and processor time, and peak resident memory.
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.answer_store import AnswerStore
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.keys import common_parts, digest
from sspa.stage1_knowledge.prompt import built_in_prompt

COMMAND = Path(sys.executable).with_name("sspa-knowledge")
# Different words for each answer, so that tokens are counted and descriptions compared as for real ones.
WORDS = """
red orange yellow green blue purple pink brown black white grey silver golden beige pale dark
round square oval flat long short narrow wide thin thick curved straight hollow pointed tall small
handle lid wheel leg door window roof button screen strap blade rope frame panel horn tail
"""
COLOURS, FORMS, PARTS = (line.split() for line in WORDS.strip().splitlines())


def description(name: str, sample: int) -> str:
    """A description that the verdicts find good, drawn from a hash of its label and sample."""
    drawn = hashlib.sha256(f"{name} {sample}".encode()).digest()
    lists = (COLOURS, FORMS, PARTS, PARTS, COLOURS, FORMS)
    colour, form, first, second, third, fourth = (
        words[byte % len(words)] for words, byte in zip(lists, drawn, strict=False)
    )
    # Words of nobody's vocabulary: they need many CLIP tokens, and keep the descriptions apart.
    maker, place, friend = ("".join(chr(97 + byte % 26) for byte in drawn[at : at + 6]) for at in (6, 12, 18))
    return (
        f"A {name} is a {form} {colour} thing with a {first} of {maker}, a {third} side of {fourth} {place} "
        f"and one {second}, often seen near {friend}."
    )


def answers(asker: Asker, names: list[str], samples: int) -> Iterator[tuple[str, Answer]]:
    """Every question's answer; every tenth is empty at first, and then asked again."""
    for number, name in enumerate(names):
        for question in asker.questions(Label(name, name), samples):
            if number % 10 == 0:
                yield question.key, Answer("", "stop", 180, 1)
                question.answers.append(Answer("", "stop", 180, 1))
            yield asker.key(question), Answer(description(name, question.sample), "stop", 180, 40)


def measured(arguments: list[str]) -> None:
    """Run the command and print what the system counted for that process."""
    began = time.monotonic()
    process = os.posix_spawn(COMMAND, [str(COMMAND), *arguments], os.environ)
    _, status, usage = os.wait4(process, 0)
    wall = time.monotonic() - began
    print(
        f"exit {os.waitstatus_to_exitcode(status)}: {wall:.1f} s wall, {usage.ru_utime:.1f} s user, "
        f"{usage.ru_stime:.1f} s system, peak {usage.ru_maxrss / 1024**2:.2f} GiB; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main(labels: int, samples: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [f"thing {number}" for number in range(labels)]
        (folder / "things.txt").write_text("\n".join(names) + "\n")
        identity, form = Identity("recorded 1", "teller"), SentenceForm()
        common = digest(common_parts(identity, Sampling(), form.name, None))
        asker = Asker(built_in_prompt("natural"), form, Sampling(), 3, common, lambda _: None)
        store = AnswerStore(folder / "recorded")
        store.add(identity, answers(asker, names, samples))
        store.close()
        command = ["generate", "--labels", str(folder / "things.txt"), "--samples", str(samples)]
        command += ["--replay", str(folder / "recorded"), "--output", str(folder / "things.parquet")]
        print(f"{labels:,} labels x {samples} samples: first run, then the same again", flush=True)
        for _ in range(2):
            measured(command)


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:3]]
    main(*given, *(100_000, 3)[len(given) :])
