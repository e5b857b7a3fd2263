"""``rag-frozen train RECIPE``: from a recipe to a finished artifact, whatever is trained.

Chooses the job by the recipe's ``kind``. The artifact is written whole at the end; the state of
an unfinished training stands beside it and is continued by the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rag_frozen.artifacts import artifact_root
from rag_frozen.errors import RecipeError
from rag_frozen.recipes.loading import find_recipe, load_recipe, read_recipe
from rag_frozen.training.job import TrainingReport, run_job
from rag_frozen.training.loop import Progress
from rag_frozen.training.processes import join_processes
from rag_frozen.training.prompt_settings import PromptTraining
from rag_frozen.training.prompt_training import train_prompt
from rag_frozen.training.question_tower_job import question_tower_job
from rag_frozen.training.reader_job import reader_job
from rag_frozen.training.reranker_job import reranker_job
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.retriever_job import retriever_job
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.settings import ReaderTraining

__all__ = ["TrainingReport", "train"]

_FOLDER: Literal["pipelines/train"] = "pipelines/train"


def train(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    root: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> TrainingReport:
    """Run a training recipe to the end, continuing an unfinished run of it.

    Started by ``accelerate launch``, the processes share each batch; the first one validates and
    writes.

    Args:
        recipe: a name (``pocket-reader``) or a path.
        overrides: ``a.b=c`` settings.
        root: artifacts' folder; the result lies in ``<root>/models/<name>/<fingerprint>``.
        report: is told the progress.

    Raises:
        RecipeError, InputError, DataFormatError: when recipe or data cannot be used.
        FrozenWeightsChangedError: when weights changed that must stay.
    """
    path = find_recipe(recipe, _FOLDER)
    kind = read_recipe(path, overrides=overrides).get("kind")
    home = artifact_root(root)
    share = join_processes()
    match kind:
        case "pocket-reader":
            reader = load_recipe(path, ReaderTraining, folder=_FOLDER, overrides=overrides)
            return run_job(reader_job(reader, share=share), home, report, share=share)
        case "pocket-reranker":
            reranker = load_recipe(path, RerankerTraining, folder=_FOLDER, overrides=overrides)
            return run_job(reranker_job(reranker, share=share), home, report, share=share)
        case "pocket-retriever":
            retriever = load_recipe(path, RetrieverTraining, folder=_FOLDER, overrides=overrides)
            if retriever.towers == "question":
                job = question_tower_job(retriever, root=home, share=share)
            else:
                job = retriever_job(retriever, share=share)
            return run_job(job, home, report, share=share)
        case "prompt":
            prompt = load_recipe(path, PromptTraining, folder=_FOLDER, overrides=overrides)
            made = train_prompt(prompt, home, report, share=share)
            return TrainingReport(made.folder, made.metrics, made.seconds, made.reused, made.faults)
        case _:
            raise RecipeError(
                f"The recipe {path} is of kind {kind!r}; what can be trained is pocket-reader, "
                "pocket-reranker, pocket-retriever and prompt."
            )
