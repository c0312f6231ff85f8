"""Arguments for vLLM: their names are those of the installed vLLM, and each has its place."""

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge.engines import vllm_arguments
from sspa.stage1_knowledge.engines.choice import EngineOptions, choose_engine
from sspa.stage1_knowledge.engines.contract import Sampling
from sspa.stage1_knowledge.engines.vllm_arguments import SPEED_ONLY, engine_arguments, gpus_of

NONE: dict[str, tuple[str, object]] = {"--dtype": ("dtype", None)}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM with few arguments."""
    names = frozenset({"tensor_parallel_size", "max_num_seqs", "hf_overrides", "dtype"})
    monkeypatch.setattr(vllm_arguments, "_argument_names", lambda: names)


@pytest.mark.usefixtures("names")
def test_settings_are_yaml_and_named_options_join_them() -> None:
    settings = ["tensor-parallel-size=8", "hf_overrides={rope_theta: 1e6}", "max_num_seqs = 4"]

    found = engine_arguments(settings, {"--dtype": ("dtype", "half"), "--quantization": ("quantization", None)})

    assert found == {
        "tensor_parallel_size": 8,
        "hf_overrides": {"rope_theta": "1e6"},
        "max_num_seqs": 4,
        "dtype": "float16",
    }


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    ("settings", "dtype", "words"),
    [
        (["max_num_seq=4"], None, "max_num_seq: is no argument of vLLM; did you mean max_num_seqs?"),
        (["zzz=4"], None, "zzz: is no argument of vLLM; its documentation lists them"),
        (["max_num_seqs"], None, "write it as key=value"),
        (["=4"], None, "write it as key=value"),
        (["max_num_seqs=4", "max-num-seqs=5"], None, "max_num_seqs: is given twice"),
        (["max_num_seqs=[4"], None, "cannot be read as YAML"),
        (["seed=4"], None, "seed: is set by --seed"),
        (["trust_remote_code=true"], None, "is set by --trust-remote-code"),
        (["dtype=half"], "float16", "--dtype and --engine-set dtype set the same"),
        ([], "int8", "--dtype int8: is not one of auto, float32, float16, bfloat16"),
        (["dtype=3"], None, "--dtype 3: is not one of"),
    ],
)
def test_what_is_wrong_is_one_line(settings: list[str], dtype: str | None, words: str) -> None:
    with pytest.raises(UserError) as refused:
        engine_arguments(settings, {"--dtype": ("dtype", dtype)})
    assert words in str(refused.value)


def test_auto_is_the_default() -> None:
    assert engine_arguments([], {"--dtype": ("dtype", "auto")}) == engine_arguments([], NONE) == {}


def test_the_names_are_those_of_the_installed_vllm() -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.engine.arg_utils import EngineArgs

    names = vllm_arguments._argument_names()

    assert names == set(EngineArgs.__dataclass_fields__)
    assert names >= SPEED_ONLY
    assert names >= set(vllm_arguments._ELSEWHERE) | {"dtype", "quantization"}


def test_gpus_are_the_product_of_the_parallel_sizes() -> None:
    assert gpus_of({}) == 1
    assert gpus_of({"tensor_parallel_size": 4, "pipeline_parallel_size": 2, "max_num_seqs": 3}) == 8
    with pytest.raises(UserError, match="tensor_parallel_size=0: give a number from 1"):
        gpus_of({"tensor_parallel_size": 0})


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"arguments": {"max_num_seqs": 4}}, "--engine-set"),
        ({"revision": "main"}, "--revision"),
        ({"code": True}, "--trust-remote-code"),
    ],
)
def test_they_are_for_models_that_run_here(given: dict[str, object], option: str) -> None:
    with pytest.raises(UserError, match=f"^{option} is for a model that vLLM runs here"):
        choose_engine(EngineOptions(endpoints=["http://127.0.0.1:9/v1"], **given), Sampling(), None)  # type: ignore[arg-type]
