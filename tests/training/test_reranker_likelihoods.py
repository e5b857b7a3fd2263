"""The frozen reader's judgement: computed once, kept, and learned from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rag_frozen.packing.template import PromptTemplate
from rag_frozen.reader.decoding import Decoding
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.training import reranker_job as job_module
from rag_frozen.training.job import run_job
from rag_frozen.training.ranking_rows import RankingRow, RankingSource
from rag_frozen.training.reranker_job import reranker_job
from rag_frozen.training.reranker_likelihoods import judge_sources, judged_rows
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.types import Passage, Question
from tests.tiny import save_bert, wordpiece
from tests.training.rankings import only_mined, write_world

TEMPLATE = PromptTemplate(
    with_passages="question: {question}\n{passages}",
    passage="passage: {title}. {text}\n",
    closed_book="question: {question}\n",
)


def reader(*, seed: int = 0) -> PrefixLMReader:
    torch.manual_seed(seed)
    tokenizer = wordpiece()
    sizes = PrefixLMConfig(tokenizer.get_vocab_size(), 32, 2, 4, 48, 96)
    return PrefixLMReader(PrefixLM(sizes), tokenizer, name="tiny", decoding=Decoding())


def row(number: int, *, negatives: int = 2, words: int = 4) -> RankingRow:
    texts = ["hamlet is a play of shakespeare", *("the war of the king " * words,) * negatives]
    passages = [Passage(str(n), f"title {number}", text) for n, text in enumerate(texts)]
    return RankingRow(f"who wrote {number}", ("shakespeare",), (passages[0],), tuple(passages[1:]))


def test_a_likelihood_is_that_of_the_answer_after_the_passage_alone(tmp_path: Path):
    made = reader()
    rows = judged_rows([row(1), row(2)], made, TEMPLATE, depth=5, cache=tmp_path)
    for one in rows:
        assert len(one.log_likelihoods) == 3
        for passage, number in zip(one.candidates, one.log_likelihoods, strict=True):
            prompt = TEMPLATE.write(Question("", one.question), [passage])
            alone = made.answer_logprobs(
                made.encode_prompts([prompt]), made.encode_answers(["shakespeare"])
            )
            assert number == pytest.approx(float(alone.sum()), abs=1e-3)


def test_a_passage_longer_than_the_reader_s_window_is_cut(tmp_path: Path):
    [one] = judged_rows([row(1, words=60)], reader(), TEMPLATE, depth=2, cache=tmp_path)
    assert len(one.log_likelihoods) == 2
    assert all(math.isfinite(number) and number < 0 for number in one.log_likelihoods)


def test_a_killed_computation_goes_on_and_another_reader_is_asked_anew(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("rag_frozen.training.reranker_likelihoods._PART", 2)
    sources = [RankingSource(1.0, tuple(row(n) for n in range(5)))]
    asked: list[int] = []

    def told(done: int, total: int) -> None:
        asked.append(done)
        if done == 4 and len(asked) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_sources(sources, reader(), TEMPLATE, depth=3, cache=tmp_path, report=told)
    [first] = judge_sources(sources, reader(), TEMPLATE, depth=3, cache=tmp_path, report=told)
    assert asked == [2, 4, 5]
    [again] = judge_sources(sources, reader(), TEMPLATE, depth=3, cache=tmp_path, report=told)
    assert asked == [2, 4, 5]
    assert first == again
    [other] = judge_sources(sources, reader(seed=1), TEMPLATE, depth=3, cache=tmp_path, report=told)
    assert asked == [2, 4, 5, 2, 4, 5]
    assert first.rows[0].log_likelihoods != other.rows[0].log_likelihoods


def test_a_reranker_learns_from_the_reader_s_judgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = write_world(tmp_path)
    minilm = save_bert(world / "encoder")
    monkeypatch.setattr(job_module, "make_reader", lambda settings, device=None: reader())
    fields: dict[str, Any] = {
        "kind": "pocket-reranker", "name": "tiny", "seed": 5, "encoder": str(minilm),
        "data": only_mined(world), "loss": "ralm", "negatives": 3, "max_length": 48,
        "likelihood": {"template": TEMPLATE.model_dump(), "reader": {
            "kind": "prefix-lm", "model": str(minilm)}},
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 2}, "examples": 24, "batch_size": 4,
        "validate_every": 6, "checkpoint_every": 5,
    }  # fmt: skip
    recipe = RerankerTraining.model_validate(fields)
    done = run_job(reranker_job(recipe), tmp_path / "root", lambda progress: None)
    again = run_job(reranker_job(recipe), tmp_path / "other", lambda progress: None)
    weights = [one.folder / "model.safetensors" for one in (done, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert list((done.folder.parent / "likelihoods").glob("*.safetensors"))
    assert done.metrics["reachable"] == 100
