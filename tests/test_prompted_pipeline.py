"""Soft prompts in a whole pipeline: loaded by the recipe, named by question, put to the vote,
refused when they are another reader's or unproven; answers below a confidence are withheld."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from rag_frozen.build import load_pipeline
from rag_frozen.errors import ArtifactMismatchError, InputError
from rag_frozen.models.source import resolve_model
from rag_frozen.pipeline import Pipeline
from rag_frozen.prompting.ensemble import EnsembleReader
from rag_frozen.prompting.generator import CrossAttentionGenerator, GeneratorConfig
from rag_frozen.prompting.heads import DependentHead, StaticHead, save_head
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.soft_prompt import SoftPrompt
from rag_frozen.reader.freezing import weights_digest
from rag_frozen.reader.prefix_reader import PrefixLMReader
from tests.test_pipeline import pipeline as plain_pipeline

QUESTIONS = ["how deep is lake baikal", "who drew the border between india and pakistan"]
SMALL = ["reranker={kind: none}", "retrieval={kind: dense, k: 3}", "dtype=float32"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def plain(root: Path) -> Pipeline:
    return load_pipeline("pocket", root=root, overrides=SMALL)


@pytest.fixture(scope="module")
def heads(plain: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two static prompts and a dependent one, of random vectors, for the pocket reader."""
    reader = plain.reader
    assert isinstance(reader, PrefixLMReader)
    torch.manual_seed(0)
    width = reader.embedding_width
    norm = float(reader.embedding_table.float().norm(dim=1).mean())
    config = GeneratorConfig(384, width, n_queries=2, width=16, heads=2, inner=16)
    encoder = InputEncoder(resolve_model("pocket/minilm"))
    made = {
        "one": StaticHead(SoftPrompt(torch.randn(1, width) * norm / width**0.5)),
        "many": StaticHead(SoftPrompt(torch.randn(40, width))),
        "dependent": DependentHead(
            CrossAttentionGenerator(config, reader_norm=norm), encoder, reads="question"
        ),
    }
    folders = {}
    for name, head in made.items():
        folders[name] = tmp_path_factory.mktemp(name)
        save_head(folders[name], head, reader="pocket/reader", reader_digest=reader.base_digest)
    return folders


def test_a_recipe_names_the_prompt_and_the_reader_stays_frozen(
    root: Path, plain: Pipeline, heads: dict[str, Path]
):
    prompted = load_pipeline(
        "pocket",
        root=root,
        overrides=[*SMALL, f"prompt={{kind: soft-prompt, path: {heads['many']}}}"],
    )
    ours, theirs = prompted.answer(QUESTIONS), plain.answer(QUESTIONS)
    assert [a.confidence for a in ours] != [a.confidence for a in theirs]
    assert prompted.prompts.names == ("recipe",)
    assert isinstance(prompted.reader, PrefixLMReader)
    assert weights_digest(prompted.reader.model) == prompted.reader.digest
    prompted.prompts.drop("recipe")
    assert [a.text for a in prompted.answer(QUESTIONS)] == [a.text for a in theirs]


def test_prompts_are_added_named_by_question_and_dropped_at_run_time(
    plain: Pipeline, heads: dict[str, Path]
):
    before = plain.answer(QUESTIONS)
    plain.prompts.add("many", heads["many"])
    plain.prompts.add("one", heads["one"])
    try:
        mixed = plain.answer([*QUESTIONS, QUESTIONS[0]], prompts=[None, "many", "one"])
        assert mixed[0].confidence == pytest.approx(before[0].confidence, rel=1e-3)
        alone = plain.ask(QUESTIONS[1], prompt="many")
        assert mixed[1].text == alone.text
        assert mixed[1].confidence == pytest.approx(alone.confidence, rel=1e-3)
        assert mixed[1].confidence != pytest.approx(before[1].confidence, rel=1e-3)
        with pytest.raises(InputError, match="No prompt 'three' is loaded"):
            plain.ask(QUESTIONS[0], prompt="three")
        with pytest.raises(InputError, match="1 prompts were named for 2 questions"):
            plain.answer(QUESTIONS, prompts=["one"])
    finally:
        plain.prompts.drop("many")
        plain.prompts.drop("one")


