"""What every reranker keeps, and what only cross-encoders do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rag_frozen.absent_stages import KeepOrder
from rag_frozen.errors import ArtifactDamagedError, ModelError
from rag_frozen.models.source import ModelFolder
from rag_frozen.protocols import Reranker
from rag_frozen.rerank.cross_encoder import CrossEncoderReranker
from rag_frozen.rerank.interpolation import interpolate
from rag_frozen.rerank.pocket import load_pocket_classifier, save_pocket_classifier
from rag_frozen.types import Hit, Passage, Question
from tests.tiny import save_bert

TEXTS = ("who wrote hamlet", "the moon " * 200, "x")
QUESTIONS = [Question(str(number), text) for number, text in enumerate(TEXTS)]
CANDIDATES = [
    [Passage("a", "Hamlet", "a play of shakespeare"), Passage("b", "", "the river nile is long")],
    [Passage(f"p{n}", "moon", "red star " * (n + 1)) for n in range(9)],
    [],
]


def cross_encoder(folder: Path) -> CrossEncoderReranker:
    model = save_bert(folder, kind="BertForSequenceClassification")
    return CrossEncoderReranker(
        ModelFolder("tiny", model), max_length=64, dtype="float32", token_budget=256
    )


@pytest.fixture(params=[cross_encoder, lambda folder: KeepOrder()], ids=["cross-encoder", "none"])
def reranker(request: pytest.FixtureRequest, tmp_path: Path) -> Reranker:
    make: Callable[[Path], Reranker] = request.param
    return make(tmp_path)


def test_every_candidate_comes_back_once_best_first(reranker: Reranker):
    assert isinstance(reranker, Reranker)
    for passages, ranking in zip(CANDIDATES, reranker.rerank(QUESTIONS, CANDIDATES), strict=True):
        assert sorted(hit.passage_id for hit in ranking) == sorted(p.id for p in passages)
        assert list(ranking) == sorted(ranking, key=lambda hit: (-hit.score, hit.passage_id))


def test_a_batch_gives_what_one_by_one_gives(reranker: Reranker):
    together = reranker.rerank(QUESTIONS, CANDIDATES)
    for question, passages, ranking in zip(QUESTIONS, CANDIDATES, together, strict=True):
        [alone] = reranker.rerank([question], [passages])
        assert [h.passage_id for h in alone] == [h.passage_id for h in ranking]
        for ours, theirs in zip(alone, ranking, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_any_reranker_can_be_joined_with_the_retrieval(reranker: Reranker):
    for passages, ranking in zip(CANDIDATES, reranker.rerank(QUESTIONS, CANDIDATES), strict=True):
        first_stage = tuple(Hit(p.id, 1 / rank) for rank, p in enumerate(passages, 2))
        joined = interpolate(ranking, first_stage, weight=3.0)
        assert sorted(hit.passage_id for hit in joined) == sorted(p.id for p in passages)
        assert list(joined) == sorted(joined, key=lambda hit: (-hit.score, hit.passage_id))
        alone = {hit.passage_id: hit.score for hit in ranking}
        for hit in joined:
            [first] = [one.score for one in first_stage if one.passage_id == hit.passage_id]
            assert hit.score == pytest.approx(alone[hit.passage_id] + 3 * first)
        heavy = interpolate(ranking, first_stage, weight=1e9)
        assert [hit.passage_id for hit in heavy] == [p.id for p in passages]


def test_scores_are_those_of_the_classifier_itself(tmp_path: Path):
    from tokenizers import Tokenizer
    from transformers import BertForSequenceClassification

    reranker = cross_encoder(tmp_path)
    model = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    encoding = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(
        "who wrote hamlet", "Hamlet. a play of shakespeare"
    )
    with torch.inference_mode():
        wanted = model(
            input_ids=torch.tensor([encoding.ids]),
            token_type_ids=torch.tensor([encoding.type_ids]),
        ).logits
    [ranking] = reranker.rerank(QUESTIONS[:1], [CANDIDATES[0][:1]])
    assert ranking[0].score == pytest.approx(float(wanted), abs=1e-5)


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path):
    from transformers import BertConfig, BertForSequenceClassification

    save_bert(tmp_path)
    config = BertConfig.from_pretrained(tmp_path, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="3 labels"):
        CrossEncoderReranker(ModelFolder("tiny", tmp_path))


def test_the_pocket_form_keeps_scores_but_for_rounding(tmp_path: Path):
    from transformers import BertForSequenceClassification

    encoder = save_bert(tmp_path / "encoder", kind="BertForSequenceClassification")
    model = BertForSequenceClassification.from_pretrained(encoder).eval()
    save_pocket_classifier(model, tmp_path / "pocket")
    loaded = load_pocket_classifier(tmp_path / "pocket", encoder)
    ids = torch.randint(5, 60, (4, 9))
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, loaded(ids).logits, atol=0.01)
    weights = tmp_path / "pocket" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArtifactDamagedError, match="cannot be loaded"):
        load_pocket_classifier(tmp_path / "pocket", encoder)
