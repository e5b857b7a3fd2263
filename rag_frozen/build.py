"""From a recipe to objects. The only place that chooses implementations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from rag_frozen.absent_stages import KeepOrder, NoPacking, NoPassages, NoReader, NoRetrieval
from rag_frozen.errors import RecipeError
from rag_frozen.indexing.build import build_index as build_index_recipe
from rag_frozen.indexing.encoders import make_encoder
from rag_frozen.indexing.opening import open_bm25, open_dense, open_store
from rag_frozen.indexing.parts import BuiltIndex, Report, index_parts
from rag_frozen.models.source import resolve_model
from rag_frozen.models.state_memory import StateMemory
from rag_frozen.normalization import normalize_answer
from rag_frozen.packing.each import EachPacker, PassagePrior
from rag_frozen.packing.packer import GreedyPacker, PackingBudget
from rag_frozen.pipeline import Pipeline, Weigh
from rag_frozen.prompting.bank import PromptBank
from rag_frozen.prompting.ensemble import EnsembleReader
from rag_frozen.prompting.loading import check_prompt, load_prompt
from rag_frozen.protocols import Packer, PassageStore, Reader, Reranker, Retriever
from rag_frozen.reader.confidence import calibrated
from rag_frozen.reader.each import EachReader
from rag_frozen.reader.make import make_reader
from rag_frozen.recipes import pipeline as recipes
from rag_frozen.recipes.index import IndexRecipe, SentenceEncoderSettings
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.rerank.interpolation import JoinedScores
from rag_frozen.retrieval.dense_encoders import Encoder
from rag_frozen.retrieval.fusion import Fuse

__all__ = ["as_read", "build_index", "fuse_by", "joined_scores", "load_pipeline"]


def load_pipeline(
    recipe: str | Path = "pocket",
    *,
    root: Path | None = None,
    overrides: Sequence[str] = (),
    until: Literal["retrieve", "rerank", "read"] = "read",
    report: Report = lambda *_: None,
) -> Pipeline:
    """Make a pipeline from a recipe.

    The embedded corpus and its indexes are built where they are missing (seconds); others are
    looked for, and the error says what builds them.

    Args:
        recipe: a name (``pocket``) or the path of a YAML file.
        root: artifacts' folder; see :func:`rag_frozen.artifacts.artifact_root`.
        overrides: ``a.b=c`` settings.
        until: the last stage that is wanted: what comes after it is not loaded, and answers are
            empty. For evaluations that hold one model at a time.
        report: is told the progress of what is built.

    Raises:
        RecipeError, ArtifactError, ModelError: when something cannot be used.
    """
    settings = load_recipe(recipe, recipes.PipelineRecipe, folder="pipelines", overrides=overrides)
    if until == "read":
        _check_prompts(settings.prompt)
    built = None
    if not isinstance(settings.retrieval, recipes.ClosedBook):
        built = _indexes(settings, recipe, root, report)
    store: PassageStore = NoPassages() if built is None else open_store(built)
    retriever, k = _retriever(settings.retrieval, built, store, settings.device)
    reranker, depth = (KeepOrder(), k) if until == "retrieve" else _reranker(settings, k)
    stages = (NoPacking(), NoReader(), None)
    packer, reader, prompts = _reading(settings, retriever) if until == "read" else stages
    packer, reader, weigh = as_read(settings, packer, reader)
    return Pipeline(
        name=settings.name,
        store=store,
        retriever=retriever,
        reranker=reranker,
        packer=packer,
        reader=reader,
        k=k,
        rerank_depth=depth,
        join=JoinedScores() if until == "retrieve" else joined_scores(settings),
        recipe=settings.model_dump(mode="json"),
        artifacts=_artifacts(built, retriever),
        prompts=prompts,
        confidence=partial(calibrated, **settings.confidence.model_dump()),
        weigh=weigh,
    )


def as_read(
    settings: recipes.PipelineRecipe, packer: Packer, reader: Reader
) -> tuple[Packer, Reader, Weigh]:
    """Turn the stages that read a prompt of all passages into those of the recipe's ``reading``.

    Args:
        settings: of the pipeline.
        packer: of the main path; with another one nothing is read, and nothing changes.
        reader: reads prompts.

    Returns:
        Packer and reader, and what writes each passage's weight into a context.
    """
    reading = settings.reading
    if not isinstance(reading, recipes.EachReading) or not isinstance(packer, GreedyPacker):
        return packer, reader, lambda context, rankings: context
    known = recipes.score_stages(settings.retrieval, settings.reranker)
    return (
        EachPacker(packer),
        EachReader(reader, normalize=normalize_answer, never_empty=reading.never_empty),
        PassagePrior(known.get(reading.scores, "retrieve"), reading.weight),
    )


def joined_scores(settings: recipes.PipelineRecipe) -> JoinedScores:
    """How the scores of a pipeline's reranker are joined with those of its retrieval."""
    chosen = settings.reranker
    known = recipes.score_stages(settings.retrieval, recipes.NoReranker(kind="none"))
    if not isinstance(chosen, recipes.CrossEncoder) or chosen.retrieval_scores not in known:
        return JoinedScores()
    return JoinedScores(chosen.retrieval_weight, known[chosen.retrieval_scores])


