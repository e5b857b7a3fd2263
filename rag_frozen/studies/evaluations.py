"""What a study's methods are measured on: contexts for the reader, and the answers that count.

Retrieval and packing do not depend on a method, so they run once an evaluation and reader.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag_frozen.artifacts.writing import atomic_write_text
from rag_frozen.build import load_pipeline
from rag_frozen.errors import InputError
from rag_frozen.evaluation.load import load_examples
from rag_frozen.recipes.evaluation import EvalRecipe
from rag_frozen.recipes.loading import load_recipe
from rag_frozen.recipes.pipeline import PipelineRecipe, ReaderSettings
from rag_frozen.studies.settings import (
    PerplexityEvaluation,
    PromptStudy,
    QuestionsEvaluation,
    RowsEvaluation,
)
from rag_frozen.training.prompt_data import load_source
from rag_frozen.types import Context, Kept, Question

__all__ = ["Evaluation", "Pieces", "open_pieces", "open_questions", "open_rows"]

_CHUNK = 128
"""Questions that are retrieved and packed together."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``golds[i]`` are the answers that count for ``contexts()[i]``; ``identity`` changes with
    anything that could change either."""

    name: str
    identity: str
    golds: tuple[tuple[str, ...], ...]
    contexts: Callable[[], Sequence[Context]]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of running text: ``sources[i]`` is given, ``targets[i]`` is scored."""

    name: str
    identity: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def open_questions(
    settings: QuestionsEvaluation,
    study: PromptStudy,
    reader: ReaderSettings,
    *,
    reader_digest: str,
    cache: Path,
    root: Path | None,
) -> Evaluation:
    """Questions of an evaluation recipe, retrieved and packed by its pipeline for this reader.

    Passages are packed into one prompt, however the pipeline itself reads them. Unanswerable
    questions are left out. Contexts are kept in a file below ``cache``.
    """
    overrides = list(settings.overrides)
    if settings.file is not None:
        overrides.append(f"data.path={(study.data_path or Path()) / settings.file}")
    recipe = load_recipe(settings.recipe, EvalRecipe, folder="eval", overrides=overrides)
    examples = [one for one in load_examples(recipe).examples if one.answers]
    limits = [limit for limit in (settings.limit, study.limit) if limit is not None]
    examples = examples[: min(limits, default=None)]
    pipeline = settings.pipeline or recipe.pipeline
    mine = f"reader={json.dumps(reader.model_dump(mode='json'))}"
    own = [*settings.pipeline_overrides, mine, "reading={kind: packed}", "answers={kind: free}"]
    resolved = load_recipe(pipeline, PipelineRecipe, folder="pipelines", overrides=own)
    found = load_pipeline(pipeline, root=root, overrides=own, until="retrieve").artifacts
    asked = [one.question for one in examples]
    identity = _digest(
        resolved.model_dump(mode="json"),
        dict(found),
        reader_digest,
        [(question.id, question.text) for question in asked],
    )

    def contexts() -> Sequence[Context]:
        stored = cache / f"{settings.name}-{identity[:16]}.jsonl"
        if not stored.exists():
            loaded = load_pipeline(pipeline, root=root, overrides=own)
            made = [
                context
                for start in range(0, len(asked), _CHUNK)
                for context in loaded.prepare(asked[start : start + _CHUNK]).contexts
            ]
            atomic_write_text(stored, "".join(_to_line(one) for one in made))
        with stored.open(encoding="utf-8") as lines:
            return [_from_line(line) for line in lines]

    return Evaluation(settings.name, identity, tuple(one.answers for one in examples), contexts)


def open_rows(settings: RowsEvaluation, study: PromptStudy) -> Evaluation:
    """Rows of a task's file, written with the study's template."""
    rows = load_source(
        settings.source, study.data_path, template=study.template, seed=study.split_seed
    )
    random.Random(f"{study.split_seed}:{settings.name}").shuffle(rows)
    limits = [limit for limit in (settings.limit, study.limit) if limit is not None]
    rows = rows[: min(limits, default=None)]
    identity = _digest([(row.context.prompt, row.answers) for row in rows])
    return Evaluation(
        settings.name,
        identity,
        tuple(row.answers for row in rows),
        lambda: [row.context for row in rows],
    )


def open_pieces(settings: PerplexityEvaluation, study: PromptStudy) -> Pieces:
    """Pieces of a text file's paragraphs, in order, at most one a paragraph.

    Raises:
        InputError: when the file cannot be read or no paragraph is long enough.
    """
    path = Path(settings.file) if study.data_path is None else study.data_path / settings.file
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The text of the evaluation {settings.name} cannot be read: {error}. Name its folder "
            "with: --set data_path=DIR"
        ) from error
    need = settings.source_words + settings.target_words
    long = [words for line in lines if len(words := line.split()) >= need]
    if not long:
        raise InputError(f"{path} has no paragraph of {need} words or more.")
    kept = long[: min(settings.limit, study.limit or settings.limit)]
    sources = tuple(" ".join(words[: settings.source_words]) for words in kept)
    targets = tuple(" ".join(words[settings.source_words : need]) for words in kept)
    return Pieces(settings.name, _digest(sources, targets), sources, targets)


def _digest(*parts: object) -> str:
    written = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()


def _to_line(context: Context) -> str:
    kept = [[one.passage_id, one.n_tokens] for one in context.kept]
    question = [context.question.id, context.question.text]
    row = {"question": question, "prompt": context.prompt, "n_tokens": context.n_tokens}
    return json.dumps({**row, "kept": kept}, ensure_ascii=False) + "\n"


def _from_line(line: str) -> Context:
    row = json.loads(line)
    kept = tuple(Kept(passage_id, n) for passage_id, n in row["kept"])
    return Context(Question(*row["question"]), row["prompt"], row["n_tokens"], kept)
