"""The source of passages that an index recipe's corpus names."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from rag_frozen.corpus.folders import read_folder
from rag_frozen.corpus.hub import HubDataset, count_rows, read_dataset, resolve_revision
from rag_frozen.corpus.mediawiki.articles import Cutting
from rag_frozen.corpus.mediawiki.reader import DumpSource
from rag_frozen.corpus.parallel import Executor
from rag_frozen.corpus.readers import read_passages
from rag_frozen.corpus.sources import CorpusSource, RowSource
from rag_frozen.errors import RecipeError
from rag_frozen.models.source import pocket_folder
from rag_frozen.recipes.corpora import FolderCorpus, HubCorpus, MediaWikiCorpus
from rag_frozen.recipes.index import FilesCorpus, IndexRecipe, LuceneCorpus, PocketCorpus

__all__ = ["corpus_source"]


def corpus_source(
    recipe: IndexRecipe, *, processes: int | None = None, executor: Executor | None = None
) -> CorpusSource:
    """Return the source of a recipe's passages.

    Args:
        recipe: whose corpus is asked for.
        processes: in place of the recipe's.
        executor: parses a dump's pages in place of processes of this machine.

    Raises:
        RecipeError: when the recipe names no file or folder.
        InputError: when there is none of that name, or a data set cannot be reached.
    """
    settings = recipe.corpus
    match settings:
        case PocketCorpus():
            path = pocket_folder() / "encyclopedia" / "passages.jsonl"
            return RowSource(read_passages([path], strict=True))
        case FilesCorpus():
            reader = read_passages(
                [_named(recipe.name, settings.path)],
                format=None if settings.format == "auto" else settings.format,
                strict=settings.strict,
            )
            return RowSource(reader, chunk_words=settings.chunk_words)
        case MediaWikiCorpus():
            return DumpSource(
                _named(recipe.name, settings.path),
                options=settings.options(),
                cutting=Cutting(settings.chunk_words, settings.at_sentences, settings.wrap),
                processes=processes or settings.processes,
                damaged=settings.damaged,
                selection=settings.selection(),
                executor=executor,
            )
        case LuceneCorpus():
            raise RecipeError(
                f"The corpus of index recipe {recipe.name} is read from a Lucene index, of which "
                f"no sample can be planned. Build it: rag-frozen index build {recipe.name}"
            )
        case HubCorpus():
            return _hub(settings)
        case FolderCorpus():
            folder = Path(_named(recipe.name, settings.path))
            return RowSource(
                read_folder(folder, endings=settings.endings, strict=settings.strict),
                chunk_words=settings.chunk_words,
                at_sentences=settings.at_sentences,
                about={"folder": folder.name, "endings": list(settings.endings)},
            )


def _hub(settings: HubCorpus) -> RowSource:
    """Fix the revision to the commit that it stands for now, so that all rows are of one."""
    dataset = HubDataset(
        name=settings.dataset,
        config=settings.config,
        split=settings.split,
        revision=settings.revision,
        id_field=settings.id_field,
        title_field=settings.title_field,
        text_field=settings.text_field,
    )
    dataset = replace(dataset, revision=resolve_revision(dataset))
    return RowSource(
        read_dataset(dataset, strict=settings.strict),
        chunk_words=settings.chunk_words,
        at_sentences=settings.at_sentences,
        about=asdict(dataset),
        n_rows=count_rows(dataset),
    )


def _named(name: str, path: Path | str | None) -> Path | str:
    if path is None:
        raise RecipeError(
            f"The corpus of index recipe {name} is read from files, and none is named. "
            "Name a file or a folder with: --set corpus.path=…"
        )
    return path