def build_index(
    recipe: str | Path,
    *,
    root: Path | None = None,
    overrides: Sequence[str] = (),
    report: Report = lambda *_: None,
) -> BuiltIndex:
    """Build the corpus and the indexes of an index recipe; what is finished is not built twice.

    Raises:
        RecipeError, InputError, ModelError, StorageError: when something cannot be used.
    """
    settings = load_recipe(recipe, IndexRecipe, folder="indexes", overrides=overrides)
    return build_index_recipe(settings, root=root, report=report)


def _indexes(
    settings: recipes.PipelineRecipe, recipe: str | Path, root: Path | None, report: Report
) -> BuiltIndex:
    if settings.index is None:
        raise RecipeError(
            f"The pipeline recipe {recipe} retrieves, but names no index. Add a line such as "
            "index: pocket"
        )
    index = load_recipe(settings.index, IndexRecipe, folder="indexes", overrides=())
    if index.corpus.kind == "pocket":
        return build_index_recipe(index, root=root, report=report)
    return index_parts(index, root=root)


def _check_prompts(settings: recipes.PromptSettings) -> None:
    """Refuse prompts that cannot be used before anything is built or loaded."""
    match settings:
        case recipes.SoftPromptSettings(path=path, accept_unproven=accept):
            check_prompt(path, accept_unproven=accept)
        case recipes.PromptEnsembleSettings(paths=paths, accept_unproven=accept):
            for path in paths:
                check_prompt(path, accept_unproven=accept)


def _reading(
    settings: recipes.PipelineRecipe, retriever: Retriever
) -> tuple[Packer, Reader, PromptBank | None]:
    """Packer and reader, and the bank of the prompts that condition it."""
    plain = make_reader(settings.reader, device=settings.device, dtype=settings.dtype)
    bank = PromptBank(
        plain.embedding_width,
        load=lambda folder: load_prompt(
            folder,
            reader_digest=plain.base_digest,
            device=plain.embedding_table.device,
            dtype=plain.embedding_table.dtype,
            share_states=partial(_share_states, retriever),
            accept_unproven=getattr(settings.prompt, "accept_unproven", False),
        ),
    )
    plain.prompt_generator = bank
    reader: Reader = plain
    match settings.prompt:
        case recipes.SoftPromptSettings(path=path):
            bank.add("recipe", path, default=True)
        case recipes.PromptEnsembleSettings(paths=paths, vote=vote):
            names = [f"member {number}" for number in range(1, len(paths) + 1)]
            for name, path in zip(names, paths, strict=True):
                bank.add(name, path)
            reader = EnsembleReader(plain, names, normalize=normalize_answer, method=vote)
    packer = GreedyPacker(
        settings.packing.template,
        PackingBudget(
            min(plain.window, settings.packing.window or plain.window),
            answer=settings.reader.decoding.max_new_tokens,
        ),
        count_tokens=plain.count_tokens,
        max_passages=settings.packing.max_passages,
        order=settings.packing.order,
        soft_prompt=lambda: bank.length,
        quoted=settings.answers.also if settings.answers.kind == "quoted" else None,
    )
    return packer, reader, bank


