"""BM25 by tantivy (k1 = 1.2, b = 0.75): memory-mapped, no Java.

Title and text of a passage are one field, as in Pyserini's DPR collections. A question is never
read as query syntax: it is cut into terms as the passages were, and any of them may match.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import tantivy

from rag_frozen.artifacts import link_or_copy
from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.retrieval.passage_ids import (
    PassageIds,
    check_k,
    check_questions,
    write_changed_ids,
    write_passage_ids,
)
from rag_frozen.retrieval.tantivy_segments import DEFAULT_HEAP_MB, SegmentPlan, plan_segments
from rag_frozen.types import Hit, Passage, Question, Ranking, sort_hits

__all__ = ["TantivyRetriever", "build_tantivy", "change_tantivy"]

_ANALYZER = "rag_frozen"
_IDS = "ids.arrow"
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
    plan: SegmentPlan | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, str]:
    """Index passages into an empty folder, as one segment where the plan fits them.

    Args:
        folder: is made; holds tantivy's files in ``tantivy/`` and the ids in ``ids.arrow``.
        passages: in corpus order.
        stemming, stop_words: English ones, for passages and questions alike.
        plan: :func:`rag_frozen.retrieval.tantivy_segments.plan_segments` of these passages; None
            for some hundred thousand at most.
        progress: is told the number of passages done.

    Returns:
        Number of passages, and SHA-256 over their ids in order.
    """
    (folder / "tantivy").mkdir(parents=True)
    index = tantivy.Index(_schema(), path=str(folder / "tantivy"))
    index.register_tokenizer(_ANALYZER, _analyzer(stemming, stop_words))
    plan = plan or plan_segments(0, 0)
    writer = index.writer(heap_size=plan.heap_bytes, num_threads=1)
    rows = _in_parts(writer, _added(writer, passages, 0, progress), plan)
    counted = write_passage_ids(folder / _IDS, rows)
    writer.commit()
    writer.wait_merging_threads()
    progress(counted[0])
    return counted


def change_tantivy(
    folder: Path,
    base: Path,
    *,
    added: Iterable[Passage],
    deleted: Sequence[str],
    stemming: bool = True,
    stop_words: bool = False,
    heap_mb: int = DEFAULT_HEAP_MB,
) -> tuple[int, str]:
    """Write the index after a change into an existing folder, sharing the base's segments.

    The rows of deleted passages stay in the segments and are left out of rankings; like in every
    Lucene-like engine they still count in the statistics of terms until the index is built anew.

    Args:
        folder: of the changed index.
        base: what :func:`build_tantivy` or this function wrote; it stays as it is.
        added, deleted: passages, and ids of the base.
        stemming, stop_words: as in :func:`build_tantivy`.
        heap_mb: MiB that the writer may take.

    Returns:
        Number of passages, and SHA-256 over their ids in order.
    """
    (folder / "tantivy").mkdir()
    for file in (base / "tantivy").iterdir():
        if file.name.endswith(".lock"):
            continue
        if file.suffix == ".json":  # rewritten in place by the writer; segments never are
            shutil.copyfile(file, folder / "tantivy" / file.name)
        else:
            link_or_copy(file, folder / "tantivy" / file.name)
    index = tantivy.Index.open(str(folder / "tantivy"))
    index.register_tokenizer(_ANALYZER, _analyzer(stemming, stop_words))
    writer = index.writer(heap_size=heap_mb * 2**20, num_threads=1)
    ids = PassageIds(base / _IDS)
    counted = write_changed_ids(
        folder, ids, added=_added(writer, added, len(ids)), deleted=deleted, name=_IDS
    )
    writer.commit()
    writer.wait_merging_threads()
    return counted


def _added(
    writer: Any,  # Any: tantivy has no types
    passages: Iterable[Passage],
    first_row: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[str]:
    for row, passage in enumerate(passages, first_row):
        document = tantivy.Document()
        document.add_unsigned("row", row)
        document.add_text("contents", f"{passage.title}\n{passage.text}")
        writer.add_document(document)
        if row % 1_000 == 999:
            progress(row + 1)
        yield passage.id


def _in_parts(writer: Any, ids: Iterable[str], plan: SegmentPlan) -> Iterator[str]:
    """Commit after each part, when the id of its last passage comes; the caller commits the last
    part."""
    for row, one in enumerate(ids):
        if plan.part(row + 1) != plan.part(row):
            writer.commit()
        yield one


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
        self._ids = PassageIds(folder / _IDS)
        if len(self._ids) != self._searcher.num_docs:
            raise ArtifactDamagedError(
                f"The BM25 index in {folder} has {self._searcher.num_docs:,} passages and "
                f"{len(self._ids):,} ids. Build it again with: rag-frozen index build RECIPE"
            )

    def __len__(self) -> int:
        return self._ids.n_passages

    @property
    def segments(self) -> int:
        """Parts of the index that are searched one after the other; see
        :mod:`rag_frozen.retrieval.tantivy_segments`."""
        return int(self._searcher.num_segments)

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return BM25 rankings; a question without a known term has no hits."""
        check_k(k)
        check_questions(question.text for question in questions)
        return [self._search(question.text, k) for question in questions]

    def _search(self, text: str, k: int) -> Ranking:
        query = self._query(text)
        n_rows = len(self._ids)
        if query is None or not len(self):
            return ()
        limit = min(k + _SPARE, n_rows)
        while True:
            hits = self._searcher.search(query, limit=limit, count=False).hits
            rows = self._searcher.fast_field_values("row", [address for _, address in hits])
            scores = [score for score, _ in hits]
            found = list(compress(zip(rows, scores, strict=True), self._ids.alive(rows)))
            settled = len(found) >= k and found[k - 1][1] > scores[-1]
            if settled or len(hits) < limit or limit == n_rows:
                break
            limit = min(4 * limit, n_rows)
        ids = self._ids.take([row for row, _ in found])
        scored = zip(ids, found, strict=True)
        return sort_hits(Hit(passage_id, score) for passage_id, (_, score) in scored)[:k]

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
