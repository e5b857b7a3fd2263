"""What every frozen reader keeps: one suite over tiny real models, saved and loaded for real."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from rag_frozen.errors import FrozenWeightsChangedError
from rag_frozen.models.source import ModelFolder
from rag_frozen.normalization import normalize_answer
from rag_frozen.prompting.bank import PromptBank
from rag_frozen.protocols import Reader
from rag_frozen.reader.decoding import Decoding
from rag_frozen.reader.each import EachReader
from rag_frozen.reader.prefix_lm import PrefixLMConfig
from rag_frozen.reader.prefix_lm_weights import begin_from_minilm, save_trained
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.reader.transformers_reader import TransformersReader
from rag_frozen.types import Context, Kept, Question, Quotable
from tests.tiny import save_bart, save_bert, save_gpt2, save_llama, save_t5, wordpiece

Make = Callable[..., PrefixLMReader | TransformersReader]
PROMPTS = (
    "question: who wrote hamlet",
    "question: when was radium discovered in paris passage: curie discovered radium in 1898 .",
    "the river nile is long",
    "question: who was king of france passage: the king of france passage: the moon is red",
)


@dataclass(frozen=True)
class FixedPrompt:
    """A soft prompt that is the same for every context."""

    vectors: torch.Tensor

    @property
    def length(self) -> int:
        return self.vectors.shape[0]

    def generate(self, contexts: Sequence[Context]) -> torch.Tensor:
        return self.vectors.expand(len(contexts), -1, -1)


def prefix_reader(folder: Path, **options: object) -> PrefixLMReader:
    encoder = save_bert(folder / "encoder")
    config = PrefixLMConfig(wordpiece().get_vocab_size(), 32, 2, 4, 48, 256)
    save_trained(begin_from_minilm(encoder, config), folder / "reader", int8=False)
    return PrefixLMReader.from_folder(folder / "reader", encoder, **options)  # type: ignore[arg-type]


def llama_reader(folder: Path, **options: object) -> TransformersReader:
    """Rotary positions."""
    model = ModelFolder("tiny-llama", save_llama(folder / "llama"))
    return TransformersReader(model, kind="causal", **options)  # type: ignore[arg-type]


def gpt2_reader(folder: Path, **options: object) -> TransformersReader:
    """Learned absolute positions: padding on the left must not shift them."""
    return TransformersReader(save_gpt2(folder / "gpt2"), kind="causal", **options)  # type: ignore[arg-type]


def t5_reader(folder: Path, **options: object) -> TransformersReader:
    """Relative positions."""
    model = ModelFolder("tiny-t5", save_t5(folder / "t5"))
    return TransformersReader(model, kind="seq2seq", window=256, **options)  # type: ignore[arg-type]


def bart_reader(folder: Path, **options: object) -> TransformersReader:
    """Learned absolute positions, scaled embeddings, a forced first token."""
    return TransformersReader(save_bart(folder / "bart"), kind="seq2seq", **options)  # type: ignore[arg-type]


READERS = [prefix_reader, llama_reader, gpt2_reader, t5_reader, bart_reader]


@pytest.fixture(params=READERS, ids=lambda reader: reader.__name__)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def made(kind: str = "greedy", **options: object) -> PrefixLMReader | TransformersReader:
        least = int(options.pop("min_new_tokens", 0))  # type: ignore[call-overload]
        decoding = Decoding(kind, 6, n_beams=3, min_new_tokens=least)  # type: ignore[arg-type]
        return request.param(tmp_path, decoding=decoding, **options)  # type: ignore[no-any-return]

    return made


def contexts(prompts: Sequence[str] = PROMPTS) -> list[Context]:
    return [
        Context(Question(str(n), "who"), prompt, 0, (Kept("p", 1),))
        for n, prompt in enumerate(prompts)
    ]


def test_a_reader_follows_the_protocol(make: Make):
    assert isinstance(make(), Reader)


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_a_batch_gives_what_one_by_one_gives(make: Make, kind: str):
    reader = make(kind)
    together = reader.generate(contexts())
    alone = [reader.generate([context])[0] for context in contexts()]
    assert [g.text for g in together] == [g.text for g in alone]
    assert [g.stop for g in together] == [g.stop for g in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
    assert len({g.text for g in together}) > 1  # the prompts do matter


def test_generations_are_log_probabilities_with_a_reason_to_stop(make: Make):
    for generation in make().generate(contexts()):
        assert generation.logprob < 0
        assert 1 <= generation.n_tokens <= 7
        assert generation.stop in {"end", "newline", "length"}
        assert "\n" not in generation.text


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_an_answer_may_be_made_longer_and_its_probability_stays_the_models(make: Make, kind: str):
    reader = make(kind, min_new_tokens=6)
    [[end]] = reader.encode_answers([""])
    written = reader.generate(contexts())
    assert all(g.n_tokens == 6 or g.stop == "newline" for g in written)
    assert {g.stop for g in written} <= {"length", "newline"}
    if kind == "greedy":
        plain = make(kind)
        for context, generation in zip(contexts(), written, strict=True):
            if generation.stop != "length" or reader.name == "bart":
                continue  # its generation settings force the first token
            answer = tokens_of(plain, context, ends=False)
            [prompt] = plain.encode_prompts([context.prompt])
            assert end not in answer
            total = float(plain.answer_logprobs([prompt], [answer]).sum())
            assert generation.logprob == pytest.approx(total, abs=1e-3)


def test_beams_find_answers_at_least_as_likely_as_greedy_ones(make: Make):
    greedy, beam = make().generate(contexts()), make("beam").generate(contexts())
    likelier = [b.logprob >= g.logprob - 1e-4 for g, b in zip(greedy, beam, strict=True)]
    assert sum(likelier) >= len(likelier) - 1  # a beam may lose a greedy path, rarely


def test_sampling_is_reproducible_by_seed(make: Make):
    one = make("sample").generate(contexts())
    two = make("sample").generate(contexts())
    assert one == two
    reader = make("sample")
    before = torch.random.get_rng_state()
    reader.generate(contexts())
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_empty_batch_gives_nothing(make: Make):
    assert make().generate([]) == []


def test_counting_includes_special_tokens_and_grows_with_the_text(make: Make):
    counts = make().count_tokens(["who wrote", "who wrote hamlet"])
    assert counts[1] == counts[0] + 1


def test_weights_have_no_gradients_and_a_change_is_noticed(make: Make):
    reader = make()
    assert not any(p.requires_grad for p in reader.model.parameters())
    reader.generate(contexts())
    reader.verify_frozen()
    with torch.no_grad():
        next(iter(reader.model.parameters()))[0].add_(1e-3)
    with pytest.raises(FrozenWeightsChangedError, match="changed"):
        reader.verify_frozen()


def test_a_soft_prompt_of_real_embeddings_acts_as_those_tokens(make: Make):
    plain = make()
    table = plain.model.get_input_embeddings() if isinstance(plain, TransformersReader) else None
    table = table or plain.model.word_embeddings
    if isinstance(plain, PrefixLMReader):
        # Its prompts begin with [CLS], so no text spells this; tests/reader/test_decoding.py
        # compares tokens. Here the prompt must reach the model.
        with_vectors = make(prompt_generator=FixedPrompt(table.weight[[7, 9]].detach()))
        changed = with_vectors.generate(contexts())
        assert [g.logprob for g in changed] != [g.logprob for g in plain.generate(contexts())]
        return
    [ids] = plain._tokens.encode(["question: who"])
    conditioned = make(prompt_generator=FixedPrompt(table(torch.tensor(ids)).detach()))
    real = plain.generate(contexts([f"question: who {prompt}" for prompt in PROMPTS]))
    soft = conditioned.generate(contexts())
    assert [g.text for g in soft] == [g.text for g in real]
    for ours, theirs in zip(soft, real, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def test_samples_of_one_question_differ_between_batches(make: Make):
    reader = make("sample", token_budget=1)
    same = contexts([PROMPTS[1]] * 12)
    assert len({generation.text for generation in reader.generate(same)}) > 1


def test_given_answers_are_as_likely_as_when_they_were_written(make: Make):
    reader = make()
    written = reader.generate(contexts())
    ended = [(c, g) for c, g in zip(contexts(), written, strict=True) if g.stop != "newline"]
    prompts = reader.encode_prompts([context.prompt for context, _ in ended])
    answers = [tokens_of(reader, context) for context, _ in ended]
    logprobs = reader.answer_logprobs(prompts, answers).sum(dim=1)
    wanted = [generation.logprob for _, generation in ended]
    assert logprobs.tolist() == pytest.approx(wanted, abs=1e-3)


def test_scoring_a_batch_of_answers_gives_what_one_by_one_gives(make: Make):
    reader = make()
    prompts = reader.encode_prompts(PROMPTS)
    answers = reader.encode_answers(["hamlet", "the king of france", "1898", "red"])
    together = reader.answer_logprobs(prompts, answers)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone = reader.answer_logprobs([prompt], [answer])[0]
        assert torch.allclose(together[row, : len(answer)], alone, atol=1e-4)
        assert not together[row, len(answer) :].any()


def test_gradients_of_an_answer_reach_the_soft_prompt_alone(make: Make):
    reader = make()
    vectors = torch.randn(2, reader.embedding_width, requires_grad=True)
    prompts = reader.encode_prompts(PROMPTS)
    answers = reader.encode_answers(["hamlet", "1898", "the nile", "red"])
    before = reader.answer_logprobs(prompts, answers).sum()
    loss = -reader.answer_logprobs(prompts, answers, vectors.expand(4, -1, -1)).sum()
    loss.backward()
    assert vectors.grad is not None
    assert float(vectors.grad.abs().max()) > 0
    assert float(loss.detach()) != pytest.approx(-float(before))
    assert all(parameter.grad is None for parameter in reader.model.parameters())
    reader.verify_frozen()


def test_prompts_of_several_tasks_in_one_batch_give_what_separate_runs_give(make: Make):
    torch.manual_seed(0)
    width = make().embedding_width
    prompts = {name: torch.randn(n, width) for name, n in (("one", 1), ("three", 3), ("five", 5))}
    bank = PromptBank(width)
    for name, vectors in prompts.items():
        bank.add(name, FixedPrompt(vectors))
    mixed = make(prompt_generator=bank)
    named = ["one", "five", None, "three"]
    together = mixed.generate(
        [replace(c, soft_prompt=n) for c, n in zip(contexts(), named, strict=True)]
    )
    for row, name in enumerate(named):
        generator = FixedPrompt(prompts[name]) if name else None
        alone = make(prompt_generator=generator).generate([contexts()[row]])[0]
        assert together[row].text == alone.text
        assert together[row].logprob == pytest.approx(alone.logprob, abs=1e-4)


def tokens_of(
    reader: PrefixLMReader | TransformersReader, context: Context, *, ends: bool = True
) -> list[int]:
    """The tokens that the reader writes: greedily, one after the other, by scoring each; without
    ``ends`` the end token is never one of them."""
    [prompt] = reader.encode_prompts([context.prompt])
    [[end]] = reader.encode_answers([""])
    written: list[int] = []
    size = len(reader.embedding_table)
    while len(written) < 6 and (not written or written[-1] != end):
        rows = [[*written, token] for token in range(size)]
        if reader.name != "bart" or written:
            scores = reader.answer_logprobs([prompt] * size, rows)[:, len(written)].detach()
            scores[end] = scores[end] if ends else -torch.inf
            written.append(int(scores.argmax()))
        else:
            written.append(4)  # its generation settings force the first token
    return written


def one_by_one(prompts: Sequence[str], *, question: str = "0") -> Context:
    """The prompts as the passages of one question, each counting the same."""
    asked = Question(question, "who")
    alone = tuple(
        Context(asked, prompt, 0, (Kept(f"p{n}", 1),), logprior=-math.log(len(prompts)))
        for n, prompt in enumerate(prompts)
    )
    return Context(asked, "", 0, tuple(one.kept[0] for one in alone), alone=alone)


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_reading_one_passage_alone_is_plain_reading(make: Make, kind: str):
    reader = make(kind)
    each = EachReader(reader, normalize=normalize_answer)
    for number, context in enumerate(contexts()):
        [plain] = reader.generate([context])
        [found] = each.generate([one_by_one([context.prompt], question=str(number))])
        assert replace(found, alone=()) == plain
        assert [one.generation for one in found.alone] == [plain]


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_passages_read_one_by_one_may_come_in_any_order_and_batch(make: Make, kind: str):
    each = EachReader(make(kind), normalize=normalize_answer)
    batch = [one_by_one(PROMPTS), one_by_one(PROMPTS[:2], question="1"), contexts()[3]]
    together = each.generate(batch)
    turned = [replace(one, alone=one.alone[::-1]) for one in batch]
    for ours, alone, other in zip(
        together, [each.generate([one])[0] for one in batch], each.generate(turned), strict=True
    ):
        assert ours.text == alone.text == other.text
        assert [one.passage_id for one in ours.alone] == [one.passage_id for one in alone.alone]
        assert [one.passage_id for one in ours.alone] == [one.passage_id for one in other.alone]
        assert ours.logprob == pytest.approx(alone.logprob, abs=1e-4)
        assert ours.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_quoted_answers_are_pieces_of_the_texts_in_any_batch(make: Make, kind: str):
    reader = make(kind, min_new_tokens=1)
    if reader.name == "bart":
        pytest.skip("its generation settings force a first token, which is no quotation")
    texts = ("curie discovered radium in 1898", "the king of france")
    free = contexts()
    rule = Quotable(texts, ("red",))
    asked = [replace(one, quotable=rule) for one in free[:3]] + [free[3]]
    together = reader.generate(asked)
    spans = {
        " ".join(text.split()[start:stop])
        for text in texts
        for start in range(6)
        for stop in range(start + 1, 7)
    }
    for ours in together[:3]:
        assert ours.text in {*spans, "red"} - {""}
        assert ours.logprob < 0
    assert together[3].text == reader.generate([free[3]])[0].text
    for ours, context in zip(together, asked, strict=True):
        [alone] = reader.generate([context])
        assert alone.text == ours.text
        assert alone.logprob == pytest.approx(ours.logprob, abs=1e-4)
    only = replace(free[0], quotable=Quotable((), ("radium",)))
    assert [one.text for one in reader.generate([only])] == ["radium"]


def test_passages_read_one_by_one_are_quoted_each_from_its_own(make: Make):
    reader = make(min_new_tokens=1)
    if reader.name == "bart":
        pytest.skip("its generation settings force a first token, which is no quotation")
    each = EachReader(reader, normalize=normalize_answer)
    asked = one_by_one(PROMPTS[:2])
    words = ("hamlet", "radium")
    alone = [
        replace(one, quotable=Quotable((word,)))
        for one, word in zip(asked.alone, words, strict=True)
    ]
    [answer] = each.generate([replace(asked, alone=tuple(alone))])
    assert {(one.passage_id, one.generation.text) for one in answer.alone} == {
        ("p0", "hamlet"),
        ("p1", "radium"),
    }
