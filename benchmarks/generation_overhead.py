"""Generation against bare `LLM.chat`: the same prompts, the same process, the real engine, start left out.

Run: python benchmarks/generation_overhead.py [ROUNDS]
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from sspa.shared.label_sets import read_label_set
from sspa.stage1_knowledge.answer_forms import SentenceForm
from sspa.stage1_knowledge.engines.contract import Sampling
from sspa.stage1_knowledge.engines.vllm_offline import VllmOffline
from sspa.stage1_knowledge.generation import Job, generate
from sspa.stage1_knowledge.model_source import find_model
from sspa.stage1_knowledge.prompt import built_in_prompt


def main(rounds: int) -> None:
    from vllm import SamplingParams

    sampling = Sampling(max_tokens=32)
    engine = VllmOffline(find_model(None), sampling)
    engine.start()
    engine.close = lambda: None  # type: ignore[method-assign]  # kept for the next round
    labels, prompt, form = read_label_set("voc"), built_in_prompt("natural"), SentenceForm()
    messages = [form.messages(prompt, label) for label in labels.labels]
    parameters = SamplingParams(
        temperature=sampling.temperature, top_p=sampling.top_p, repetition_penalty=sampling.repetition_penalty,
        max_tokens=sampling.max_tokens, seed=0,
    )  # fmt: skip
    engine.llm.chat(messages, parameters, use_tqdm=False)  # warm
    bare, ours = [], []
    for number in range(rounds):
        began = time.process_time(), time.monotonic()
        engine.llm.chat(messages, parameters, use_tqdm=False)
        bare.append((time.process_time() - began[0], time.monotonic() - began[1]))
        with tempfile.TemporaryDirectory() as folder:
            job = Job(labels, "natural", prompt, form, sampling, 1, 0, Path(folder) / f"{number}.parquet")
            began = time.process_time(), time.monotonic()
            generate(job, engine)
            ours.append((time.process_time() - began[0], time.monotonic() - began[1]))
    for what, index in (("processor", 0), ("wall", 1)):
        first, second = (statistics.median(times[index] for times in each) for each in (bare, ours))
        print(
            f"{what} time, median of {rounds}: bare {first:.2f} s, generate {second:.2f} s, ratio {second / first:.3f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
