"""What a small Wikipedia costs in answer-recall: the pruning of ``wiki-small``, mapped to passages.

python benchmarks/small_wikipedia.py CORPUS_FOLDER QUESTIONS.jsonl.gz --work DIR
    [--dense INDEX_FOLDER] [--shares 0.5 0.25 0.1] [--words 0.25]

CORPUS_FOLDER is a corpus artifact, INDEX_FOLDER a finished dense index over it.

``select`` of a dump's recipe scores an article by its inbound links, its redirects and its words. A
corpus of passages has titles and texts alone, so here: all passages of one title are an article;
its inbound links are the other articles whose text mentions its title (word for word, in the same
case; a title of one word not at the beginning of a sentence); its words are those of its passages;
it has no redirects. The weights are those of ``Selection``. Kept are the best articles, and beside
them, to compare, as many passages drawn at random by article. BM25 is built over the passages that
are kept; vectors are those of the index. Answer-recall is DPR's (an answer's tokens stand in a row
in a passage), over all questions, those included whose answers are pruned away.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from rag_frozen.artifacts import load_manifest
from rag_frozen.corpus import open_corpus
from rag_frozen.corpus.mediawiki.selection import Selection
from rag_frozen.evaluation.datasets import read_examples
from rag_frozen.evaluation.examples import Example
from rag_frozen.evaluation.metrics import has_answer
from rag_frozen.evaluation.statistics import bootstrap_interval
from rag_frozen.indexing.encoders import make_encoder
from rag_frozen.recipes.index import EncoderSettings
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.retrieval.dense_vectors import StoredVectors
from rag_frozen.types import Passage

DEPTHS = (1, 5, 20, 100)
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|[.!?:]")
_END = frozenset(".!?:")
_LONGEST = 6
"""Words of the longest title that is looked for."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="indexes are written here")
    parser.add_argument("--dense", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.25, 0.1])
    parser.add_argument("--words", type=float, default=Selection().words, help="their weight")
    options = parser.parse_args()
    store = open_corpus(options.corpus)
    passages = [passage for batch in store.iter_passages() for passage in batch]
    examples = list(read_examples(options.questions).examples)
    titles, article_of = articles(passages)
    score = article_scores(passages, titles, article_of, weight_of_words=options.words)
    vectors = None if options.dense is None else Dense(options.dense, examples)
    print(f"{len(titles):,} titles, {len(passages):,} passages; {len(examples):,} questions")
    order = np.argsort(-score, kind="stable")
    shuffled = np.random.default_rng(0).permutation(len(titles))
    for share in [1.0, *options.shares]:
        n_kept = Selection(share=share).n_kept(len(titles))
        ways = {"": order} if share == 1 else {"best": order, "random": shuffled}
        for way, chosen in ways.items():
            stays = np.zeros(len(titles), dtype=bool)
            stays[chosen[:n_kept]] = True
            rows = stays[article_of]
            print(f"{100 * share:g} % of the articles, {way}: {rows.sum():,} passages", flush=True)
            tell("bm25", bm25(passages, rows, examples, options.work / "bm25"), examples)
            if vectors is not None:
                found = vectors.search(rows)
                tell("dense", [[passages[row] for row in some] for some in found], examples)


def articles(passages: Sequence[Passage]) -> tuple[list[str], NDArray[np.int64]]:
    """The titles, and of each passage the number of its title."""
    numbers: dict[str, int] = {}
    of = [numbers.setdefault(passage.title, len(numbers)) for passage in passages]
    return list(numbers), np.asarray(of, dtype=np.int64)


def article_scores(
    passages: Sequence[Passage],
    titles: Sequence[str],
    article_of: NDArray[np.int64],
    *,
    weight_of_words: float,
) -> Floats:
    """The score of ``Selection`` with mentions in the place of links."""
    known = {tuple(_WORD.findall(title)): number for number, title in enumerate(titles)}
    known.pop((), None)
    mentioned: set[tuple[int, int]] = set()
    words = np.zeros(len(titles))
    for passage, article in zip(passages, article_of.tolist(), strict=True):
        tokens = _WORD.findall(passage.text)
        words[article] += len(passage.text.split())
        mentioned.update((article, to) for to in mentions(tokens, known) if to != article)
    inbound = np.bincount([to for _, to in mentioned], minlength=len(titles))
    print(f"{(inbound > 0).sum():,} titles are mentioned by another article")
    score: Floats = Selection().links * np.log1p(inbound) + weight_of_words * np.log1p(words)
    return score


def mentions(tokens: Sequence[str], known: dict[tuple[str, ...], int]) -> Iterable[int]:
    """Numbers of the titles that stand in a text."""
    begins = [True, *(before in _END for before, _ in pairwise(tokens))]
    for at, token in enumerate(tokens):
        if not (token[0].isupper() or token[0].isdigit()):
            continue
        for length in range(1, _LONGEST + 1):
            to = known.get(tuple(tokens[at : at + length]))
            if to is not None and not (length == 1 and begins[at]):
                yield to


def bm25(
    passages: Sequence[Passage], rows: Flags, examples: Sequence[Example], folder: Path
) -> list[list[Passage]]:
    """The first 100 passages of each question, by tantivy over the rows that are kept."""
    shutil.rmtree(folder, ignore_errors=True)
    build_tantivy(folder, (passages[row] for row in np.flatnonzero(rows)))
    by_id = {passages[row].id: passages[row] for row in np.flatnonzero(rows)}
    questions = [example.question for example in examples]
    rankings = TantivyRetriever(folder).retrieve(questions, k=DEPTHS[-1])
    return [[by_id[hit.passage_id] for hit in ranking] for ranking in rankings]


class Dense:
    """Exact search over the rows of a dense index that are kept."""

    def __init__(self, folder: Path, examples: Sequence[Example]) -> None:
        recorded = load_manifest(folder, kind="index").recipe["encoder"]
        encoder = make_encoder(TypeAdapter(EncoderSettings).validate_python(recorded))
        self._queries = encoder.encode_questions([one.question.text for one in examples])
        self._vectors = StoredVectors(folder)

    def search(self, rows: Flags) -> list[list[int]]:
        """The first 100 rows of each question."""
        scores = np.empty((len(self._queries), 0), dtype=np.float32)
        found = np.empty((len(self._queries), 0), dtype=np.int64)
        for start, block in self._vectors.blocks():
            here = np.flatnonzero(rows[start : start + len(block)])
            scores = np.hstack((scores, self._queries @ block[here].T))
            found = np.hstack((found, np.broadcast_to(here + start, (len(scores), len(here)))))
            if scores.shape[1] > DEPTHS[-1]:
                best = np.argpartition(-scores, DEPTHS[-1], axis=1)[:, : DEPTHS[-1]]
                scores = np.take_along_axis(scores, best, axis=1)
                found = np.take_along_axis(found, best, axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        listed: list[list[int]] = np.take_along_axis(found, order, axis=1).tolist()
        return listed


def tell(name: str, found: Sequence[Sequence[Passage]], examples: Sequence[Example]) -> None:
    """Print the answer-recall of the first 1, 5, 20 and 100, with 95 % intervals."""
    ranks = []
    for passages, example in zip(found, examples, strict=True):
        holds = (n for n, p in enumerate(passages, 1) if has_answer(p.text, example.answers))
        ranks.append(next(holds, None))
    cells = []
    for k in DEPTHS:
        hits = [float(rank is not None and rank <= k) for rank in ranks]
        low, high = bootstrap_interval(hits)
        share = 100 * sum(hits) / len(hits)
        cells.append(f"@{k} {share:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    print(f"  {name}: {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
