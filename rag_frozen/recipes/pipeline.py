"""Recipes of pipelines (``pipelines/*.yaml``): how questions are answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rag_frozen.packing.template import PromptTemplate

__all__ = [
    "AnswerSettings",
    "Bm25Retrieval",
    "CausalReader",
    "ClosedBook",
    "ConfidenceSettings",
    "CrossEncoder",
    "DecodingSettings",
    "DenseRetrieval",
    "EachReading",
    "FreeAnswers",
    "Fusion",
    "MinMaxFusion",
    "NoPrompt",
    "NoReranker",
    "PackedReading",
    "PackingSettings",
    "PipelineRecipe",
    "PrefixReader",
    "PromptEnsembleSettings",
    "PromptSettings",
    "QuotedAnswers",
    "ReaderSettings",
    "ReadingSettings",
    "ReciprocalRankFusion",
    "ReplayRetrieval",
    "RerankerSettings",
    "RetrievalSettings",
    "Seq2SeqReader",
    "SoftPromptSettings",
    "SpiderFusion",
    "score_stages",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bm25Retrieval(_Frozen):
    """BM25 over the index recipe's ``bm25`` part."""

    kind: Literal["bm25"]
    k: int = Field(100, ge=1)


class DenseRetrieval(_Frozen):
    """Nearest neighbours over the index recipe's ``dense`` part.

    ``question_encoder`` names adapters that were trained for questions alone (``towers: question``)
    beside the encoder of that part; without it the index's encoder encodes questions, too.
    """

    kind: Literal["dense"]
    k: int = Field(100, ge=1)
    question_encoder: str | None = None


class ReplayRetrieval(_Frozen):
    """A stored TREC run, by question id; ``scores`` names runs over the same questions whose scores
    its passages had in other stages."""

    kind: Literal["replay"]
    run: Path
    k: int = Field(100, ge=1)
    scores: Mapping[Literal["retrieve", "bm25", "dense", "replay", "rerank"], Path] = {}


class ClosedBook(_Frozen):
    """No passages: the reader answers from its weights alone."""

    kind: Literal["closed-book"]


class ReciprocalRankFusion(_Frozen):
    """Cormack et al. 2009: the sum over runs of weight / (constant + rank)."""

    kind: Literal["rrf"]
    constant: int = Field(60, ge=1)
    weights: tuple[float, ...] | None = None


class MinMaxFusion(_Frozen):
    """Weighted sum of scores, each run's scaled to [0, 1]."""

    kind: Literal["min-max"]
    weights: tuple[float, ...] | None = None


class SpiderFusion(_Frozen):
    """Ram et al. 2022 (Spider): s1 + lambda·s2; a passage missing from a list gets its minimum."""

    kind: Literal["spider"]
    weight: float = Field(1.0, gt=0)
    depth: int = Field(1_000, ge=1)


class Fusion(_Frozen):
    """Several retrievals made into one ranking."""

    kind: Literal["fused"]
    parts: tuple[
        Annotated[Bm25Retrieval | DenseRetrieval | ReplayRetrieval, Field(discriminator="kind")],
        ...,
    ] = Field(min_length=2)
    method: Annotated[
        ReciprocalRankFusion | MinMaxFusion | SpiderFusion, Field(discriminator="kind")
    ] = ReciprocalRankFusion(kind="rrf")
    k: int = Field(100, ge=1)


RetrievalSettings = Annotated[
    Bm25Retrieval | DenseRetrieval | ReplayRetrieval | Fusion | ClosedBook,
    Field(discriminator="kind"),
]


class NoReranker(_Frozen):
    """Keep the retrieval's order; the first ``depth`` hits (all by default) are offered to
    packing."""

    kind: Literal["none"]
    depth: int | None = Field(None, ge=1)


class CrossEncoder(_Frozen):
    """A cross-encoder scores the first ``depth`` passages with the question; ``retrieval_weight``
    times the retrieval's score is added to its logit: that of the whole retrieval, or of one part
    of a fusion, whose lowest score those get that it did not find. A retrieval without that part
    leaves the reranker alone, since a weight belongs to one kind of score."""

    kind: Literal["cross-encoder"]
    model: str
    revision: str | None = None
    depth: int = Field(20, ge=1)
    max_length: int = Field(256, ge=16)
    retrieval_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    retrieval_scores: Literal["retrieve", "bm25", "dense", "replay"] = "retrieve"


RerankerSettings = Annotated[NoReranker | CrossEncoder, Field(discriminator="kind")]


class PackingSettings(_Frozen):
    """How passages become the prompt, or the prompts where they are read one by one."""

    template: PromptTemplate = PromptTemplate()
    max_passages: int | None = Field(None, ge=0)
    """So many passages are read at most; as many as fit, or were offered, by default."""
    order: Literal["best_first", "best_last"] = "best_first"
    window: int | None = Field(None, ge=32)
    """Tokens of the reader's window that are used; all of it by default."""


class PackedReading(_Frozen):
    """The passages stand in one prompt, which is read once."""

    kind: Literal["packed"] = "packed"


