"""Arguments for vLLM from the command line: checked by name before anything starts, and sorted by what they change."""

import ast
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.suggestions import nearest
from sspa.shared.yaml_files import parse_yaml

DTYPES = ("float32", "float16", "bfloat16")
_SAME_DTYPE = {"float": "float32", "half": "float16"}

# What is given elsewhere, and where.
_ELSEWHERE = {
    "model": "--model",
    "tokenizer": "--model",
    "revision": "--revision",
    "code_revision": "--revision",
    "tokenizer_revision": "--revision",
    "trust_remote_code": "--trust-remote-code",
    "seed": "--seed",
    "generation_config": "--temperature, --top-p and --repetition-penalty",
    "override_generation_config": "--temperature, --top-p and --repetition-penalty",
    "structured_outputs_config": "--form",
    "logits_processors": "--form",
    "use_tqdm_on_load": "nothing: progress is shown as questions are answered",
}

# In the key of an answer by itself, or by the revision of the model, which covers its code.
_OWN_PART = frozenset({"dtype", "quantization", "trust_remote_code"})
# What changes speed, memory or messages, but no answer beyond what batch shapes do to rounding (see keys.py).
# Everything else enters the key of an answer.
SPEED_ONLY = frozenset(
    {
        "aggregate_engine_logging",
        "async_scheduling",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "data_parallel_size",
        "device_ids",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "distributed_timeout_seconds",
        "download_dir",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "kv_offloading_backend",
        "kv_offloading_size",
        "load_format",
        "long_prefill_token_threshold",
        "max_cudagraph_capture_size",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "numa_bind",
        "optimization_level",
        "performance_mode",
        "pipeline_parallel_size",
        "safetensors_load_strategy",
        "scheduling_policy",
        "tensor_parallel_size",
    }
)
_GPUS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def engine_arguments(settings: Sequence[str], named: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """vLLM's arguments by name.

    Args:
        settings: "tensor_parallel_size=8", as given to --engine-set; values are YAML.
        named: by option, the argument that it stands for and its value; None if it was not given.

    Raises:
        UserError: not key=value, no argument of the installed vLLM (with the nearest valid name), one that another
            option sets, one that is given twice, or a dtype that does not exist.
    """
    arguments: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise UserError(f"--engine-set {setting!r}: write it as key=value, for example tensor_parallel_size=8")
        if key in _ELSEWHERE:
            raise UserError(f"--engine-set {key}: is set by {_ELSEWHERE[key]}")
        if key in arguments:
            raise UserError(f"--engine-set {key}: is given twice")
        _check_name(key)
        arguments[key] = parse_yaml(text, f"--engine-set {setting!r}")
    for option, (key, value) in named.items():
        if value is None:
            continue
        if key in arguments:
            raise UserError(f"{option} and --engine-set {key} set the same; give one of them")
        arguments[key] = value
    if "dtype" in arguments:
        asked = _SAME_DTYPE.get(arguments["dtype"], arguments["dtype"])
        if asked == "auto":
            del arguments["dtype"]
        elif asked in DTYPES:
            arguments["dtype"] = asked
        else:
            raise UserError(f"--dtype {asked}: is not one of auto, {', '.join(DTYPES)}")
    return arguments


def gpus_of(arguments: Mapping[str, Any]) -> int:
    """How many GPUs one engine takes.

    Raises:
        UserError: a parallel size is not a positive number.
    """
    gpus = 1
    for key in _GPUS:
        size = arguments.get(key, 1)
        if not isinstance(size, int) or size < 1:
            raise UserError(f"--engine-set {key}={size}: give a number from 1")
        gpus *= size
    return gpus


def answer_changing(arguments: Mapping[str, Any]) -> str:
    """Those of the arguments that can change an answer and have no part of their own in its key; "" if none has."""
    changing = {key: arguments[key] for key in arguments if key not in SPEED_ONLY | _OWN_PART}
    return json.dumps(changing, sort_keys=True, default=str) if changing else ""


def _check_name(key: str) -> None:
    names = _argument_names()
    if names and key not in names:
        hint = nearest(key, sorted(names)) or "its documentation lists them as engine arguments"
        raise UserError(f"--engine-set {key}: is no argument of vLLM; {hint}")


def _argument_names() -> frozenset[str]:
    """The fields of vLLM's `EngineArgs`, from its source: importing it takes ten seconds. Empty without vLLM."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        return frozenset()
    source = Path(found.origin).parent / "engine" / "arg_utils.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            return frozenset(
                field.target.id
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            )
    return frozenset()
