"""BM25 by tantivy (k1 = 1.2, b = 0.75): memory-mapped, no Java.

Title and text of a passage are one field, as in Pyserini's DPR collections. A question is never
read as query syntax: it is cut into terms as the passages were, and any of them may match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tantivy

from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.retrieval.passage_ids import (
    PassageIds,
    check_k,
    check_questions,
    write_passage_ids,
)
from rag_frozen.types import Hit, Passage, Question, Ranking, sort_hits

__all__ = ["TantivyRetriever", "build_tantivy"]

_ANALYZER = "rag_frozen"
_MAX_TERMS = 512
"""Distinct terms of a question that are searched: the first ones of a pasted page."""
_SPARE = 32
"""Hits beyond k that are looked at, so that ties at the cut are settled by id."""


def build_tantivy(
    folder: Path,
    passages: Iterable[Passage],
    *,
    stemming: bool = True,
    stop_words: bool = False,
    heap_bytes: int = 256 * 2**20,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, str]:
    """Index passages into an empty folder.

    Args:
        folder: is made; holds tantivy's files in ``tantivy/`` and the ids in ``ids.arrow``.
        passages: in corpus order.
        stemming, stop_words: English ones, for passages and questions alike.
        heap_bytes: memory that the writer may use.
        progress: is told the number of passages done.

    Returns:
        Number of passages, and SHA-256 over their ids in order.
    """
    (folder / "tantivy").mkdir(parents=True)
    index = tantivy.Index(_schema(), path=str(folder / "tantivy"))
    index.register_tokenizer(_ANALYZER, _analyzer(stemming, stop_words))
    writer = index.writer(heap_size=heap_bytes, num_threads=1)

    def added() -> Iterator[str]:
        for row, passage in enumerate(passages):
            document = tantivy.Document()
            document.add_unsigned("row", row)
            document.add_text("contents", f"{passage.title}\n{passage.text}")
            writer.add_document(document)
            if row % 1_000 == 999:
                progress(row + 1)
            yield passage.id

    counted = write_passage_ids(folder / "ids.arrow", added())
    writer.commit()
    writer.wait_merging_threads()
    progress(counted[0])
    return counted


class TantivyRetriever:
    """BM25 rankings from a folder that :func:`build_tantivy` wrote."""

    def __init__(self, folder: Path, *, stemming: bool = True, stop_words: bool = False) -> None:
        """Open an index; the analyzer's settings must be those that it was built with.

        Raises:
            ArtifactDamagedError: when the folder holds no readable index, or its ids do not match.
        """
        self._analyze = _analyzer(stemming, stop_words)
        try:
            index = tantivy.Index.open(str(folder / "tantivy"))
            index.register_tokenizer(_ANALYZER, self._analyze)
            index.reload()
            self._searcher = index.searcher()
        except (ValueError, OSError) as error:
            raise ArtifactDamagedError(
                f"The BM25 index in {folder} cannot be opened: {error}. Build it again with: "
                "rag-frozen index build RECIPE"
            ) from error
        self._schema = index.schema
        self._ids = PassageIds(folder / "ids.arrow")
        if len(self._ids) != self._searcher.num_docs:
            raise ArtifactDamagedError(
                f"The BM25 index in {folder} has {self._searcher.num_docs:,} passages and "
                f"{len(self._ids):,} ids. Build it again with: rag-frozen index build RECIPE"
            )

    def __len__(self) -> int:
        return len(self._ids)

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return BM25 rankings; a question without a known term has no hits."""
        check_k(k)
        check_questions(question.text for question in questions)
        return [self._search(question.text, k) for question in questions]

    def _search(self, text: str, k: int) -> Ranking:
        query = self._query(text)
        if query is None or not len(self):
            return ()
        limit = min(k + _SPARE, len(self))
        while True:
            hits = self._searcher.search(query, limit=limit, count=False).hits
            settled = len(hits) < limit or limit == len(self) or hits[k - 1][0] > hits[-1][0]
            if settled or limit <= k:
                break
            limit = min(4 * limit, len(self))
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        ids = self._ids.take(rows)
        scored = zip(ids, hits, strict=True)
        return sort_hits(Hit(passage_id, score) for passage_id, (score, _) in scored)[:k]

    def _query(self, text: str) -> Any:  # Any: tantivy has no types
        terms = self._analyze.analyze(text)
        weights: dict[str, int] = {}
        for term in terms:
            if term in weights or len(weights) < _MAX_TERMS:
                weights[term] = weights.get(term, 0) + 1
        if not weights:
            return None
        clauses = []
        for term, weight in weights.items():
            query = tantivy.Query.term_query(self._schema, "contents", term, "freq")
            if weight > 1:
                query = tantivy.Query.boost_query(query, float(weight))
            clauses.append((tantivy.Occur.Should, query))
        return tantivy.Query.boolean_query(clauses)


def _schema() -> Any:  # Any: tantivy has no types
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("row", stored=False, indexed=False, fast=True)
    builder.add_text_field("contents", tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


def _analyzer(stemming: bool, stop_words: bool) -> Any:  # Any: tantivy has no types
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    builder = builder.filter(tantivy.Filter.remove_long(80)).filter(tantivy.Filter.lowercase())
    builder = builder.filter(tantivy.Filter.ascii_fold())
    if stop_words:
        builder = builder.filter(tantivy.Filter.stopword("english"))
    if stemming:
        builder = builder.filter(tantivy.Filter.stemmer("english"))
    return builder.build()
