"""BM25 by Lucene as Pyserini and Anserini use it: the engine of most published numbers.

Title and text of a passage are one field, as in Pyserini's DPR collections; the analyzer is
Anserini's (standard tokenizer, possessives, lower case, stop words, Porter). k1 and b are free,
0.9 and 0.4 are Anserini's defaults. A question is never read as query syntax.

Searches are Anserini's own calls, spread over Python threads: its ``batch_search`` takes a number
of threads and ignores it, and gives each hit as an object whose every field is a call to Java.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from rag_frozen.errors import ArtifactDamagedError
from rag_frozen.retrieval.lucene_build import INDEX_FOLDER, Stemmer, StopWords
from rag_frozen.retrieval.lucene_jvm import cores, java, java_text, opening, path_text, start_jvm
from rag_frozen.retrieval.passage_ids import check_k, check_questions
from rag_frozen.types import Hit, Question, Ranking, sort_hits

__all__ = ["LuceneRetriever"]

_AT_ONCE = 10_000
"""Passages of an index that are gone through at once."""
_MAX_TERMS = 512
"""Distinct terms of a question that are searched; Lucene refuses more than 1,024."""
_SPARE = 32
"""Hits beyond k that are looked at where Lucene does not order ties by id."""


class LuceneRetriever:
    """BM25 rankings from a Lucene index of Anserini's layout: fields ``id`` and ``contents``."""

    def __init__(
        self,
        folder: Path,
        *,
        k1: float = 0.9,
        b: float = 0.4,
        stemmer: Stemmer = "porter",
        stop_words: StopWords = True,
        threads: int | None = None,
        heap_mb: int = 1024,
    ) -> None:
        """Open a folder that ``build_lucene`` wrote, or a folder of Lucene's own files.

        The analyzer's settings must be those that it was built with. ``threads`` search a batch
        (all cores where it is None); ``heap_mb`` is Java's, see :func:`.lucene_jvm.start_jvm`.

        Raises:
            ArtifactDamagedError: when the folder holds no readable index of that layout.
            MissingPackageError: when Pyserini or its Java is not installed.
        """
        start_jvm(heap_mb=heap_mb)
        self._folder = folder
        self._threads = threads or cores()
        own = folder / INDEX_FOLDER
        with opening(folder):
            self._java = java("io.anserini.search.SimpleSearcher")(
                path_text(own if own.is_dir() else folder)
            )
            self._java.set_bm25(k1, b)
            self._searcher = self._java.searcher
            self._analyzer = _analyzer(stemmer, stop_words)
            self._words = java("io.anserini.search.query.BagOfWordsQueryGenerator")()
            self._hits = java("io.anserini.search.ScoredDocs")
            self._sort = self._java.BREAK_SCORE_TIES_BY_DOCID
            self._n = int(self._java.reader.numDocs())
            self._ties_by_id = _check_fields(folder, self._java)

    def __len__(self) -> int:
        return self._n

    @property
    def segments(self) -> int:
        """Parts of the index that are searched one after the other; one, where we built it."""
        return int(self._java.reader.leaves().size())

    def ids(self) -> Iterator[list[str]]:
        """Yield the ids of all passages in the index's own order, in lists."""
        return (list(found.docids) for found in self._everything())

    def documents(self) -> Iterator[list[Any]]:  # Any: Java objects
        """Yield the stored documents of all passages in the index's own order, in lists."""
        return (list(found.lucene_documents) for found in self._everything())

    def document(self, passage_id: str) -> Any | None:  # Any: a Java object
        """Return the stored document of a passage, or None where the index holds no such id."""
        with opening(self._folder):
            return self._java.doc(java_text(passage_id))

    def _everything(self) -> Iterator[Any]:  # Any: Java objects
        all_of_them = java("org.apache.lucene.search.MatchAllDocsQuery")()
        after = java("org.apache.lucene.search.ScoreDoc")
        last = None
        while True:
            with opening(self._folder):
                found = (
                    self._searcher.search(all_of_them, _AT_ONCE)
                    if last is None
                    else self._searcher.searchAfter(last, all_of_them, _AT_ONCE)
                )
                documents = self._hits.fromTopDocs(found, self._searcher)
                rows = documents.lucene_docids
            if not rows:
                return
            yield documents
            last = after(rows[-1], 1.0)

    def check_files(self) -> None:
        """Compare the checksums that Lucene keeps in its files with what they hold.

        Raises:
            ArtifactDamagedError: when a file was changed or cut.
        """
        with opening(self._folder):
            for leaf in self._java.reader.leaves():
                leaf.reader().checkIntegrity()

    def retrieve(self, questions: Sequence[Question], *, k: int) -> list[Ranking]:
        """Return BM25 rankings; a question without a known term has no hits."""
        check_k(k)
        check_questions(question.text for question in questions)
        texts = [question.text for question in questions]
        workers = min(self._threads, len(texts))
        if workers < 2:
            return self._work(texts, k)
        shares = [range(first, len(texts), workers) for first in range(workers)]
        rankings: list[Ranking] = [()] * len(texts)
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(lambda share: self._work([texts[n] for n in share], k), shares)
            for share, some in zip(shares, found, strict=True):
                for number, ranking in zip(share, some, strict=True):
                    rankings[number] = ranking
        return rankings

    def _work(self, texts: Sequence[str], k: int) -> list[Ranking]:
        """A thread's share. Java keeps a thread that it was not told to let go, also after its
        end, so all but the main thread, whoever began them, are let go."""
        import jnius

        try:
            return [self._search(text, k) for text in texts]
        finally:
            if current_thread() is not main_thread():
                jnius.detach()

    def _search(self, text: str, k: int) -> Ranking:
        with opening(self._folder):
            query = self._words.buildQuery("contents", self._analyzer, self._bounded(text))
            if self._ties_by_id:
                return sort_hits(self._found(self._searcher.search(query, k, self._sort, True)))
            limit = k + _SPARE
            while True:
                hits = self._found(self._searcher.search(query, limit))
                if len(hits) < limit or hits[k - 1].score > hits[-1].score:
                    return sort_hits(hits)[:k]
                limit *= 4

    def _found(self, top: Any) -> list[Hit]:  # Any: a Java object
        documents = self._hits.fromTopDocs(top, self._searcher)
        ids, scores = documents.docids, documents.scores
        return [Hit(one, float(score)) for one, score in zip(ids, scores, strict=True)]

    def _bounded(self, text: str) -> Any:  # Any: a str, or a Java String
        """The longest beginning of the text with at most ``_MAX_TERMS`` distinct terms."""
        if len(text) <= _MAX_TERMS or self._n_terms(text) <= _MAX_TERMS:
            return java_text(text)
        fits, over = _MAX_TERMS, len(text)
        while over - fits > 1:
            middle = (fits + over) // 2
            fits, over = (middle, over) if self._n_terms(text[:middle]) <= _MAX_TERMS else (
                fits, middle)  # fmt: skip
        return java_text(text[:fits])

    def _n_terms(self, text: str) -> int:
        analyze = java("io.anserini.analysis.AnalyzerUtils").analyze
        terms = java("java.util.HashSet")(analyze(self._analyzer, java_text(text)))
        return int(terms.size())


