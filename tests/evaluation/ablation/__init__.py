"""A small world for ablations: stages that count what they are asked, and may die at any call."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_frozen.absent_stages import KeepOrder, NoPacking, NoReader, NoRetrieval
from rag_frozen.artifacts import write_artifact
from rag_frozen.build import as_read, joined_scores
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.packing.packer import GreedyPacker, PackingBudget
from rag_frozen.pipeline import Pipeline
from rag_frozen.recipes.ablation import AblationRecipe
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.recipes.pipeline import CrossEncoder, Fusion, PipelineRecipe, SoftPromptSettings
from rag_frozen.rerank.interpolation import JoinedScores
from rag_frozen.retrieval.fusion import FusionRetriever, reciprocal_rank_fusion
from rag_frozen.retrieval.replay import ReplayRetriever, read_trec_run
from rag_frozen.types import Context, Generation, Hit, Passage, Question, Ranking, sort_hits

CITIES = ("Rome", "Oslo", "Bern", "Riga", "Kyiv", "Lima", "Doha", "Baku")
TEXTS = {f"p{n}": Passage(f"p{n}", city, f"{city} is a city.") for n, city in enumerate(CITIES)}

BASE = """
kind: pipeline
name: base
index: tiny
retrieval: {kind: bm25, k: 6}
packing:
  template:
    with_passages: "{question}? {passages}"
    passage: "{title}. {text} "
    closed_book: "{question}?"
  max_passages: 1
