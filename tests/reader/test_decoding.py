"""Decoding with kept keys and values gives what a plain forward pass gives."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from rag_frozen.errors import InputError
from rag_frozen.reader.decoding import Decoded, Decoding, decode
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig, prefix_mask

CLS, SEP, PAD, VOCABULARY = 2, 3, 0, 60


@pytest.fixture(scope="module")
def model() -> PrefixLM:
    torch.manual_seed(0)
    made = PrefixLM(PrefixLMConfig(VOCABULARY, 32, 2, 4, 48, 96)).eval()
    with torch.no_grad():
        made.word_embeddings.weight.mul_(2.0)  # sharper choices
    return made


def sources(n: int = 6) -> list[list[int]]:
    rng = random.Random(1)
    return [[CLS, *(rng.randrange(5, VOCABULARY) for _ in range(rng.randrange(1, 30))), SEP]
            for _ in range(n)]  # fmt: skip


def run(model: PrefixLM, rows: list[list[int]], **options) -> list[Decoded]:
    soft_prompt = options.pop("soft_prompt", None)
    return decode(
        model, rows, decoding=Decoding(max_new_tokens=8, **options), start_id=CLS, end_id=SEP,
        pad_id=PAD, soft_prompt=soft_prompt,
    )  # fmt: skip


@torch.inference_mode()
def logprobs(model: PrefixLM, source: list[int], answer: list[int]) -> torch.Tensor:
    """Next-token log-probabilities after each answer token, without any cache: [A + 1, V]."""
    ids = torch.tensor([[*source, CLS, *answer]])
    lengths = torch.tensor([ids.shape[1]])
    mask = prefix_mask(torch.tensor([len(source)]), lengths, ids.shape[1])
    positions = torch.arange(ids.shape[1])[None]
    types = (positions >= len(source)).long()
    states, _ = model(model.word_embeddings(ids), mask, position_ids=positions, type_ids=types)
    return torch.log_softmax(model.logits(states[0, len(source) :]).float(), dim=-1)


def test_greedy_equals_a_loop_without_a_cache(model):
    for source, decoded in zip(sources(), run(model, sources()), strict=True):
        answer: list[int] = []
        total = 0.0
        while len(answer) < 8:
            scores = logprobs(model, source, answer)[-1]
            token = int(scores.argmax())
            total += float(scores[token])
            if token == SEP:
                break
            answer.append(token)
        assert list(decoded.token_ids) == answer
        assert decoded.logprob == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"kind": "beam", "n_beams": 3}])
def test_a_batch_gives_what_one_by_one_gives(model, options):
    together = run(model, sources(), **options)
    for source, decoded in zip(sources(), together, strict=True):
        [alone] = run(model, [source], **options)
        assert alone.token_ids == decoded.token_ids
        assert alone.logprob == pytest.approx(decoded.logprob, abs=1e-4)


def test_one_beam_is_greedy(model):
    assert run(model, sources(40), kind="beam", n_beams=1) == run(model, sources(40))


def test_rows_that_end_early_change_nothing_for_the_others(model):
    decoded = run(model, sources(40), kind="sample", seed=2)
    assert {d.ended for d in decoded} == {True, False}
    for source, row in zip(sources(40), decoded, strict=True):
        scores = logprobs(model, source, list(row.token_ids))
        wanted = [*row.token_ids, *([SEP] if row.ended else [])]
        total = sum(float(scores[place, token]) for place, token in enumerate(wanted))
        assert row.logprob == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beams_as_wide_as_the_vocabulary_find_the_best_answer_of_two_tokens(model, length_penalty):
    rows = sources()
    found = decode(
        model, rows, start_id=CLS, end_id=SEP, pad_id=PAD,
        decoding=Decoding("beam", 2, n_beams=VOCABULARY, length_penalty=length_penalty),
    )  # fmt: skip
    for source, decoded in zip(rows, found, strict=True):
        first = logprobs(model, source, [])[0]
        scores = {(SEP,): float(first[SEP])}
        for token in set(range(VOCABULARY)) - {SEP}:
            second = float(first[token]) + logprobs(model, source, [token])[-1]
            scores |= {(token, then): float(s) for then, s in enumerate(second)}
        best = max(scores, key=lambda ids: scores[ids] / len(ids) ** length_penalty)
        assert decoded.token_ids == tuple(token for token in best if token != SEP)
        assert decoded.ended == (SEP in best)
        assert decoded.logprob == pytest.approx(scores[best], abs=1e-4)


def test_a_beam_never_gives_up_a_likely_answer_for_an_unlikely_end(model):
    greedy, beam = run(model, sources(40)), run(model, sources(40), kind="beam", n_beams=2)
    assert sum(not decoded.ended for decoded in greedy) > 5
    for one, other in zip(greedy, beam, strict=True):
        assert other.logprob > one.logprob - 1.0


def test_a_beams_score_is_the_answers_log_probability(model):
    for source, decoded in zip(sources(), run(model, sources(), kind="beam"), strict=True):
        answer = list(decoded.token_ids)
        scores = logprobs(model, source, answer)
        total = sum(float(scores[place, token]) for place, token in enumerate(answer))
        total += float(scores[len(answer), SEP]) if decoded.ended else 0.0
        assert decoded.logprob == pytest.approx(total, abs=1e-3)


def test_sampling_follows_the_distribution_and_its_seed(model):
    source = sources()[0]
    first = torch.exp(logprobs(model, source, [])[0])
    drawn = Counter(
        (d.token_ids or (SEP,))[0] for d in run(model, [source] * 600, kind="sample", seed=4)
    )
    likeliest = int(first.argmax())
    assert drawn[likeliest] / 600 == pytest.approx(float(first[likeliest]), abs=0.07)
    assert run(model, sources(), kind="sample", seed=4) == run(
        model, sources(), kind="sample", seed=4
    )
    assert run(model, sources(), kind="sample", seed=4) != run(
        model, sources(), kind="sample", seed=5
    )


def test_top_p_leaves_unlikely_tokens_out(model):
    source = sources()[0]
    narrow = run(model, [source] * 50, kind="sample", top_p=1e-6)
    assert {d.token_ids for d in narrow} == {run(model, [source])[0].token_ids}


def test_a_soft_prompt_of_real_embeddings_acts_as_those_tokens(model):
    rows = sources()
    front = torch.tensor([[7, 9, 11]] * len(rows))
    soft = run(model, rows, soft_prompt=model.word_embeddings(front).detach())
    real = run(model, [[7, 9, 11, *row] for row in rows])
    assert [d.token_ids for d in soft] == [d.token_ids for d in real]
    for ours, theirs in zip(soft, real, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
    assert soft != run(model, rows)


def test_a_source_beyond_the_window_is_refused(model):
    with pytest.raises(InputError, match="exceed the reader's window of 96"):
        run(model, [[5] * 90])


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"top_p": 0.0}, {"n_beams": 0}, {"min_new_tokens": 25},
     {"min_new_tokens": -1}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError):
        Decoding(**wrong)


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample"])
def test_no_answer_ends_before_the_least_number_of_tokens(model, kind):
    likely = Counter(token for decoded in run(model, sources(40)) for token in decoded.token_ids)
    [(end, _)] = likely.most_common(1)  # ends many answers at once

    def written(least: int) -> list[Decoded]:
        decoding = Decoding(kind, 8, n_beams=3, seed=2, min_new_tokens=least)
        return decode(model, sources(40), decoding=decoding, start_id=CLS, end_id=end, pad_id=PAD)

    plain, longer = written(0), written(5)
    assert any(len(decoded.token_ids) < 5 for decoded in plain)
    assert all(len(decoded.token_ids) >= 5 for decoded in longer)
    for source, decoded in zip(sources(40), longer, strict=True):
        answer = list(decoded.token_ids)
        scores = logprobs(model, source, answer)
        total = sum(float(scores[place, token]) for place, token in enumerate(answer))
        total += float(scores[len(answer), end]) if decoded.ended else 0.0
        assert decoded.logprob == pytest.approx(total, abs=1e-3)  # the model's own, end included
    if kind != "beam":  # a beam that is longer may be likelier than what it would have ended with
        enough = [place for place, one in enumerate(plain) if len(one.token_ids) >= 5]
        for one, other in ((longer[place], plain[place]) for place in enough):
            assert one.token_ids == other.token_ids
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
