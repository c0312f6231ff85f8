"""KAP: how several descriptions of a label become its knowledge, against loops and by hand."""

import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch.nn import functional as F

from sspa.shared.knowledge import Knowledge, names_only
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.backbones.contract import Backbone
from sspa.stage2_training.model.contract import UsedDescription, most_used_first
from sspa.stage2_training.model.kap import KnowledgeFeatures, description_weights, knowledge_prompts, weighted_mean
from sspa.stage2_training.model.options import KapOptions
from sspa.stage2_training.model.telling import most_telling, telling_scores, telling_weights

from .small_models import small_backbone

COUNTS = [3, 1, 2]


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return small_backbone(tmp_path / "backbone")


def _drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_scores_equal_a_loop() -> None:
    descriptions, names = _drawn(6, 4), _drawn(3, 4) * 7
    labels = [0, 0, 0, 1, 2, 2]

    scores = telling_scores(descriptions, names, COUNTS, temperature=0.2)

    for row, label in enumerate(labels):
        cosines = [float(F.cosine_similarity(descriptions[row], name, dim=0)) / 0.2 for name in names]
        expected = cosines[label] - math.log(sum(math.exp(cosine) for cosine in cosines))
        assert float(scores[row]) == pytest.approx(expected, abs=1e-5)


def test_the_most_telling_are_kept_and_of_equals_the_earlier() -> None:
    scores = torch.tensor([-2.0, -1.0, -1.5, -9.0, -1.0, -1.0])

    assert most_telling(scores, COUNTS, keep=1).tolist() == [0, 1, 0, 1, 1, 0]
    assert most_telling(scores, COUNTS, keep=2).tolist() == [0, 0.5, 0.5, 1, 0.5, 0.5]
    assert most_telling(scores, COUNTS, keep=9).tolist() == pytest.approx([1 / 3] * 3 + [1, 0.5, 0.5])


def test_weights_are_in_proportion_to_the_probabilities() -> None:
    scores = torch.tensor([0.6, 0.2, 0.2, 0.1, 0.3, 0.1]).log()

    assert telling_weights(scores, COUNTS).tolist() == pytest.approx([0.6, 0.2, 0.2, 1, 0.75, 0.25])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (KapOptions(select="all", keep=None), [1 / 3, 1 / 3, 1 / 3, 1, 1 / 2, 1 / 2]),
        (KapOptions(select="all", keep=2), [1 / 2, 1 / 2, 0, 1, 1 / 2, 1 / 2]),
        (KapOptions(select="all", keep=1), [1, 0, 0, 1, 1, 0]),
    ],
)
def test_without_scores_the_first_are_used(options: KapOptions, expected: list[float]) -> None:
    assert description_weights(None, COUNTS, options).tolist() == pytest.approx(expected)


def test_weighted_mean_equals_a_loop() -> None:
    features, weights = _drawn(6, 4), torch.tensor([0.5, 0.5, 0.0, 1.0, 0.25, 0.75])

    mean = weighted_mean(features, weights, COUNTS)

    start = 0
    for label, count in enumerate(COUNTS):
        own = sum(weights[row] * features[row] for row in range(start, start + count))
        torch.testing.assert_close(mean[label], own)
        start += count


def _knowledge(**descriptions: tuple[str, ...]) -> Knowledge:
    labels = tuple(Label(key=key, text=key, hint="") for key in descriptions)
    return replace(names_only(LabelSet("x", labels, domain="natural")), descriptions=MappingProxyType(descriptions))


CAT, CAR = ("It has whiskers.", "It is nice.", "It purrs."), ("It has four wheels.",)


@pytest.mark.parametrize("average", ["embeddings", "logits"])
def test_features_are_made_of_the_most_telling(backbone: Backbone, average: str) -> None:
    knowledge = _knowledge(cat=CAT, car=CAR)
    options = KapOptions(keep=2, average=average)  # type: ignore[arg-type]

    features = KnowledgeFeatures.of(backbone, knowledge, options)

    names = backbone.encode_text(["A photo of a cat.", "A photo of a car."])
    scores = telling_scores(backbone.encode_text([*CAT, *CAR]), names, [3, 1], 0.05)
    used = sorted(scores[:3].argsort(descending=True)[:2].tolist())
    prompts = F.normalize(backbone.encode_text([f"A photo of a cat. {CAT[row]}" for row in used]), dim=-1)
    if average == "embeddings":
        torch.testing.assert_close(features.t_ka[0], prompts.mean(dim=0))
        assert features.label_of_row.tolist() == [0, 1]
    else:
        torch.testing.assert_close(features.t_ka[:2], prompts)
        assert features.label_of_row.tolist() == [0, 0, 1]
        assert features.weight_of_row.tolist() == [0.5, 0.5, 1]
    assert features.descriptions is not None
    of_cat, of_car = features.descriptions
    assert [known.text for known in of_cat] == list(CAT)
    assert [known.weight for known in of_cat] == [0.5 if row in used else 0 for row in range(3)]
    assert [known.score for known in of_cat] == pytest.approx(scores[:3].exp().tolist(), abs=1e-5)
    assert [known.weight for known in of_car] == [1]


def test_what_a_person_wrote_is_never_passed_over(backbone: Backbone) -> None:
    knowledge = _knowledge(cat=CAT, car=CAR)
    options = KapOptions(keep=1)
    chosen = KnowledgeFeatures.of(backbone, knowledge, options).descriptions
    assert chosen is not None
    least = min(range(3), key=lambda row: chosen[0][row].score or 0)
    assert chosen[0][least].weight == 0

    by_hand = KnowledgeFeatures.of(backbone, replace(knowledge, by_hand=frozenset({("cat", least)})), options)

    assert by_hand.descriptions is not None
    assert [known.weight for known in by_hand.descriptions[0]] == [float(row == least) for row in range(3)]
    assert [known.score for known in by_hand.descriptions[0]] == [known.score for known in chosen[0]]


def test_one_description_each_needs_no_choice(backbone: Backbone) -> None:
    knowledge = _knowledge(cat=CAT[:1], car=CAR)

    features = KnowledgeFeatures.of(backbone, knowledge, KapOptions())

    assert features.descriptions == (
        (UsedDescription(CAT[0], 1, None),),
        (UsedDescription(CAR[0], 1, None),),
    )


def test_a_template_without_a_sentence_uses_no_descriptions(backbone: Backbone) -> None:
    features = KnowledgeFeatures.of(
        backbone, _knowledge(cat=CAT, car=CAR), KapOptions(template="A photo of a {label}.")
    )

    assert features.descriptions is None
    assert len(features.t_ka) == 2


def test_a_label_without_descriptions_has_its_name() -> None:
    assert knowledge_prompts(_knowledge(cat=(), car=CAR), "A {label}. {sentence}") == [
        ["A cat."],
        ["A car. It has four wheels."],
    ]


def test_the_most_used_come_first() -> None:
    known = [UsedDescription(text, weight, score) for text, weight, score in
             [("a", 0.0, 0.9), ("b", 0.5, 0.2), ("c", 0.5, 0.4), ("d", 0.0, None)]]  # fmt: skip

    assert [one.text for one in most_used_first(known)] == ["c", "b", "a", "d"]
