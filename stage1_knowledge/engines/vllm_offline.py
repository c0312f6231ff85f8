"""vLLM in this process, without a server."""

import importlib.metadata
import math
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.heavy_imports import heavy_import
from sspa.shared.library_noise import quiet
from sspa.shared.terminal import say
from sspa.stage1_knowledge.engines.contract import Answer, Engine, Identity, Request, Sampling
from sspa.stage1_knowledge.engines.vllm_arguments import answer_changing
from sspa.stage1_knowledge.model_source import ModelSource

# How many requests are queued in vLLM: far more than it runs at once, so that its batches stay full, and few
# enough that 300,000 rendered chats are never in memory at the same time.
QUEUE = 4096
STRUCTURED_BACKEND = "xgrammar"
# Compute capability 8.0: Ampere.
_COMPUTES_BFLOAT16 = 8.0


class VllmOffline(Engine):
    """vLLM's `LLM`, fed and stepped so that answers arrive one by one and not all at the end."""

    def __init__(
        self,
        model: ModelSource,
        sampling: Sampling,
        schema: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare; nothing is loaded before the first question.

        Args:
            model: what answers.
            sampling: how its answers are drawn.
            schema: the JSON schema of answers; None for plain text.
            arguments: further ones for vLLM's `LLM`; they override what is chosen here.
        """
        self._model, self._sampling, self._schema = model, sampling, schema
        self._arguments = {"dtype": compute_dtype(), **(arguments or {})}
        self.llm: Any = None

    @property
    def identity(self) -> Identity:
        return Identity(
            engine=f"vllm {vllm_version()}",
            model=self._model.name,
            revision=self._model.revision,
            quantisation=self._arguments.get("quantization") or self._model.quantisation,
            dtype=self._arguments["dtype"],
            chat_template=self._model.chat_template,
            structured_backend=STRUCTURED_BACKEND,
            engine_arguments=answer_changing(self._arguments),
        )

    def answer(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer]]:
        """Yield answers as vLLM finishes them, refilling its queue meanwhile."""
        self.start()
        queue = iter(requests)
        running: dict[str, Request] = {}
        while True:
            # Refilled in large blocks: rendering a chat between any two steps would stall the batch.
            if len(running) <= QUEUE // 2 and (block := list(islice(queue, QUEUE - len(running)))):
                running.update(self._enqueue(block))
            if not running:
                return
            for output in self.llm.llm_engine.step():
                if output.finished:
                    yield running.pop(output.request_id), _answer(output)

    def close(self) -> None:
        """Free the model's memory."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None

    def _enqueue(self, block: list[Request]) -> dict[str, Request]:
        try:
            ids = self.llm.enqueue_chat(
                [list(request.messages) for request in block],
                [self._parameters(request) for request in block],
                use_tqdm=False,
                chat_template=self._model.template,
                # Reasoning models would spend the token limit on their reasoning; other templates ignore this.
                chat_template_kwargs={"enable_thinking": False},
            )
        except ValueError as error:
            # A prompt longer than the model's context, or a chat template that rejects these roles.
            raise UserError(f"{self._model.name} cannot be asked: {' '.join(str(error).split())[:240]}") from error
        # vLLM appends a random suffix to its running number; finished outputs carry only the number.
        return {name.partition("-")[0]: request for name, request in zip(ids, block, strict=True)}

    def _parameters(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        return SamplingParams(
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            repetition_penalty=self._sampling.repetition_penalty,
            max_tokens=request.max_tokens,
            seed=request.seed,
            stop=list(self._model.stops),
            structured_outputs=StructuredOutputsParams(json=dict(self._schema)) if self._schema else None,
        )

    def start(self) -> None:
        """Load the model, unless it is loaded already.

        Raises:
            UserError: vLLM is not installed, or cannot run this model.
        """
        if self.llm is None:
            self.llm = self._load()

    def _load(self) -> Any:
        folder = self._model.folder()
        say(f"starting vLLM {vllm_version()} with {self._model.name}")
        # vllm reads these once, when it is imported. The user's own settings take precedence.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # Waiting threads must not spin: on a busy machine they would take CPU time from working ones.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        with self._quiet():
            return self._started(folder)

    def _quiet(self) -> AbstractContextManager[None]:
        """Unless the user wants to see what vLLM says, or its other processes may fail later and say why."""
        parallel = any(self._arguments.get(f"{kind}_parallel_size", 1) != 1 for kind in ("tensor", "pipeline", "data"))
        apart = os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] != "0"
        if parallel or apart or os.environ["VLLM_LOGGING_LEVEL"] != "ERROR":
            return nullcontext()
        return quiet("starting vLLM", "vllm")

    def _started(self, folder: Path) -> Any:
        try:
            with heavy_import():
                from vllm import LLM
        except ImportError as error:
            raise UserError(
                f"vLLM is not installed ({error}); install the extra `cpu` or `gpu`, or use --endpoint or --replay"
            ) from error
        options: dict[str, Any] = {
            "model": str(folder),
            "max_model_len": 1024,
            "seed": 0,
            "generation_config": "vllm",
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
            "trust_remote_code": False,
            "gpu_memory_utilization": 0.85,
            "structured_outputs_config": {"backend": STRUCTURED_BACKEND},
        }
        if not _has_cuda():
            options["enforce_eager"] = True
            # Only full blocks of tokens are cached, and the default of 128 is longer than our demonstrations.
            options["block_size"] = 32
            # vLLM 0.32 rewinds a request's generator after each chunk but the last, which CPU generators refuse
            # ("CPU Generator does not use offset"); our prompts are short enough for a single chunk.
            options["enable_chunked_prefill"] = False
        options |= self._arguments
        try:
            return LLM(**options)
        except (ValueError, OSError) as error:
            # How vLLM rejects a model or an argument; a bug of ours would raise something else.
            raise UserError(f"vLLM cannot run {self._model.name}: {_reason(error)}") from error
        except RuntimeError as error:
            if not (problem := _known_problem(error)):
                raise
            raise UserError(f"vLLM cannot run {self._model.name}: {problem}") from error


def _reason(error: Exception) -> str:
    """The first line of an error; of pydantic's, which lists fields below it, all of it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines if "validation error" in lines[0] else lines[:1])[:300] if lines else type(error).__name__


def _known_problem(error: RuntimeError) -> str:
    """What a user can do about it; "" if nothing is known."""
    if "out of memory" in str(error).lower():
        return (
            f"the device has too little memory ({_reason(error)}); spread the model over GPUs (--tensor-parallel), "
            "take a quantised or smaller one, or raise --gpu-memory if other programs leave room"
        )
    if "initialization failed" in str(error):
        return "a process of the engine did not start; what vLLM printed says why"
    return ""


def compute_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """bfloat16 where the hardware computes in it; else float16 on GPUs and float32 on CPUs.

    An older GPU (T4, V100) refuses bfloat16, and vLLM's CPU build would emulate it at half the speed. Known without
    importing torch or starting the engine, since it enters the key of every answer.
    """
    if not _installed("vllm-cpu"):
        return "float16" if _oldest_gpu() < _COMPUTES_BFLOAT16 else "bfloat16"
    try:
        flags = cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        return "float32"
    # x86 names its instructions avx512_bf16 and amx_bf16, ARM bf16.
    return "bfloat16" if {"avx512_bf16", "amx_bf16", "bf16"}.intersection(flags) else "float32"


def _oldest_gpu() -> float:
    """The least compute capability of the GPUs here; infinite where NVIDIA's driver shows none."""
    ask = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        shown = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        return min(map(float, shown), default=math.inf)
    except (OSError, subprocess.SubprocessError, ValueError):
        return math.inf


def vllm_version() -> str:
    """The version of the installed vLLM build, without importing it."""
    return _installed("vllm") or _installed("vllm-cpu") or "not installed"


def _installed(package: str) -> str:
    """The installed version of a package, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _answer(output: Any) -> Answer:
    completion = output.outputs[0]
    return Answer(
        text=completion.text,
        finish="length" if completion.finish_reason == "length" else "stop",
        prompt_tokens=len(output.prompt_token_ids),
        output_tokens=len(completion.token_ids),
        cached_tokens=output.num_cached_tokens or 0,
    )