def _analyzer(stemmer: Stemmer, stop_words: StopWords) -> Any:  # Any: a Java object
    analyzer = java("io.anserini.analysis.DefaultEnglishAnalyzer")
    if stop_words is True:
        return analyzer.newStemmingInstance(stemmer)
    words = java("java.util.ArrayList")()
    for word in stop_words or ():
        words.add(java_text(word.lower()))
    listed = java("org.apache.lucene.analysis.CharArraySet")(words, False)
    return analyzer.newStemmingInstance(stemmer, listed)


def _check_fields(folder: Path, searcher: Any) -> bool:  # Any: a Java object
    """Check the index's fields; return whether Lucene can order ties by id."""
    leaves = searcher.reader.leaves()
    if not leaves.size():
        return False
    fields = leaves.get(0).reader().getFieldInfos()
    missing = [name for name in ("id", "contents") if fields.fieldInfo(name) is None]
    if missing:
        raise ArtifactDamagedError(
            f"The Lucene index in {folder} has no field {' and no field '.join(missing)}: it was "
            "not made by Anserini or Pyserini. Build one with: rag-frozen index build RECIPE"
        )
    sortable = fields.fieldInfo("id").getDocValuesType().toString() == "BINARY"
    return sortable and not searcher.backwardsCompatibilityLucene8