def _artifacts(built: BuiltIndex | None, retriever: Retriever) -> dict[str, str]:
    """Fingerprints of the indexes, and the digest of a question encoder beside one, by role."""
    found = {part.role: part.fingerprint for part in built.parts} if built else {}
    parts = [part for _, part, _ in getattr(retriever, "parts", ())] or [retriever]
    for part in parts:
        digest = getattr(getattr(part, "encoder", None), "question_digest", None)
        if digest is not None:
            found["question encoder"] = str(digest)
    return found


def _share_states(retriever: Retriever, digest: str, memory: StateMemory) -> bool:
    """Have the dense retriever keep its questions' states, if it encodes with that model."""
    parts = [part for _, part, _ in getattr(retriever, "parts", ())] or [retriever]
    for part in parts:
        encoder = getattr(part, "encoder", None)
        share = getattr(encoder, "share_states", None)
        if share is not None and getattr(encoder, "digest", None) == digest:
            return bool(share(memory))
    return False


def _retriever(
    settings: recipes.RetrievalSettings,
    built: BuiltIndex | None,
    store: PassageStore,
    device: str | None,
) -> tuple[Retriever, int]:
    if isinstance(settings, recipes.ClosedBook) or built is None:
        return NoRetrieval(), 1
    match settings:
        case recipes.Bm25Retrieval():
            return open_bm25(built), settings.k
        case recipes.DenseRetrieval():
            encoder = _encoder_of(built, settings.question_encoder, device)
            return open_dense(built, encoder, device=device), settings.k
        case recipes.ReplayRetrieval():
            from rag_frozen.retrieval.replay import ReplayRetriever, read_trec_run

            run = read_trec_run(settings.run)
            scores = {str(stage): read_trec_run(path) for stage, path in settings.scores.items()}
            name = str(settings.run)
            return ReplayRetriever(run, name=name, store=store, scores=scores), settings.k
        case recipes.Fusion():
            from rag_frozen.retrieval.fusion import FusionRetriever

            parts = [
                (part.kind, *_retriever(part, built, store, device)) for part in settings.parts
            ]
            return FusionRetriever(parts, fuse_by(settings.method)), settings.k


def _encoder_of(built: BuiltIndex, questions: str | None, device: str | None) -> Encoder:
    """The encoder of the dense part, or a trained question encoder beside it."""
    from rag_frozen.indexing.dense import recorded_settings

    recorded = recorded_settings(built.part("dense").folder).encoder
    if questions is None:
        return make_encoder(recorded, device=device)
    if not isinstance(recorded, SentenceEncoderSettings):
        raise RecipeError(
            f"The index {built.name} was built with an encoder of kind {recorded.kind}; a "
            "question_encoder stands beside one of kind sentence-transformers. Leave it out."
        )
    from rag_frozen.retrieval.question_tower import QuestionTower

    passages = resolve_model(recorded.model, revision=recorded.revision)
    return QuestionTower(resolve_model(questions), passages, device=device)


def fuse_by(
    settings: recipes.ReciprocalRankFusion | recipes.MinMaxFusion | recipes.SpiderFusion,
) -> Fuse:
    """Return the function that makes one ranking of several as a recipe says."""
    from rag_frozen.retrieval import fusion

    match settings:
        case recipes.ReciprocalRankFusion():
            return partial(
                fusion.reciprocal_rank_fusion,
                constant=settings.constant,
                weights=settings.weights,
            )
        case recipes.MinMaxFusion():
            return partial(fusion.weighted_min_max_sum, weights=settings.weights)
        case recipes.SpiderFusion():
            return partial(fusion.spider_fusion, weight=settings.weight, depth=settings.depth)


def _reranker(settings: recipes.PipelineRecipe, k: int) -> tuple[Reranker, int]:
    chosen = settings.reranker
    match chosen:
        case recipes.NoReranker():
            return KeepOrder(), min(chosen.depth or k, k)
        case recipes.CrossEncoder():
            from rag_frozen.rerank.cross_encoder import CrossEncoderReranker

            reranker = CrossEncoderReranker(
                resolve_model(chosen.model, revision=chosen.revision),
                max_length=chosen.max_length,
                device=settings.device,
                dtype=settings.dtype,
            )
            return reranker, min(chosen.depth, k)
