"""Where the values of a configuration come from, and configurations that earlier versions wrote."""

from pathlib import Path

import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.config.resolving import resolve_config, stored_config, teacher_config
from sspa.stage2_training.model.loss_options import AslOptions, BceOptions, TwoWayOptions
from sspa.stage2_training.model.options import SspaOptions

KNOWLEDGE = {"knowledge": "k.parquet"}


def test_later_sources_override_earlier_ones(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("training: {epochs: 3, seed: 3}\nmodel: {qsm: {layers: 3}}\n")
    config = resolve_config([file], ["training.epochs=4"], {**KNOWLEDGE, "training.seed": 5}, base={"loss.kind": "bce"})
    assert (config.training.epochs, config.training.seed, config.loss.kind) == (4, 5, "bce")
    assert config.model.qsm.layers == 3


def test_a_source_that_chooses_another_loss_discards_options_that_this_one_lacks() -> None:
    base = {"loss.gamma_negative": 3.0, "loss.smoothing": 0.1, "model.qsm.layers": 3}
    config = resolve_config(values={**KNOWLEDGE, "loss.kind": "bce", "model.head": "csra"}, base=base)
    assert config.loss == BceOptions(smoothing=0.1)
    assert config.model.head == "csra"


def test_options_of_two_losses_in_one_source_are_a_mistake() -> None:
    with pytest.raises(UserError, match=r"loss\.gamma_negative belongs to loss\.kind=asl"):
        resolve_config(settings=["loss.kind=bce", "loss.gamma_negative=3"], values=KNOWLEDGE)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("asl", AslOptions(smoothing=0.2)), ("bce", BceOptions(smoothing=0.2)), ("two-way", TwoWayOptions(temperature=3))],
)
def test_a_stored_configuration_with_the_options_of_all_losses_opens(kind: str, expected: object) -> None:
    options = {"gamma_negative": 2.0, "gamma_positive": 0.0, "clip": 0.05, "temperature": 3.0, "smoothing": 0.2}
    config = stored_config({**KNOWLEDGE, "loss": {"kind": kind, **options}})
    assert config.loss == expected


def test_a_run_from_before_the_knowledge_branch_has_two_branches_with_equal_shares() -> None:
    old = stored_config({**KNOWLEDGE, "model": {"head": "sspa"}, "training": {"epochs": 3}})
    assert isinstance(old.model, SspaOptions)
    assert (old.model.knowledge_branch, old.model.mixture, old.training.branch_shares) == (
        False,
        "probabilities",
        "equal",
    )
    of_linear = stored_config({**KNOWLEDGE, "model": {"head": "linear"}})
    assert of_linear.model.head == "linear"


def test_a_run_from_before_descriptions_were_selected_still_uses_all() -> None:
    old = stored_config({**KNOWLEDGE, "model": {"head": "sspa", "kap": {"average": "logits"}}}).model
    assert isinstance(old, SspaOptions)
    assert (old.kap.select, old.kap.keep, old.kap.average) == ("all", None, "logits")
    new = stored_config({**KNOWLEDGE, "model": {"head": "sspa", "kap": {"select": "telling", "keep": 2}}}).model
    assert isinstance(new, SspaOptions)
    assert (new.kap.select, new.kap.keep) == ("telling", 2)


def test_a_stored_configuration_with_a_strange_key_is_refused() -> None:
    with pytest.raises(UserError, match=r"there is no key .loss\.strangeness."):
        stored_config({**KNOWLEDGE, "loss": {"kind": "asl", "strangeness": 1.0}})


def test_a_teacher_may_have_another_recipe() -> None:
    given = {"knowledge": "k.parquet", "data.name": "mine.parquet", "training.seed": 3}
    config = resolve_config(values=given, preset="embedded-photos-taught")
    assert (config.teacher.run, config.training.epochs, config.training.batch_size) == ("self", 3, 16)
    teacher = teacher_config(config)
    assert teacher.teacher.run is None
    assert (teacher.training.epochs, teacher.training.batch_size, teacher.training.seed) == (20, 8, 3)
    assert (teacher.preset, teacher.data, teacher.knowledge) == ("embedded-photos-few", config.data, config.knowledge)
    own = resolve_config(settings=["teacher.run=self", "training.epochs=2"], values=given)
    assert teacher_config(own).training.epochs == 2


def test_a_teachers_recipe_has_to_exist_and_to_be_of_ones_own_teacher() -> None:
    given = {"knowledge": "k.parquet"}
    with pytest.raises(UserError, match="there is no preset 'embedded-foto'"):
        resolve_config(settings=["teacher.run=self", "teacher.preset=embedded-foto"], values=given)
    with pytest.raises(UserError, match=r"teacher\.preset.*set teacher\.run=self too"):
        resolve_config(settings=["teacher.preset=embedded-photos"], values=given)
