"""Every choice in the model, with its default: the one place where these defaults live.

What the paper's figure does not specify is marked "reconstruction"; each such choice is an option, so that
an ablation can change it.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(ge=1, le=1_000_000_000)]
# Far above any sensible model, so that a wrong or malicious number is an error instead of an endless allocation.
Width = Annotated[int, Field(ge=1, le=16_384)]
Depth = Annotated[int, Field(ge=1, le=64)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

Averaged = Literal["logits", "probabilities"]
View = Literal["plain", "mirrored"]


def _checked_template(template: str) -> str:
    try:
        template.format(label="", sentence="")
    except (LookupError, ValueError, AttributeError) as error:
        raise ValueError("may contain {label} and {sentence}, and no other braces") from error
    return template


def _checked_axes(axes: tuple[str, ...]) -> tuple[str, ...]:
    if not axes or len(set(axes)) < len(axes):
        raise ValueError("name each input at most once, and at least one")
    return axes


class Options(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KapOptions(Options):
    """KAP, knowledge-aware prompting."""

    template: Annotated[str, AfterValidator(_checked_template)] = Field(
        "A photo of a {label}. {sentence}", description="how a label's name and description are joined"
    )
    average: Literal["embeddings", "logits"] = Field(
        "embeddings", description="what to average over several descriptions of a label (reconstruction)"
    )
    select: Literal["all", "telling", "weighted"] = Field(
        "telling",
        description="of several descriptions of a label. all: the first `keep`; telling: the `keep` that the text "
        "tower finds closest to their own label's name against the others', those by a person first; weighted: all, by "
        "that (our extension)",
    )
    keep: PositiveInt | None = Field(4, description="descriptions per label that are used; null: all of them")
    select_temperature: PositiveFloat = Field(
        0.05, description="of the softmax over all labels' names that `select` scores with (our extension)"
    )


class CapOptions(Options):
    """CAP, context-aware prompting; the global branch's own prompts have the same form."""

    context: Annotated[int, Field(ge=1, le=64)] = Field(4, description="number of learnable context vectors")
    initial_words: str | None = Field(
        "a photo of a", description="words whose embeddings start the context; null: random (reconstruction)"
    )
    class_specific: bool = Field(False, description="a context per label instead of a shared one")
    learned: bool = Field(
        True,
        description="off: the prompt keeps its initial words, so that no step passes the text tower (our extension)",
    )

    @model_validator(mode="after")
    def _has_words_to_keep(self) -> Self:
        if not self.learned and self.initial_words is None:
            raise ValueError("learned=false keeps the initial words: give initial_words")
        return self


class DsfOptions(Options):
    """DSF, dynamic semantic filtering."""

    enabled: bool = Field(True, description="off: T_ca is the label's own text")
    scale: PositiveFloat = Field(10.0, description="initial scale of the cosine (reconstruction)")
    residual: bool = Field(False, description="T + A X instead of A X (reconstruction)")


class QsmOptions(Options):
    """QSM, quaternion semantic modelling."""

    kind: Literal["quaternion", "mlp", "concat", "sum", "none"] = Field(
        "quaternion",
        description="mlp: real layers with as many parameters; concat: one linear layer; sum: of the inputs; "
        "none: T_ka unchanged",
    )
    layers: Annotated[int, Field(ge=2, le=64)] = Field(2, description="number of quaternion layers")
    residual_weight: float = Field(1.0, description="initial weight of the synthesized part (reconstruction)")
    axes: Annotated[tuple[Literal["T_ka", "T_ca", "x0"], ...], AfterValidator(_checked_axes)] = Field(
        ("T_ka", "T_ca", "x0"), description="inputs in the order of the axes i, j, k; leave one out to ablate it"
    )
    dropout: Fraction = Field(0.0, description="on hidden channels (reconstruction)")


class GdmaOptions(Options):
    """GDMA, gated dual-modal alignments."""

    v_to_s: bool = Field(True, description="labels attend to regions")
    s_to_v: bool = Field(True, description="regions attend to labels")
    gate: Literal["element", "scalar", "none"] = Field("element", description="form of the gate (reconstruction)")
    heads: Width = Field(8, description="heads of each cross-attention (reconstruction)")
    layers: Depth = Field(1, description="how often the pair is stacked (reconstruction)")
    dropout: Fraction = Field(0.0, description="on attention weights (reconstruction)")


class AggregatorOptions(Options):
    """The soft aggregator and the scale of its logits."""

    kind: Literal["soft", "max", "mean", "top"] = Field(
        "soft", description="how a label's regions are weighted; soft: by a softmax of their similarities"
    )
    temperature: PositiveFloat = Field(0.05, description="initial tau_s (reconstruction)")
    top: PositiveInt = Field(5, description="number of regions averaged by kind `top`")


class SspaOptions(Options):
    """The whole method."""

    head: Literal["sspa"] = "sspa"
    width: Annotated[int, Field(multiple_of=4, ge=4, le=16_384)] | None = Field(
        None,
        description="width of the model's parts, at most that of the joint space. null: that up to 1024 (every CLIP), "
        "else 256; if narrower than the joint space, by a learned map initialised as PCA (reconstruction)",
    )
    kap: KapOptions = KapOptions()
    cap: CapOptions = CapOptions()
    dsf: DsfOptions = DsfOptions()
    qsm: QsmOptions = QsmOptions()
    gdma: GdmaOptions = GdmaOptions()
    aggregator: AggregatorOptions = AggregatorOptions()
    global_branch: bool = Field(True, description="the branch that compares the whole image with learned prompts")
    knowledge_branch: bool = Field(
        True,
        description="a third branch: the whole image against T_ka in the backbone's own joint space, of which only "
        "scale and bias are trained (our extension)",
    )
    mixture: Averaged = Field("logits", description="what of the branches the prediction averages (reconstruction)")
    scale: PositiveFloat = Field(20.0, description="initial scale of the branches' logits (reconstruction)")
    bias: float = Field(-2.0, description="initial bias of the branches' logits (reconstruction)")
    region_dropout: Fraction = Field(0.0, description="share of regions dropped in training (reconstruction)")