def test_an_ensemble_of_a_recipe_answers_by_vote(root: Path, heads: dict[str, Path]):
    paths = f"[{heads['one']}, {heads['many']}, {heads['dependent']}]"
    voting = load_pipeline(
        "pocket", root=root, overrides=[*SMALL, f"prompt={{kind: ensemble, paths: {paths}}}"]
    )
    assert isinstance(voting.reader, EnsembleReader)
    [answer] = voting.answer(QUESTIONS[:1])
    votes = voting.reader.generate_with_votes([answer.context])  # type: ignore[list-item]
    assert answer.generation == votes[0][0]
    assert 0 < votes[0][1].agreement <= 1
    assert answer.confidence == pytest.approx(votes[0][1].confidence)
    warmer = ["confidence.temperature=4", "confidence.bias=-1"]
    calibrated = load_pipeline(
        "pocket",
        root=root,
        overrides=[*SMALL, *warmer, f"prompt={{kind: ensemble, paths: {paths}}}"],
    )
    kept = calibrated.ask(QUESTIONS[0])
    p = max(votes[0][1].confidence, 1e-6)  # so close to 0 a probability may come
    assert kept.confidence == pytest.approx(1 / (1 + math.e * ((1 - p) / p) ** 0.25), rel=1e-6)
    withheld = calibrated.ask(QUESTIONS[0], min_confidence=kept.confidence + 1e-3)
    assert withheld.abstained
    assert not calibrated.ask(QUESTIONS[0], min_confidence=kept.confidence - 1e-3).abstained


def test_a_question_that_dense_retrieval_encoded_is_not_encoded_again(
    root: Path, heads: dict[str, Path]
):
    prompted = load_pipeline(
        "pocket",
        root=root,
        overrides=[*SMALL, f"prompt={{kind: soft-prompt, path: {heads['dependent']}}}"],
    )
    head = prompted.prompts.get("recipe")
    assert isinstance(head, DependentHead)
    prompted.answer(QUESTIONS)
    assert head.encoder.texts_encoded == 0
    head.encoder.memory = None
    again = prompted.answer(QUESTIONS)
    assert head.encoder.texts_encoded == 2
    assert all(answer.text for answer in again)


def test_unproven_and_foreign_prompts_are_refused(
    root: Path, plain: Pipeline, heads: dict[str, Path], tmp_path: Path
):
    head = StaticHead(SoftPrompt(torch.ones(2, 384)))
    save_head(tmp_path, head, reader="other/reader", reader_digest="0" * 64)
    with pytest.raises(ArtifactMismatchError, match="trained for other/reader"):
        plain.prompts.add("foreign", tmp_path)
    (heads["one"] / "proof.json").write_text(json.dumps({"faults": ["no gain"]}))
    try:
        with pytest.raises(ArtifactMismatchError, match="not proven: no gain"):
            plain.prompts.add("one", heads["one"])
        setting = f"prompt={{kind: soft-prompt, path: {heads['one']}, accept_unproven: true}}"
        accepted = load_pipeline("pocket", root=root, overrides=[*SMALL, setting])
        assert accepted.prompts.length == 1
    finally:
        (heads["one"] / "proof.json").unlink()
    assert plain.prompts.names == ()


def test_answers_below_the_asked_confidence_are_withheld(plain: Pipeline):
    sure, *_ = plain.answer(QUESTIONS)
    kept, withheld = plain.ask(QUESTIONS[0]), plain.ask(QUESTIONS[0], min_confidence=1.0)
    assert (kept.text, kept.abstained) == (sure.text, False)
    assert (withheld.text, withheld.abstained) == ("", True)
    assert withheld.generation is not None
    assert withheld.generation.text == sure.text
    assert withheld.confidence == kept.confidence


def test_confidence_is_calibrated_as_the_recipe_says(root: Path, plain: Pipeline):
    warmer = load_pipeline("pocket", root=root, overrides=[*SMALL, "confidence.temperature=4"])
    p, q = plain.ask(QUESTIONS[0]).confidence, warmer.ask(QUESTIONS[0]).confidence
    assert q == pytest.approx(1 / (1 + ((1 - p) / p) ** 0.25), rel=1e-6)


def test_a_reader_without_a_place_for_prompts_says_so():
    with pytest.raises(InputError, match="takes no soft prompts"):
        _ = plain_pipeline().prompts


def test_the_report_shows_the_tokens_nearest_to_each_vector(heads, root: Path, tmp_path: Path):
    from rag_frozen.evaluation.report import render_report
    from rag_frozen.evaluation.soft_prompts import describe_prompts
    from tests.evaluation.test_report import data, evaluate
    from tests.evaluation.test_report import pipeline as small

    bank_of = load_pipeline(
        "pocket",
        root=root,
        overrides=[*SMALL, f"prompt={{kind: soft-prompt, path: {heads['many']}}}"],
    )
    bank_of.prompts.add("asks", heads["dependent"])
    found = describe_prompts(bank_of)
    assert [(row["name"], row["kind"], row["length"]) for row in found] == [
        ("asks", "input-dependent", 2),
        ("recipe", "static", 40),
    ]
    assert found[0]["vectors"] == []
    assert len(found[1]["vectors"]) == 40
    cosines = [cosine for _, cosine in found[1]["vectors"][0]["nearest"]]
    assert cosines == sorted(cosines, reverse=True)
    page = render_report(evaluate(small(), data()), costs=None, prompts=found)
    token = found[1]["vectors"][0]["nearest"][0][0]
    assert "Soft prompts</h2>" in page
    assert f"{token} <small>" in page
    assert describe_prompts(small()) == []
