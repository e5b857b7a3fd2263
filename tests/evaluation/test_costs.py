"""What a run cost: the work of each part, and what the trained parts add to the frozen reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rag_frozen.evaluation.costs import PartCost, TokensRead, describe_costs, trained_share
from rag_frozen.evaluation.flops import generation_flops, reading_flops, text_model
from rag_frozen.evaluation.prompt_costs import generator_flops, prompt_flops, prompts_in_use
from rag_frozen.evaluation.report import render_report
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.models.source import ModelFolder
from rag_frozen.normalization import normalize_answer
from rag_frozen.prompting.bank import PromptBank
from rag_frozen.prompting.ensemble import EnsembleReader
from rag_frozen.prompting.generator import CrossAttentionGenerator, GeneratorConfig
from rag_frozen.prompting.heads import DependentHead, StaticHead
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.soft_prompt import SoftPrompt
from rag_frozen.reader.each import EachReader
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.rerank.cross_encoder import CrossEncoderReranker
from rag_frozen.types import Context, Generation
from tests.evaluation import data
from tests.test_pipeline import Echo, pipeline, reading_each
from tests.tiny import save_bert

CONFIG = GeneratorConfig(encoder_width=32, reader_width=32, n_queries=3, width=8, inner=12)


class Frozen(Echo):
    """A reader with real weights, which it does not use to answer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = PrefixLM(PrefixLMConfig(90, 32, 3, 4, 48, 64)).eval()
        self.prompt_generator = PromptBank(32)

    def parameter_counts(self) -> tuple[int, int]:
        return sum(weight.numel() for weight in self.model.parameters()), 1_000


def costs(reader: object, reranker: object = None) -> tuple[dict, Sequence[ScoredAnswer]]:
    made = (
        pipeline(reader=reader) if reranker is None else pipeline(reader=reader, reranker=reranker)
    )
    before = TokensRead.so_far(made)
    result = evaluate(made, data())
    read = TokensRead.so_far(made) - before
    found = describe_costs(made, result.scored, result.seconds, read=read)
    assert render_report(result, costs=found)
    return found, result.scored


def part(found: dict, name: str) -> dict:
    return next(one for one in found["parameters"] if one["part"] == name)


def test_the_readers_work_is_the_mean_of_its_answers():
    reader = Frozen()
    found, rows = costs(reader)
    sizes = text_model(reader.model)
    assert sizes is not None
    work = [generation_flops(sizes, row.prompt_tokens, row.answer_tokens) for row in rows]
    assert part(found, "reader")["flops_per_question"] == pytest.approx(sum(work) / len(work))
    assert part(found, "reader")["trained"] == 0
    assert found["trained_share"] == {"parameters": 0.0, "flops": 0.0, "flops_of": {}}
    assert found["peak_memory_mib"] > 1
    assert {"cpu", "cores", "memory_gib", "device"} == set(found["machine"])


def test_a_reranker_adds_its_weights_and_its_work(tmp_path: Path):
    folder = save_bert(tmp_path, kind="BertForSequenceClassification")
    reranker = CrossEncoderReranker(ModelFolder("tiny", folder))
    reader = Frozen()
    found, rows = costs(reader, reranker)
    sizes = text_model(reranker.model)
    assert sizes is not None
    pairs = sum(row.reranked for row in rows) / len(rows)
    tokens = reranker.tokens_read / len(rows)
    work = reading_flops(sizes.reader, tokens / pairs, texts=pairs)
    assert part(found, "reranker")["flops_per_question"] == pytest.approx(work)
    share = found["trained_share"]
    assert share["flops"] == pytest.approx(
        100 * work / part(found, "reader")["flops_per_question"], rel=1e-4
    )
    assert share["parameters"] == pytest.approx(
        100 * part(found, "reranker")["trained"] / part(found, "reader")["frozen"], rel=1e-4
    )


