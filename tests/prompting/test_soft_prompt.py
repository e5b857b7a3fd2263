"""Static prompts begin as the paper says, and are put to the vote in one batch."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.errors import InputError
from rag_frozen.prompting.bank import PromptBank
from rag_frozen.prompting.ensemble import EnsembleReader, vote
from rag_frozen.prompting.heads import StaticHead
from rag_frozen.prompting.nearest import nearest_tokens
from rag_frozen.prompting.soft_prompt import (
    SoftPrompt,
    from_labels,
    from_tokens,
    random_vectors,
    sampled,
)
from rag_frozen.types import Context, Generation, Question

TABLE = torch.arange(40, dtype=torch.float32).reshape(10, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def contexts(n: int) -> list[Context]:
    return [Context(Question(str(i), "who"), f"question {i}", 3) for i in range(n)]


def test_random_vectors_are_uniform_around_zero_and_seeded():
    vectors = random_vectors(150, 64, generator=seeded())
    assert vectors.shape == (150, 64)
    assert -0.5 <= float(vectors.min()) < -0.45
    assert 0.45 < float(vectors.max()) <= 0.5
    assert torch.equal(vectors, random_vectors(150, 64, generator=seeded()))
    assert not torch.equal(vectors, random_vectors(150, 64, generator=seeded(1)))


def test_sampled_vectors_are_embeddings_of_different_tokens():
    vectors = sampled(TABLE, range(2, 9), 5, generator=seeded())
    rows = [(row[0] / 4).item() for row in vectors]
    assert len(set(rows)) == 5
    assert set(rows) <= set(range(2, 9))
    with pytest.raises(InputError, match="5 vectors cannot be drawn from 3 tokens"):
        sampled(TABLE, [1, 2, 3], 5, generator=seeded())


def test_labels_come_first_and_sampled_tokens_fill_the_rest():
    vectors = from_labels(TABLE, [[1], [2, 4]], 3, fill=[7], generator=seeded())
    assert vectors[:2].tolist() == [TABLE[1].tolist(), TABLE[3].tolist()]
    assert vectors[2].tolist() == TABLE[7].tolist()
    assert len(from_labels(TABLE, [[1], [2]], 1, fill=[], generator=seeded())) == 1
    with pytest.raises(InputError, match="each with a token"):
        from_labels(TABLE, [[]], 3, fill=[7], generator=seeded())


def test_a_text_is_cut_or_repeated_to_the_length():
    assert from_tokens(TABLE, [3, 5]).tolist() == [TABLE[3].tolist(), TABLE[5].tolist()]
    assert from_tokens(TABLE, [3, 5], 3)[2].tolist() == TABLE[3].tolist()
    assert len(from_tokens(TABLE, [3, 5], 1)) == 1
    with pytest.raises(InputError, match="at least one token"):
        from_tokens(TABLE, [])


@pytest.mark.parametrize("length", [0, -1])
def test_a_prompt_has_at_least_one_vector(length: int):
    with pytest.raises(InputError, match="at least one vector"):
        random_vectors(length, 4, generator=seeded())


def test_a_prompt_is_a_copy_that_stands_before_every_row():
    vectors = torch.zeros(2, 4)
    prompt = SoftPrompt(vectors)
    vectors += 1
    assert prompt(3).shape == (3, 2, 4)
    assert not prompt(3).any()
    with pytest.raises(InputError, match="matrix"):
        SoftPrompt(torch.zeros(4))


def test_the_nearest_tokens_of_an_embedding_are_the_token_itself_first():
    table = torch.randn(50, 8, generator=seeded())
    found = nearest_tokens(table[[7, 9]] * 3, table, token=str, k=3)
    assert [row[0].token_id for row in found] == [7, 9]
    assert found[0][0].cosine == pytest.approx(1, abs=1e-6)
    assert all(a.cosine >= b.cosine for row in found for a, b in pairwise(row))


def test_prompts_of_a_bank_are_added_named_and_dropped():
    bank = PromptBank(4)
    assert bank.generate(contexts(2)).vectors.shape == (2, 0, 4)
    bank.add("a", StaticHead(SoftPrompt(torch.ones(3, 4))), default=True)
    bank.add("b", StaticHead(SoftPrompt(torch.zeros(1, 4))))
    assert (bank.names, bank.length) == (("a", "b"), 3)
    made = bank.generate(contexts(2))
    assert made.lengths is not None
    assert made.lengths.tolist() == [3, 3]
    with pytest.raises(InputError, match="loaded already"):
        bank.add("a", StaticHead(SoftPrompt(torch.ones(3, 4))))
    bank.drop("a")
    assert bank.default is None
    with pytest.raises(InputError, match=r"No prompt 'a' is loaded \(loaded: b\)"):
        bank.drop("a")
    with pytest.raises(InputError, match="without a reader"):
        bank.add("c", "folder")


class Members:
    """Answers as each prompt's name says; counts its calls."""

    def __init__(self, answers: dict[str, tuple[str, float]]) -> None:
        self.answers = answers
        self.calls = 0

    def generate(self, contexts):
        self.calls += 1
        return [
            Generation(
                self.answers[c.soft_prompt][0], math.log(self.answers[c.soft_prompt][1]), 1, "end"
            )
            for c in contexts
        ]


def test_an_ensemble_answers_in_one_batch_by_majority_or_likelihood():
    members = Members({"a": ("Nile", 0.2), "b": ("the nile", 0.3), "c": ("Po", 0.9)})
    normalize = lambda text: text.lower().removeprefix("the ")  # noqa: E731
    majority = EnsembleReader(members, ["a", "b", "c"], normalize=normalize)
    (first, second), (generation, counted) = (
        majority.generate(contexts(2)),
        majority.generate_with_votes(contexts(1))[0],
    )
    assert members.calls == 2
    assert (first.text, second.text) == ("the nile", "the nile")
    assert counted.agreement == pytest.approx(2 / 3)
    assert counted.confidence == pytest.approx(0.5 / 3)
    assert generation.logprob == pytest.approx(math.log(0.5 / 3))
    by_likelihood = EnsembleReader(
        members, ["a", "b", "c"], normalize=normalize, method="likelihood"
    )
    assert by_likelihood.generate(contexts(1))[0].text == "Po"


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_an_ensemble_needs_different_prompts(names: list[str]):
    with pytest.raises(InputError, match="different prompts"):
        EnsembleReader(Members({}), names, normalize=str)


generations = st.lists(
    st.tuples(st.sampled_from(["x", "X", "y", ""]), st.floats(-9, 0)), min_size=1, max_size=6
)


@given(generations)
def test_a_vote_is_fair_whatever_the_members_say(written):
    members = [Generation(text, logprob, 1, "end") for text, logprob in written]
    for method in ("majority", "likelihood"):
        counted = vote(members, normalize=str.lower, method=method)
        assert 0 < counted.agreement <= 1
        assert 0 <= counted.confidence <= 1
        same = [m for m in members if m.text.lower() == members[counted.winner].text.lower()]
        assert counted.agreement == len(same) / len(members)
        counts = [sum(n.text.lower() == m.text.lower() for n in members) for m in members]
        if method == "majority":
            assert len(same) == max(counts)
