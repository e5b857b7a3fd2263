"""Every dense kind keeps what every retriever keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from rag_frozen.indexing.dense import build_search, open_search
from rag_frozen.recipes.index import DenseSettings
from rag_frozen.retrieval.dense_search import DenseRetriever
from rag_frozen.retrieval.dense_shards import encode_corpus
from rag_frozen.types import Question
from tests.contracts import test_retriever as suite
from tests.contracts.test_retriever import PASSAGES, HashEncoder

# The suite's own tests, over the fixture of this module.
test_protocol = suite.test_a_retriever_follows_the_protocol
test_order = suite.test_rankings_are_best_first_with_ties_by_id_and_no_double
test_smaller_k = suite.test_a_smaller_k_gives_the_beginning_of_a_larger
test_batches = suite.test_a_batch_gives_what_one_by_one_gives
test_k = suite.test_k_beyond_the_corpus_gives_fewer_hits_and_k_below_one_is_refused
test_no_question = suite.test_no_question_gives_no_ranking
test_empty_question = suite.test_an_empty_question_is_refused

KINDS = ("flat", "scalar-fp16", "scalar-int8", "ivf-pq-fastscan", "hnsw", "exact-torch")


def build(folder: Path, kind: str, vectors: str) -> DenseRetriever:
    encoder = HashEncoder()
    values = {"kind": kind, "vectors": vectors, "encoder": {"kind": "sentence-transformers"}}
    values["encoder"] = {"kind": "sentence-transformers", "model": "hash"}
    settings = TypeAdapter(DenseSettings).validate_python(values)
    encode_corpus(folder, PASSAGES, encoder, n_passages=8, shard_size=3, dtype=vectors)  # type: ignore[arg-type]
    texts = [passage.text for passage in PASSAGES]
    measures = build_search(settings, folder, queries=lambda _: encoder.encode_questions(texts))
    search = open_search(settings, folder, measures, device="cpu")
    return DenseRetriever(encoder, folder, search=search)


@pytest.fixture(params=[(kind, v) for kind in KINDS for v in ("float16", "bfloat16")], ids="-".join)
def retriever(request: pytest.FixtureRequest, tmp_path: Path) -> DenseRetriever:
    return build(tmp_path / "v", *request.param)


def test_all_passages_are_found_and_scores_are_inner_products(retriever: DenseRetriever):
    encoder = HashEncoder()
    [ranking] = retriever.retrieve([Question("q", "the moon of africa")], k=8)
    query = encoder.encode_questions(["the moon of africa"])[0]
    truth = dict(
        zip([p.id for p in PASSAGES], encoder.encode_passages(list(PASSAGES)) @ query, strict=True)
    )
    assert {hit.passage_id for hit in ranking} == set(truth)
    for hit in ranking:
        assert hit.score == pytest.approx(truth[hit.passage_id], abs=0.01)  # bf16 has 8 bits


def test_ties_at_the_cut_are_settled_by_id(retriever: DenseRetriever):
    [ranking] = retriever.retrieve([Question("c", "same words stand here.")], k=2)
    assert [hit.passage_id for hit in ranking] == ["p4", "p5"]
    assert np.ptp([hit.score for hit in ranking]) == 0
