"""Recipes of corpora that are made, not only read: dumps, hub data sets, folders of documents.

``recipes.index`` lists them beside the corpora of files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rag_frozen.corpus.chunking import DPR_WORDS
from rag_frozen.corpus.folders import DOCUMENT_ENDINGS
from rag_frozen.corpus.mediawiki.options import WikiOptions
from rag_frozen.corpus.mediawiki.selection import Selection
from rag_frozen.corpus.remote import is_address

__all__ = [
    "ArticleSelection",
    "DiskPath",
    "FolderCorpus",
    "HubCorpus",
    "MediaWikiCorpus",
    "Place",
]

_WIKI = WikiOptions()
_SELECTION = Selection()


def _place(value: object) -> object:
    return Path(value) if isinstance(value, str) and not is_address(value) else value


def _on_disk(value: object) -> object:
    if is_address(value):
        raise ValueError(
            "documents and indexes are read from disks alone, not from an address such as this "
            "(dumps and passage files are); mount the storage, or copy it"
        )
    return value


Place = Annotated[Path | str, BeforeValidator(_place)]
"""A path, or an address of fsspec as text (``s3://…``), see ``corpus.remote``."""

DiskPath = Annotated[Path, BeforeValidator(_on_disk)]
"""A path on a disk; an address is refused."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArticleSelection(_Frozen):
    """The articles that people ask about: the ``articles`` best, or the best ``share`` of all, by
    inbound links, redirects and words; the weights are those of
    ``corpus.mediawiki.selection.Selection``."""

    articles: int | None = Field(None, ge=1)
    share: float | None = Field(None, gt=0.0, le=1.0)
    links: float = Field(_SELECTION.links, ge=0.0)
    redirects: float = Field(_SELECTION.redirects, ge=0.0)
    words: float = Field(_SELECTION.words, ge=0.0)

    @model_validator(mode="after")
    def _one_size(self) -> ArticleSelection:
        if (self.articles is None) == (self.share is None):
            raise ValueError("give either articles or share")
        return self


class MediaWikiCorpus(_Frozen):
    """Articles of MediaWiki dumps: ``pages-articles.xml``, plain, bzip2 (also multistream) or gzip,
    a file of Special:Export, or a folder of such files.

    The first fields are those of ``corpus.mediawiki.options.WikiOptions``, with DPR's choices as
    defaults. Articles are cut into passages of ``chunk_words`` words; ``wrap`` fills the last one
    from the article's start as DPR does. ``processes`` parse pages, as many as there are cores and
    as pay for the dump's size where it is not given; their number does not change the corpus.
    ``damaged: keep`` goes on where a dump breaks off or a page cannot be read, with a warning, and
    the manifest says so. ``select`` keeps the articles that people ask about; it needs room on disk
    for all passages a second time.
    """

    kind: Literal["mediawiki"]
    path: Place | None = None
    namespaces: tuple[int, ...] = Field(_WIKI.namespaces, min_length=1)
    lists: bool = _WIKI.lists
    infoboxes: bool = _WIKI.infoboxes
    headings: bool = _WIKI.headings
    disambiguation: bool = _WIKI.disambiguation
    min_words: int = Field(_WIKI.min_words, ge=0)
    skip_titles: tuple[str, ...] = _WIKI.skip_titles
    drop_sections: tuple[str, ...] = _WIKI.drop_sections
    disambiguation_templates: tuple[str, ...] = _WIKI.disambiguation_templates
    infobox_prefixes: tuple[str, ...] = _WIKI.infobox_prefixes
    chunk_words: int = Field(DPR_WORDS, ge=10)
    at_sentences: bool = False
    wrap: bool = False
    processes: int | None = Field(None, ge=1)
    damaged: Literal["stop", "keep"] = "stop"
    select: ArticleSelection | None = None

    def options(self) -> WikiOptions:
        """The fields that say which pages are kept and what of them."""
        return WikiOptions(**{name: getattr(self, name) for name in WikiOptions.__slots__})

    def selection(self) -> Selection | None:
        """Which articles stay, None where all do."""
        return None if self.select is None else Selection(**self.select.model_dump())


class HubCorpus(_Frozen):
    """A data set of the hub, or a folder of data files, read as a stream without a full download.

    Rows are read as JSONL rows are (``id``, ``title``, ``text``; BEIR's, Pyserini's and KILT's
    names too), or by the fields that are named here. ``revision`` is a commit, tag or branch; the
    commit it stands for is recorded. ``chunk_words`` cuts longer documents.
    """

    kind: Literal["hub"]
    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    id_field: str | None = None
    title_field: str | None = None
    text_field: str | None = None
    chunk_words: int | None = Field(None, ge=10)
    at_sentences: bool = False
    strict: bool = False


class FolderCorpus(_Frozen):
    """Text, Markdown and HTML files of a folder and those below it, one document each.

    A passage is named by its file's path in the folder and its number; its title is the document's
    first heading or title, else the file's name.
    """

    kind: Literal["folder"]
    path: DiskPath | None = None
    endings: tuple[str, ...] = Field(DOCUMENT_ENDINGS, min_length=1)
    chunk_words: int = Field(DPR_WORDS, ge=10)
    at_sentences: bool = True
    strict: bool = False
