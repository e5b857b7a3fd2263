"""What every retriever keeps, whatever its engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rag_frozen.errors import ArtifactDamagedError, InputError
from rag_frozen.models.source import ModelFolder
from rag_frozen.protocols import Retriever
from rag_frozen.retrieval.bm25_lucene import LuceneRetriever
from rag_frozen.retrieval.bm25_tantivy import TantivyRetriever, build_tantivy
from rag_frozen.retrieval.dense_encoders import DprEncoder, SentenceEncoder, Vectors
from rag_frozen.retrieval.dense_search import DenseRetriever
from rag_frozen.retrieval.dense_shards import encode_corpus
from rag_frozen.retrieval.fusion import FusionRetriever, reciprocal_rank_fusion
from rag_frozen.retrieval.lucene_build import build_lucene
from rag_frozen.retrieval.replay import ReplayRetriever, read_trec_run, write_trec_run
from rag_frozen.types import Hit, Passage, Question, Ranking
from tests.lucene import skip_without_lucene
from tests.tiny import save_bert

TEXTS = (
    "Hamlet is a play of Shakespeare about a prince of Denmark.",
    "Radium was discovered by Marie Curie in Paris in 1898.",
    "The Nile is a long river of Africa.",
    "The moon is red and the sun is blue.",
    "Same words stand here.",
    "Same words stand here.",
    "Same words stand here.",
    "France and Germany were at war; then came peace.",
)
PASSAGES = tuple(Passage(f"p{n}", f"Title {n % 4}", text) for n, text in enumerate(TEXTS))
# Passages 4 to 6 must tie exactly, so their titles are equal too.
PASSAGES = tuple(
    Passage(p.id, "Twin" if p.text.startswith("Same") else p.title, p.text) for p in PASSAGES
)
QUESTIONS = (
    Question("a", "who wrote hamlet"),
    Question("b", "when was radium discovered"),
    Question("c", "same words"),
    Question("d", 'odd: "quotes" (brackets) AND OR NOT -minus +plus title:x ^2 ~ * ? \\ [1 TO 2]'),
    Question("e", "sun " * 3_000),
)


class HashEncoder:
    """Vectors from words, without a model: equal texts get equal vectors."""

    name, digest, width = "hash", "0" * 64, 16

    def encode_questions(self, texts: list[str]) -> Vectors:
        rows = [self._vector(text) for text in texts]
        vectors = np.array(rows, dtype=np.float32).reshape(len(rows), self.width)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1.0)

    def encode_passages(self, passages: list[Passage]) -> Vectors:
        return self.encode_questions([p.text for p in passages])

    def _vector(self, text: str) -> list[float]:
        words = text.lower().replace(".", " ").split()
        return [float(sum(len(w) * ord(w[0]) % 16 == n for w in words)) for n in range(16)]


def tantivy(folder: Path) -> TantivyRetriever:
    build_tantivy(folder / "bm25", PASSAGES)
    return TantivyRetriever(folder / "bm25")


def lucene(folder: Path) -> LuceneRetriever:
    skip_without_lucene()
    build_lucene(folder / "lucene", PASSAGES, threads=2)
    return LuceneRetriever(folder / "lucene", threads=2)


def dense(folder: Path, dtype: str = "float32") -> DenseRetriever:
    encoder = HashEncoder()
    encode_corpus(folder / "v", PASSAGES, encoder, n_passages=8, shard_size=3, dtype=dtype)  # type: ignore[arg-type]
    return DenseRetriever(encoder, folder / "v")


def sentence(folder: Path) -> DenseRetriever:
    made = save_bert(folder / "encoder")
    (made / "1_Pooling").mkdir()
    (made / "modules.json").write_text(
        '[{"path": "", "type": "sentence_transformers.models.Transformer"},'
        ' {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]'
    )
    (made / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (made / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    encoder = SentenceEncoder(ModelFolder("tiny", made), dtype="float32")
    encode_corpus(folder / "v", PASSAGES, encoder, n_passages=8, shard_size=5)
    return DenseRetriever(encoder, folder / "v")


def dpr(folder: Path) -> DenseRetriever:
    towers = [
        ModelFolder(kind, save_bert(folder / kind, kind=kind, seed=n))
        for n, kind in enumerate(("DPRQuestionEncoder", "DPRContextEncoder"))
    ]
    encoder = DprEncoder(*towers, dtype="float32", token_budget=256)
    encode_corpus(folder / "v", PASSAGES, encoder, n_passages=8, shard_size=8, dtype="float32")
    return DenseRetriever(encoder, folder / "v")


def fused(folder: Path) -> FusionRetriever:
    parts = [("bm25", tantivy(folder), 8), ("dense", dense(folder), 8)]
    return FusionRetriever(parts, reciprocal_rank_fusion)


def replay(folder: Path) -> ReplayRetriever:
    ranking: Ranking = tuple(Hit(p.id, 8.0 - n) for n, p in enumerate(PASSAGES))
    write_trec_run(folder / "run.trec", [(q.id, ranking) for q in QUESTIONS], tag="test")
    return ReplayRetriever(read_trec_run(folder / "run.trec"), name="run.trec")


MAKERS: list[Callable[[Path], Retriever]] = [
    tantivy, lucene, dense, partial(dense, dtype="float16"), sentence, dpr, fused, replay,
]  # fmt: skip


@pytest.fixture(
    params=MAKERS,
    ids=["tantivy", "lucene", "flat", "fp16", "sentence", "dpr", "fused", "replay"],
)
def retriever(request: pytest.FixtureRequest, tmp_path: Path) -> Retriever:
    return request.param(tmp_path)  # type: ignore[no-any-return]


def test_a_retriever_follows_the_protocol(retriever: Retriever):
    assert isinstance(retriever, Retriever)


def test_rankings_are_best_first_with_ties_by_id_and_no_double(retriever: Retriever):
    for ranking in retriever.retrieve(QUESTIONS, k=8):
        assert list(ranking) == sorted(ranking, key=lambda hit: (-hit.score, hit.passage_id))
        ids = [hit.passage_id for hit in ranking]
        assert len(ids) == len(set(ids))
        assert set(ids) <= {p.id for p in PASSAGES}


def test_a_smaller_k_gives_the_beginning_of_a_larger(retriever: Retriever):
    whole = retriever.retrieve(QUESTIONS, k=8)
    for k in (1, 2, 5):
        for short, long in zip(retriever.retrieve(QUESTIONS, k=k), whole, strict=True):
            assert [hit.passage_id for hit in short] == [hit.passage_id for hit in long[:k]]


def test_a_batch_gives_what_one_by_one_gives(retriever: Retriever):
    together = retriever.retrieve(QUESTIONS, k=5)
    for question, ranking in zip(QUESTIONS, together, strict=True):
        [alone] = retriever.retrieve([question], k=5)
        assert [hit.passage_id for hit in alone] == [hit.passage_id for hit in ranking]
        for ours, theirs in zip(alone, ranking, strict=True):
            assert ours.score == pytest.approx(theirs.score, rel=1e-4, abs=1e-4)


def test_k_beyond_the_corpus_gives_fewer_hits_and_k_below_one_is_refused(retriever: Retriever):
    assert all(len(ranking) <= 8 for ranking in retriever.retrieve(QUESTIONS, k=1_000))
    with pytest.raises(InputError, match="k must be at least 1"):
        retriever.retrieve(QUESTIONS, k=0)


def test_no_question_gives_no_ranking(retriever: Retriever):
    assert retriever.retrieve([], k=3) == []


def test_an_empty_question_is_refused(retriever: Retriever):
    with pytest.raises(InputError):
        retriever.retrieve([Question("z", " ")], k=3)


@pytest.mark.parametrize("make", [tantivy, lucene, dense])
def test_ties_at_the_cut_are_settled_by_id(tmp_path: Path, make: Callable[[Path], Retriever]):
    engine = make(tmp_path)
    [ranking] = engine.retrieve([Question("c", "same words stand here.")], k=2)
    assert [hit.passage_id for hit in ranking] == ["p4", "p5"]


def test_bm25_finds_stems_and_ignores_accents_and_case(tmp_path: Path):
    build_tantivy(tmp_path / "i", [Passage("x", "", "Röntgen discovered rays"), PASSAGES[2]])
    engine = TantivyRetriever(tmp_path / "i")
    [ranking] = engine.retrieve([Question("q", "RONTGEN discovering")], k=2)
    assert [hit.passage_id for hit in ranking] == ["x"]
    assert engine.retrieve([Question("q", "zebra")], k=2) == [()]


def test_an_interrupted_encoding_continues_with_the_missing_shards(tmp_path: Path):
    class Counting(HashEncoder):
        calls = 0

        def encode_passages(self, passages: list[Passage]) -> Vectors:
            Counting.calls += len(passages)
            if Counting.calls > 6:
                raise KeyboardInterrupt
            return super().encode_passages(passages)

    with pytest.raises(KeyboardInterrupt):
        encode_corpus(tmp_path / "v", PASSAGES, Counting(), n_passages=8, shard_size=3)
    Counting.calls = -100
    encode_corpus(tmp_path / "v", PASSAGES, Counting(), n_passages=8, shard_size=3)
    assert Counting.calls == -98  # two passages of the last shard
    encode_corpus(tmp_path / "w", PASSAGES, HashEncoder(), n_passages=8, shard_size=3)
    for ours, theirs in zip(
        sorted((tmp_path / "v").iterdir()), sorted((tmp_path / "w").iterdir()), strict=True
    ):
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("engine", ["bm25", "v"])
def test_a_damaged_index_is_refused_with_what_to_do(tmp_path: Path, engine: str):
    tantivy(tmp_path) if engine == "bm25" else dense(tmp_path)
    victim = next(
        p for p in sorted((tmp_path / engine).rglob("*")) if p.suffix in (".npy", ".json")
    )
    victim.write_bytes(victim.read_bytes()[:20])
    with pytest.raises(ArtifactDamagedError, match="index build"):
        TantivyRetriever(tmp_path / engine) if engine == "bm25" else DenseRetriever(
            HashEncoder(), tmp_path / engine
        )