reader: {kind: causal, model: tiny/reader}
"""
GRID: dict[str, Any] = {
    "kind": "ablation",
    "name": "grid",
    "pipeline": "",
    "data": {"kind": "pocket"},
    "chunk_size": 2,
    "retrievers": {
        "bm25": {"kind": "bm25", "k": 6},
        "dense": {"kind": "dense", "k": 5},
        "fused": {
            "kind": "fused",
            "parts": [{"kind": "bm25", "k": 4}, {"kind": "dense", "k": 4}],
            "k": 6,
        },
    },
    "rerankers": {"none": {"kind": "none"}, "cross": {"kind": "cross-encoder", "model": "tiny/ce"}},
    "depths": [2, 4],
    "packed": [1, 2],
    "closed_book": True,
    "baseline": {"retriever": "bm25", "reranker": "none"},
}


def examples(n: int = 5) -> ExampleSet:
    """Questions for cities; the last has no answer."""
    asked = [
        Example(Question(f"q{i}", f"which city {i}"), () if i == n - 1 else (CITIES[i % 8], "É"))
        for i in range(n)
    ]
    return ExampleSet("cities", tuple(asked), "2" * 64)


def grid(folder: Path, *, reading: str = "{kind: packed}", **changes: Any) -> AblationRecipe:
    """The recipe of the grid over a base that is written to ``folder``."""
    base = folder / "base.yaml"
    base.write_text(f"{BASE}reading: {reading}\n")
    return AblationRecipe.model_validate({**GRID, "pipeline": str(base), **changes})


def prompt(folder: Path, text: str = "weights") -> Path:
    """Something that looks like a trained prompt."""
    with write_artifact(folder, kind="head", name="p", recipe={}) as draft:
        (draft / "head.bin").write_text(text)
    return folder


class Died(BaseException):
    """What a kill does to a process."""


class World:
    """Makes pipelines whose stages count; dies at the ``dies_at``-th call of any of them.

    Scores and probabilities lean on how many were asked together: a test that compares bytes then
    finds out when a continued process works in other batches than an undisturbed one.
    """

    def __init__(self, *, dies_at: int | None = None, leaning: float = 1e-3) -> None:
        self.calls = 0
        self.dies_at = dies_at
        self.leaning = leaning
        self.retrieved: Counter[tuple[str, str, int]] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.prompts: Counter[tuple[str, str | None]] = Counter()
        self.loaded: list[str] = []

    def called(self) -> None:
        if self.calls == self.dies_at:
            raise Died
        self.calls += 1

    def __call__(
        self, recipe: str | Path, *, root: object, overrides: Sequence[str], until: str, report: Any
    ) -> Pipeline:
        settings = load_recipe(recipe, PipelineRecipe, folder="pipelines", overrides=overrides)
        retrieval = settings.retrieval
        reranker = settings.reranker
        self.loaded.append(f"{until} {retrieval.kind} {reranker.kind}")
        chosen = Cross(self) if isinstance(reranker, CrossEncoder) and until != "retrieve" else None
        prompted = settings.prompt if isinstance(settings.prompt, SoftPromptSettings) else None
        packing, reader, weigh = as_read(
            settings,
            packer(settings) if until == "read" else NoPacking(),
            Titles(self, None if prompted is None else str(prompted.path))
            if until == "read"
            else NoReader(),
        )
        return Pipeline(
            name=settings.name,
            store=Texts(),
            retriever=self._retriever(retrieval),
            reranker=chosen or KeepOrder(),
            packer=packing,
            reader=reader,
            weigh=weigh,
            join=JoinedScores() if until == "retrieve" else joined_scores(settings),
            k=getattr(retrieval, "k", 1),
            rerank_depth=min(reranker.depth or 99, getattr(retrieval, "k", 1)),
            recipe=settings.model_dump(mode="json"),
            artifacts={} if retrieval.kind == "closed-book" else {"corpus": "c" * 16},
        )

    def _retriever(self, settings: Any) -> Any:
        match settings.kind:
            case "closed-book":
                return NoRetrieval()
            case "replay":
                return ReplayRetriever(read_trec_run(settings.run), name="replay")
        if isinstance(settings, Fusion):
            parts = [(part.kind, self._retriever(part), part.k) for part in settings.parts]
            return FusionRetriever(parts, reciprocal_rank_fusion)
        return Search(self, settings.kind)


class Texts:
    def __len__(self) -> int:
        return len(TEXTS)

    def get(self, passage_ids: Sequence[str]) -> list[Passage]:
        return [TEXTS[one] for one in passage_ids]


class Search:
    """BM25 ranks in the order of ids from the question's number on, dense against it; BM25 finds
    nothing for the third question."""

    def __init__(self, world: World, kind: str) -> None:
        self.world, self.kind = world, kind

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        self.world.called()
        for question in questions:
            self.world.retrieved[self.kind, question.id, k] += 1
        return [self._ranking(question, k) for question in questions]

    def _ranking(self, question: Question, k: int) -> Ranking:
        first = int(question.id[1:])
        if self.kind == "bm25" and first == 2:
            return ()
        step = 1 if self.kind == "bm25" else -1
        ids = [f"p{(first + 1 + step * rank) % 8}" for rank in range(k)]
        return tuple(Hit(one, float(-rank)) for rank, one in enumerate(ids))


class Cross:
    """Scores the passage of the question's own city best."""

    digest = "d" * 64

    def __init__(self, world: World) -> None:
        self.world = world

    def rerank(
        self, questions: Sequence[Question], candidates: Sequence[Sequence[Passage]]
    ) -> list[Ranking]:
        self.world.called()
        n = sum(map(len, candidates))
        rankings = []
        for question, passages in zip(questions, candidates, strict=True):
            for passage in passages:
                self.world.pairs[question.id, passage.id] += 1
            far = {p.id: (int(p.id[1:]) - int(question.id[1:])) % 8 for p in passages}
            hits = [Hit(one, -distance + self.world.leaning * n) for one, distance in far.items()]
            rankings.append(sort_hits(hits))
        return rankings


class Titles:
    """Answers with the title of the first passage; with a prompt, of the last."""

    digest = "e" * 64

    def __init__(self, world: World, prompted: str | None) -> None:
        self.world, self.prompted = world, prompted

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        self.world.called()
        made = []
        for context in contexts:
            self.world.prompts[context.prompt, self.prompted] += 1
            titles = [TEXTS[kept.passage_id].title for kept in context.kept] or ["Atlantis"]
            text = titles[-1 if self.prompted else 0]
            logprob = -0.5 - self.world.leaning * len(contexts)
            made.append(Generation(text, logprob, 1, "end"))
        return made


def packer(settings: PipelineRecipe) -> GreedyPacker:
    return GreedyPacker(
        settings.packing.template,
        PackingBudget(100),
        count_tokens=lambda texts: [len(text.split()) for text in texts],
        max_passages=settings.packing.max_passages,
    )


def result_files(folder: Path) -> dict[str, bytes]:
    """The files of an ablation that do not depend on when and where it ran."""
    names = ("ablation.json", "ablation.md", "ablation.html", "recipe.yaml")
    return {name: (folder / name).read_bytes() for name in names}


def cells_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The stored table's cells by name."""
    stored = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    return {cell["name"]: cell for cell in stored["cells"]}
