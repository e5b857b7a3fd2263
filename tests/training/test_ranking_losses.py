"""The losses of the reranker, and sentence-transformers' models around ours."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import BertForSequenceClassification, BertModel

from rag_frozen.retrieval.sentence_form import SentenceForm, pooling
from rag_frozen.training.ranking_losses import (
    labels_of,
    make_ranking_loss,
    ralm_loss,
    residual_loss,
)
from rag_frozen.training.sentence_trainer import (
    PairModule,
    TextModule,
    cross_encoder_of,
    sentence_transformer_of,
    tokenized,
)
from tests.tiny import WORDS, save_bert, wordpiece

numbers = st.floats(-20, 0, width=32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory):
    folder = save_bert(tmp_path_factory.mktemp("bert"), kind="BertForSequenceClassification")
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    return cross_encoder_of(PairModule(model, wordpiece(), max_length=32, bf16=False))


def one_by_one(encoder, questions: list[str], lists: list[list[str]]) -> list[list[float]]:
    with torch.inference_mode():
        return [
            [float(encoder(encoder.preprocess([(q, text)]))["scores"]) for text in texts]
            for q, texts in zip(questions, lists, strict=True)
        ]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
def test_the_ralm_loss_is_minus_the_log_of_the_expected_likelihood(pairs):
    scores = torch.tensor([[score for score, _ in pairs]], dtype=torch.float64)
    likely = torch.tensor([[like for _, like in pairs]], dtype=torch.float64)
    expected = sum(
        float(rank) * math.exp(like)
        for rank, (_, like) in zip(scores.softmax(dim=1)[0], pairs, strict=True)
    )
    loss = float(ralm_loss(scores, likely, torch.ones_like(scores, dtype=torch.bool)))
    assert loss == pytest.approx(-math.log(expected), abs=1e-6)


def test_the_ralm_loss_pulls_towards_the_passage_after_which_the_answer_is_likely():
    scores = torch.zeros(2, 3, requires_grad=True)
    likely = torch.tensor([[-9.0, -0.5, -8.0], [-0.1, -7.0, 0.0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    ralm_loss(scores, likely, real).backward()
    assert scores.grad.argmin(dim=1).tolist() == [1, 0]
    assert scores.grad[1, 2] == 0


def test_what_the_retrieval_ranks_right_by_far_teaches_nothing():
    scores = torch.zeros(2, 3, requires_grad=True)
    offsets = torch.tensor([[20.0, 0.0, 0.0], [0.0, 3.0, 9.0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    residual_loss(scores, offsets, real).backward()
    assert scores.grad[0].abs().max() < 1e-6
    assert scores.grad[1, 0] < -0.4 < 0.4 < scores.grad[1, 1]
    assert scores.grad[1, 2] == 0


@pytest.mark.parametrize("name", ["bce", "softmax", "residual", "ralm"])
def test_a_loss_is_that_of_scores_made_one_by_one(encoder, name):
    questions = ["who wrote hamlet", "what is long"]
    lists = [["shakespeare", "the king of france in the war", "radium"], ["the nile", "paris"]]
    labels = [labels_of(name, len(texts)) for texts in lists]
    likely = [[-0.5, -3.0, -4.0], [-1.0, -2.0]]
    scores = [torch.tensor(row) for row in one_by_one(encoder, questions, lists)]
    loss = make_ranking_loss(name, encoder)
    if name == "bce":
        flat = [q for q, texts in zip(questions, lists, strict=True) for _ in texts]
        texts = [text for row in lists for text in row]
        marks = torch.tensor([label for row in labels for label in row])
        got = loss([flat, texts], marks)
        wanted = functional.binary_cross_entropy_with_logits(torch.cat(scores), marks)
    elif name == "softmax":
        got = loss([questions, lists], [torch.tensor(row) for row in labels])
        wanted = -torch.stack([row.log_softmax(dim=0)[0] for row in scores]).mean()
    elif name == "residual":
        got = loss([questions, lists], [torch.tensor(row) for row in likely])
        both = zip(scores, likely, strict=True)
        each = [(row + torch.tensor(like)).log_softmax(dim=0)[0] for row, like in both]
        wanted = -torch.stack(each).mean()
    else:
        got = loss([questions, lists], [torch.tensor(row) for row in likely])
        both = zip(scores, likely, strict=True)
        each = [
            (row.log_softmax(dim=0) + torch.tensor(like)).logsumexp(dim=0) for row, like in both
        ]
        wanted = -torch.stack(each).mean()
    assert float(got.detach()) == pytest.approx(float(wanted), abs=1e-5)
    assert got.requires_grad


def test_texts_of_many_lengths_are_scored_as_one_by_one(encoder):
    texts = [" ".join(WORDS[:n]) for n in (1, 30, 2, 9, 40, 3, 17) for _ in range(6)]
    with torch.inference_mode():
        together = encoder(encoder.preprocess([("who", text) for text in texts]))["scores"]
    alone = one_by_one(encoder, ["who"], [texts])[0]
    assert together[:, 0].tolist() == pytest.approx(alone, abs=1e-5)


def test_a_sentence_encoder_gives_vectors_of_length_one_in_the_order_of_its_texts(tmp_path: Path):
    model = BertModel.from_pretrained(save_bert(tmp_path)).eval()
    pool = pooling(SentenceForm("mean", True, 64))
    module = TextModule(model, wordpiece(), pool, max_length=64, bf16=False)
    texts = [" ".join(WORDS[:n]) for n in (20, 1, 7, 33, 2) for _ in range(7)]
    made = sentence_transformer_of(module)
    with torch.inference_mode():
        vectors = made(module.preprocess(texts))["sentence_embedding"]
        alone = torch.cat([made(module.preprocess([t]))["sentence_embedding"] for t in texts])
    assert torch.allclose(vectors, alone, atol=1e-5)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(len(texts)), atol=1e-5)


def test_texts_are_cut_to_their_limit():
    long = [" ".join(WORDS), "who"]
    features = tokenized(wordpiece(), long, max_length=12)
    assert features["input_ids"].shape == (2, 12)
    assert features["attention_mask"].sum(dim=1).tolist() == [12, 3]