class EachReading(_Frozen):
    """Each of ``packing.max_passages`` passages is read alone, and the answers' probabilities are
    summed: p(y|x) = sum over passages z of p(z|x) p(y|x,z), as in RAG-Sequence (Lewis et al. 2020).

    p(z|x) is the softmax of ``weight`` times the passages' ``scores``, those of a stage:
    ``retrieve``, ``rerank``, or ``bm25``, ``dense`` and ``replay``, alone or as parts of a fusion.
    An empty answer is chosen only where there is no other, unless ``never_empty`` is false.
    """

    kind: Literal["each"]
    scores: Literal["retrieve", "bm25", "dense", "replay", "rerank"] = "retrieve"
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    never_empty: bool = True


ReadingSettings = Annotated[PackedReading | EachReading, Field(discriminator="kind")]


class FreeAnswers(_Frozen):
    """The reader writes what it likes."""

    kind: Literal["free"] = "free"


class QuotedAnswers(_Frozen):
    """The answer is a run of whole words of one of the titles and texts that were packed, or one of
    the texts in ``also``, or empty. Closed book, without passages, it is free."""

    kind: Literal["quoted"]
    also: tuple[str, ...] = ("yes", "no")


AnswerSettings = Annotated[FreeAnswers | QuotedAnswers, Field(discriminator="kind")]


class DecodingSettings(_Frozen):
    """See :class:`rag_frozen.reader.decoding.Decoding`."""

    kind: Literal["greedy", "beam", "sample"] = "greedy"
    max_new_tokens: int = Field(24, ge=1)
    min_new_tokens: int = Field(0, ge=0)
    n_beams: int = Field(4, ge=1)
    length_penalty: float = 0.0
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 0


class PrefixReader(_Frozen):
    """The project's own prefix language model."""

    kind: Literal["prefix-lm"]
    model: str = "pocket/reader"
    encoder: str = "pocket/minilm"
    decoding: DecodingSettings = DecodingSettings()


class CausalReader(_Frozen):
    """A decoder-only model of transformers."""

    kind: Literal["causal"]
    model: str
    revision: str | None = None
    chat_template: bool = False
    decoding: DecodingSettings = DecodingSettings(max_new_tokens=32)


class Seq2SeqReader(_Frozen):
    """An encoder-decoder model of transformers. ``window`` is what its encoder is given."""

    kind: Literal["seq2seq"]
    model: str
    revision: str | None = None
    window: int = Field(2_048, ge=32)
    decoding: DecodingSettings = DecodingSettings(max_new_tokens=32)


ReaderSettings = Annotated[PrefixReader | CausalReader | Seq2SeqReader, Field(discriminator="kind")]


class NoPrompt(_Frozen):
    """The plain frozen reader."""

    kind: Literal["none"] = "none"


class SoftPromptSettings(_Frozen):
    """A trained prompt, by its folder. One whose training's proof failed is refused unless
    ``accept_unproven`` is set."""

    kind: Literal["soft-prompt"]
    path: Path
    accept_unproven: bool = False


class PromptEnsembleSettings(_Frozen):
    """Several trained prompts over one reader, in one batch, put to the vote."""

    kind: Literal["ensemble"]
    paths: tuple[Path, ...] = Field(min_length=1)
    vote: Literal["majority", "likelihood"] = "majority"
    accept_unproven: bool = False


PromptSettings = Annotated[
    NoPrompt | SoftPromptSettings | PromptEnsembleSettings, Field(discriminator="kind")
]


class ConfidenceSettings(_Frozen):
    """How an answer's probability p becomes its confidence: sigmoid(logit(p) / temperature + bias),
    fitted on validation questions. 1 and 0 leave it as it is."""

    temperature: float = Field(1.0, gt=0)
    bias: float = 0.0


class PipelineRecipe(_Frozen):
    """A whole pipeline. ``index`` names the recipe of the indexes that retrieval searches."""

    kind: Literal["pipeline"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    index: str | None = None
    retrieval: RetrievalSettings
    reranker: RerankerSettings = NoReranker(kind="none")
    packing: PackingSettings = PackingSettings()
    reading: ReadingSettings = PackedReading()
    answers: AnswerSettings = FreeAnswers()
    reader: ReaderSettings
    prompt: PromptSettings = NoPrompt()
    confidence: ConfidenceSettings = ConfidenceSettings()
    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @model_validator(mode="after")
    def _has_the_scores_that_it_reads_by(self) -> PipelineRecipe:
        if not isinstance(self.reading, EachReading) or isinstance(self.retrieval, ClosedBook):
            return self
        known = score_stages(self.retrieval, self.reranker)
        if self.reading.scores not in known:
            raise ValueError(
                f"reading.scores is {self.reading.scores}, and the stages of this pipeline that "
                f"score passages are: {', '.join(known)}. Name one of these, or set "
                "reading={kind: packed}"
            )
        return self


def score_stages(retrieval: RetrievalSettings, reranker: RerankerSettings) -> dict[str, str]:
    """The stages that score a pipeline's passages, by the names that a recipe may call them: the
    ranking of a retrieval that is not fused goes by its kind too."""
    if isinstance(retrieval, ClosedBook):
        return {}
    own = {"retrieve": "retrieve"}
    if isinstance(retrieval, Fusion):
        own |= {part.kind: part.kind for part in retrieval.parts}
    else:
        own[retrieval.kind] = "retrieve"
    if isinstance(retrieval, ReplayRetrieval):
        own |= {name: name for name in retrieval.scores}
    return own if isinstance(reranker, NoReranker) else {**own, "rerank": "rerank"}
