"""What ships with the package: sizes, hashes, pages of data, and that the reader stands on the
language model that it was trained from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.models.source import resolve_model
from rag_frozen.packing.template import PromptTemplate
from rag_frozen.reader.decoding import Decoding
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.types import Context, Question

MODELS = ("lm", "reader", "reranker")
READER_AND_LM = 22_000_000
ALL = 40_000_000
"""Bytes of weights."""


def folder(name: str) -> Path:
    return resolve_model(f"pocket/{name}").path


def weights(name: str) -> int:
    return (folder(name) / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_has_a_manifest_that_holds_and_a_page_of_its_data(name: str):
    manifest = verify(folder(name), kind="model")
    assert {"config.json", "model.safetensors"} <= set(manifest.files)
    assert any(key.startswith("data/") for key in manifest.inputs)
    page = (folder(name) / "DATA.md").read_text(encoding="utf-8")
    recipe = manifest.recipe
    assert f"pipelines/train/{recipe['name']}.yaml" in page
    for given in manifest.inputs:
        if given.startswith(("data/qa/", "data/mined/")) and name != "lm":
            assert Path(given).name.split(".")[0] in page, given


def test_shipped_weights_are_as_small_as_promised():
    assert weights("lm") + weights("reader") <= READER_AND_LM
    assert sum(map(weights, MODELS)) <= ALL


def test_the_reader_is_a_difference_to_the_language_model_that_ships():
    config = json.loads((folder("reader") / "config.json").read_text(encoding="utf-8"))
    assert config["difference_to"]["model"] == "pocket/lm"
    lm = load_manifest(folder("lm"), kind="model")
    assert config["difference_to"]["sha256"] == lm.files["model.safetensors"].sha256
    reader = load_manifest(folder("reader"), kind="model")
    assert reader.digests == lm.digests  # over the same word embeddings


def test_the_language_model_fills_a_blank_and_was_taught_no_answers():
    recipe = load_manifest(folder("lm"), kind="model").recipe
    mixture = recipe["mixture"]
    assert mixture["cloze_start"] == mixture["cloze_end"] == 1.0  # beside language modelling
    assert mixture["closed_book"] == mixture["yes_no"] == 0.0
    lm = PrefixLMReader.from_folder(
        folder("lm"), resolve_model("pocket/minilm").path, decoding=Decoding("greedy", 12)
    )
    template = PromptTemplate(**recipe["template"])
    passage = template.passage.format(
        title="Lake Baikal",
        text="Lake Baikal in Siberia is the deepest lake on Earth. The Angara leaves the lake.",
        number=1,
    )
    prompt = template.with_passages.format(
        passages=passage, question="lake baikal in [MASK] is the deepest lake on earth"
    )
    [filled] = lm.generate([Context(Question("q", "lake"), prompt, 0)])
    assert filled.text.lower() == "siberia"
