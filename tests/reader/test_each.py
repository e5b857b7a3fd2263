"""Answers to single passages, summed into one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_frozen.normalization import normalize_answer
from rag_frozen.prompting.ensemble import EnsembleReader
from rag_frozen.protocols import Reader
from rag_frozen.reader.each import EachReader, log_sum_exp, merge
from rag_frozen.types import Context, Generation, Kept, Question, ReadAlone

TEXTS = ("", "the Nile", "nile", "Nile.", "Po", "po", "the", "The", "Rhine")


def alone(name: str, text: str, p: float, prior: float = 1.0) -> ReadAlone:
    logprob = math.log(p) if p else -math.inf
    return ReadAlone(name, Generation(text, logprob, 2, "end"), math.log(prior))


def merged(*read: ReadAlone, never_empty: bool = True) -> Generation:
    return merge(read, normalize=normalize_answer, never_empty=never_empty)


@st.composite
def readings(draw: st.DrawFn) -> list[ReadAlone]:
    n = draw(st.integers(1, 8))
    weights = draw(st.lists(st.floats(1e-6, 1.0), min_size=n, max_size=n))
    chances = draw(st.lists(st.floats(0.0, 1.0), min_size=n, max_size=n))
    texts = draw(st.lists(st.sampled_from(TEXTS), min_size=n, max_size=n))
    total = math.fsum(weights)
    rows = zip(texts, chances, weights, strict=True)
    return [alone(f"p{i}", text, p, w / total) for i, (text, p, w) in enumerate(rows)]


def test_equal_answers_of_several_passages_outweigh_the_likeliest_single_one():
    found = merged(
        alone("a", "Po", 0.5, 0.4), alone("b", "the Nile", 0.4, 0.3), alone("c", "Nile", 0.6, 0.3)
    )
    assert found.text == "Nile"  # in the form of the passage that adds most
    assert math.exp(found.logprob) == pytest.approx(0.3 * 0.4 + 0.3 * 0.6, abs=1e-15)
    assert [one.passage_id for one in found.alone] == ["c", "b", "a"]
    assert found.n_tokens == 6


def test_no_answer_keeps_its_mass_and_is_chosen_only_when_alone_or_allowed():
    read = (alone("a", "", 0.9, 0.7), alone("b", "Nile", 0.2, 0.3))
    assert merged(*read).text == "Nile"
    assert math.exp(merged(*read).logprob) == pytest.approx(0.06)  # nothing is handed on
    assert merged(*read, never_empty=False).text == ""
    silent = merged(alone("a", "", 0.9, 0.7), alone("b", " ", 0.5, 0.3))
    assert silent.text == ""
    assert math.exp(silent.logprob) == pytest.approx(0.78)


def test_an_answer_of_an_article_alone_is_no_silence():
    assert merged(alone("a", "", 0.9, 0.5), alone("b", "The", 0.1, 0.5)).text == "The"
    found = merged(alone("a", "the", 0.2, 0.5), alone("b", "A", 0.3, 0.5))
    assert found.text == "A"
    assert math.exp(found.logprob) == pytest.approx(0.15)


def test_probabilities_of_nothing_are_still_merged():
    found = merged(alone("b", "Po", 0.0, 0.5), alone("a", "Nile", 0.0, 0.5))
    assert (found.text, found.logprob) == ("Nile", -math.inf)


@given(st.sampled_from(TEXTS), st.floats(0.0, 1.0), st.booleans())
def test_one_passage_gives_what_was_written_for_it(text: str, p: float, never_empty: bool):
    one = alone("a", text, p)
    found = merged(one, never_empty=never_empty)
    assert found == Generation(text, one.generation.logprob, 2, "end", (one,))


@given(readings(), st.randoms(), st.booleans())
def test_the_order_of_the_passages_changes_nothing(read, random, never_empty):
    shuffled = [*read]
    random.shuffle(shuffled)
    assert merged(*shuffled, never_empty=never_empty) == merged(*read, never_empty=never_empty)


@given(readings())
def test_the_answer_has_the_greatest_sum_and_all_sums_together_are_at_most_one(read):
    found = merged(*read, never_empty=False)
    mass: dict[str, float] = {}
    for one in read:
        key = normalize_answer(one.generation.text) or one.generation.text.lower()
        mass[key] = mass.get(key, 0.0) + math.exp(one.logjoint)
    own = mass[normalize_answer(found.text) or found.text.lower()]
    assert math.exp(found.logprob) == pytest.approx(own, rel=1e-9, abs=1e-300)
    assert own >= max(mass.values()) * (1 - 1e-9)
    assert math.fsum(mass.values()) <= 1 + 1e-9
    assert sorted(one.passage_id for one in found.alone) == sorted(one.passage_id for one in read)


@given(readings())
def test_the_passages_that_agree_come_first_and_each_part_best_first(read):
    found = merged(*read)

    def key(one: ReadAlone) -> str:
        return normalize_answer(one.generation.text) or one.generation.text.lower()

    assert found.text == found.alone[0].generation.text
    agrees = [key(one) == key(found.alone[0]) for one in found.alone]
    assert agrees == sorted(agrees, reverse=True)
    for part in (True, False):
        joint = [o.logjoint for o, own in zip(found.alone, agrees, strict=True) if own is part]
        assert joint == sorted(joint, reverse=True)


@given(readings())
def test_an_empty_answer_is_never_chosen_beside_another(read):
    assert bool(merged(*read).text) == any(one.generation.text for one in read)


@given(st.lists(st.floats(-700.0, 0.0), min_size=1, max_size=50), st.randoms())
def test_sums_are_exact_in_double_precision_whatever_the_order(values, random):
    shuffled = [*values]
    random.shuffle(shuffled)
    assert log_sum_exp(shuffled) == log_sum_exp(values)
    exact = math.log(math.fsum(map(math.exp, values)))
    assert log_sum_exp(values) == pytest.approx(exact, abs=1e-11)
    assert log_sum_exp([value - 5_000 for value in values]) == pytest.approx(exact - 5_000)


class Prompts:
    """Answers with the prompt's first word, the likelier the shorter the prompt; with a soft
    prompt, with its name."""

    digest = "d" * 64

    def __init__(self) -> None:
        self.calls: list[int] = []

    def parameter_counts(self) -> tuple[int, int]:
        return (7, 5)

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        self.calls.append(len(contexts))
        return [
            Generation(c.soft_prompt or c.prompt.split()[0], -0.1 * len(c.prompt), 1, "end")
            for c in contexts
        ]


def packed(*prompts: str, question: str = "q", soft_prompt: str | None = None) -> Context:
    asked = Question(question, "who")
    one_by_one = tuple(
        Context(asked, prompt, 1, (Kept(f"p{n}", 1),), logprior=-math.log(len(prompts)))
        for n, prompt in enumerate(prompts)
    )
    kept = tuple(one.kept[0] for one in one_by_one)
    return Context(asked, "", 3, kept, alone=one_by_one, soft_prompt=soft_prompt)


def each(reader: Reader) -> EachReader:
    return EachReader(reader, normalize=normalize_answer)


def test_all_passages_of_all_questions_are_read_in_one_call():
    reader = Prompts()
    batch = [packed("a b", "c", "a"), Context(Question("x", "who"), "z y", 2), packed("c d")]
    together = each(reader).generate(batch)
    assert reader.calls == [5]
    assert [one.text for one in together] == ["a", "z", "c"]
    assert together == [each(Prompts()).generate([one])[0] for one in batch]
    assert each(Prompts()).generate([]) == []


def test_a_context_that_was_packed_whole_is_read_as_it_is():
    plain = Context(Question("x", "who"), "z y", 2, (Kept("p", 1), Kept("q", 1)))
    assert each(Prompts()).generate([plain]) == Prompts().generate([plain])


def test_a_named_soft_prompt_conditions_every_passage():
    [found] = each(Prompts()).generate([packed("a", "b", soft_prompt="short")])
    assert [one.generation.text for one in found.alone] == ["short", "short"]


def test_the_members_of_an_ensemble_vote_on_every_passage():
    members = EnsembleReader(Prompts(), ["one", "two"], normalize=normalize_answer)
    [found] = each(members).generate([packed("a", "bb")])
    assert {one.generation.text for one in found.alone} == {"one"}
    assert found.logprob == pytest.approx(
        math.log(0.5 * (math.exp(-0.1) / 2) + 0.5 * (math.exp(-0.2) / 2))
    )


def test_it_is_known_by_the_reader_that_it_wraps():
    made = each(Prompts())
    assert isinstance(made, Reader)
    assert (made.digest, made.parameter_counts()) == ("d" * 64, (7, 5))