def test_a_static_prompt_adds_what_its_vectors_take_to_read():
    reader = Frozen()
    reader.prompt_generator.add("p", StaticHead(SoftPrompt(torch.zeros(5, 32))), default=True)
    found, rows = costs(reader)
    plain, _ = costs(Frozen())
    sizes = text_model(reader.model)
    assert sizes is not None
    longer = [
        generation_flops(sizes, row.prompt_tokens + 5, row.answer_tokens)
        - generation_flops(sizes, row.prompt_tokens, row.answer_tokens)
        for row in rows
    ]
    added = part(found, "soft prompt")
    assert added["flops_per_question"] == pytest.approx(sum(longer) / len(longer))
    assert (added["trained"], added["frozen"]) == (5 * 32, 0)
    assert part(found, "reader") == part(plain, "reader")


def test_an_ensemble_reads_once_for_each_member():
    reader = Frozen()
    for name in ("a", "b"):
        reader.prompt_generator.add(name, StaticHead(SoftPrompt(torch.zeros(2, 32))))
    ensemble = EnsembleReader(reader, ["a", "b"], normalize=normalize_answer)
    found, _ = costs(ensemble)
    plain, _ = costs(Frozen())
    assert len(prompts_in_use(ensemble)) == 2
    assert part(found, "reader")["flops_per_question"] == pytest.approx(
        2 * part(plain, "reader")["flops_per_question"]
    )


def test_a_generators_work_is_what_torch_counts():
    torch.manual_seed(0)
    module = CrossAttentionGenerator(CONFIG, reader_norm=1.0)
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(1, 17, 32), torch.ones(1, 17, dtype=torch.bool))
    assert generator_flops(module, 17) == counter.get_total_flops()


def test_an_input_dependent_prompt_adds_its_encoder_unless_that_is_shared(tmp_path: Path):
    folder = save_bert(tmp_path)
    encoder = InputEncoder(ModelFolder("tiny", folder), device="cpu", dtype=torch.float32)
    head = DependentHead(
        CrossAttentionGenerator(CONFIG, reader_norm=1.0), encoder, reads="question"
    )
    _, rows = costs(Frozen())
    shared = prompt_flops(head, rows)
    assert shared.tokens == 0
    head.generate([Context(data().examples[0].question, "which city", 2)])
    own = prompt_flops(head, rows)
    sizes = text_model(encoder.model)
    assert sizes is not None
    lengths = [len(encoder.tokens(row.question)) for row in rows]
    read = sum(reading_flops(sizes.reader, n) for n in lengths) / len(rows)
    assert own.flops - shared.flops == pytest.approx(read)
    assert own.tokens == pytest.approx(sum(lengths) / len(rows))
    assert own.trained == sum(weight.numel() for weight in head.module.parameters())


def test_without_a_reader_nothing_is_shared_out():
    assert trained_share([PartCost("reranker", 5, 5, 1.0, 1.0, True)]) is None


def test_a_withheld_generation_costs_nothing():
    class Silent(Frozen):
        def generate(self, contexts: Sequence[Context]) -> list[Generation]:
            return [replace(one, n_tokens=0) for one in super().generate(contexts)]

    found, _ = costs(Silent())
    assert part(found, "reader")["flops_per_question"] == 0.0
    assert found["trained_share"] is None


def test_passages_read_one_by_one_are_as_much_work_as_their_prompts():
    reader = Frozen()
    each = EachReader(reader, normalize=normalize_answer)
    made = reading_each(reader=each)
    before = TokensRead.so_far(made)
    result = evaluate(made, data())
    read = TokensRead.so_far(made) - before
    found = describe_costs(made, result.scored, result.seconds, read=read)
    sizes = text_model(reader.model)
    assert sizes is not None
    assert {row.readings for row in result.scored} == {2}
    assert {row.answer_tokens for row in result.scored} == {4}
    work = [2 * generation_flops(sizes, row.prompt_tokens / 2, 2) for row in result.scored]
    assert part(found, "reader")["flops_per_question"] == pytest.approx(sum(work) / len(work))
    assert part(found, "reader")["frozen"] == reader.parameter_counts()[0]
    assert render_report(result, costs=found)
