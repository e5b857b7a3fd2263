"""Adapters over a sentence encoder: stored small, merged when loaded, refused elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rag_frozen.artifacts import ModelRecord, file_sha256, write_artifact
from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, ModelError
from rag_frozen.indexing.build import build_index
from rag_frozen.indexing.encoders import make_encoder
from rag_frozen.indexing.opening import open_dense
from rag_frozen.indexing.parts import index_parts
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.lora import attach_lora, lora_weights
from rag_frozen.models.source import ModelFolder, resolve_model
from rag_frozen.recipes.index import FilesCorpus, IndexRecipe
from rag_frozen.retrieval.dense_encoders import SentenceEncoder
from rag_frozen.retrieval.minilm_adapter import (
    begin_encoder,
    is_adapter,
    load_adapted_encoder,
    save_adapter,
)
from rag_frozen.retrieval.sentence_form import pooling
from tests.tiny import save_bert, wordpiece
from tests.training.rankings import sentence_encoder, write_world

LARGEST = 3_000_000
"""Bytes that a shipped retriever may take."""
TEXTS = ["who wrote hamlet", "the river nile is long", "radium"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_encoder(tmp_path_factory.mktemp("encoder"))


def trained(base: Path, target: Path, *, seed: int = 1) -> torch.nn.Module:
    """Write adapters of random matrices as an artifact; the encoder that has them attached."""
    encoder, _ = begin_encoder(base)
    attach_lora(encoder, rank=4, alpha=8.0, leave=("pooler.dense",))
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in lora_weights(encoder).values():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=chance).bfloat16())
    sha = file_sha256(base / "model.safetensors")
    with write_artifact(
        target, kind="model", name="tuned", recipe={"seed": seed}, inputs={"encoder": sha},
        models={"encoder": ModelRecord(name=str(base), digest=sha)},
    ) as draft:  # fmt: skip
        weights = lora_weights(encoder)
        save_adapter(weights, draft.folder, encoder=str(base), rank=4, alpha=8.0)
    return encoder


def test_a_loaded_adapter_encodes_as_it_did_in_training(base: Path, tmp_path: Path):
    attached = trained(base, tmp_path / "tuned")
    loaded = SentenceEncoder(ModelFolder("tuned", tmp_path / "tuned"), dtype="float32")
    _, form = begin_encoder(base)
    for text, vector in zip(TEXTS, loaded.encode_questions(TEXTS), strict=True):
        ids = torch.tensor([wordpiece().encode(text).ids])
        mask = torch.ones_like(ids)
        with torch.inference_mode():
            wanted = pooling(form)(attached(input_ids=ids, attention_mask=mask), mask)[0]
        assert np.allclose(vector, wanted.numpy(), atol=1e-5)
    plain = SentenceEncoder(ModelFolder("plain", base), dtype="float32")
    assert not np.allclose(plain.encode_questions(TEXTS), loaded.encode_questions(TEXTS), atol=0.01)


def test_an_index_is_built_with_an_adapter_and_records_its_digest(base: Path, tmp_path: Path):
    write_world(tmp_path)
    for seed in (1, 2):
        trained(base, tmp_path / f"tuned-{seed}", seed=seed)

    def recipe(seed: int) -> IndexRecipe:
        encoder = {"kind": "sentence-transformers", "model": str(tmp_path / f"tuned-{seed}")}
        corpus = FilesCorpus(kind="files", path=tmp_path / "corpus.jsonl")
        dense = {"kind": "flat", "encoder": encoder}
        return IndexRecipe.model_validate(
            {"kind": "index", "name": "tiny", "corpus": corpus, "dense": dense}
        )

    built = build_index(recipe(1), root=tmp_path / "root")
    encoder = make_encoder(recipe(1).dense.encoder)  # type: ignore[union-attr]
    assert encoder.digest == folder_digest(tmp_path / "tuned-1")
    found = open_dense(index_parts(recipe(1), root=tmp_path / "root"), encoder)
    assert found is not None
    other = make_encoder(recipe(2).dense.encoder)  # type: ignore[union-attr]
    with pytest.raises(ArtifactMismatchError, match="was built with encoder"):
        open_dense(built, other)


def test_adapters_over_another_encoder_are_refused(base: Path, tmp_path: Path):
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    trained(copy, tmp_path / "tuned")
    sentence_encoder(copy, seed=9)
    with pytest.raises(ArtifactMismatchError, match="trained over an encoder with SHA-256"):
        load_adapted_encoder(tmp_path / "tuned")


def test_damaged_adapters_are_refused(base: Path, tmp_path: Path):
    trained(base, tmp_path / "tuned")
    weights = tmp_path / "tuned" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactDamagedError, match="SHA-256"):
        load_adapted_encoder(tmp_path / "tuned")
    save_file({}, str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text('{"kind": "minilm-adapter"}', encoding="utf-8")
    with pytest.raises(ArtifactDamagedError, match="names no encoder, rank and alpha"):
        load_adapted_encoder(tmp_path)


def test_only_sentence_encoders_of_the_common_form_get_adapters(tmp_path: Path):
    with pytest.raises(ModelError, match="no sentence-transformers model of the form"):
        begin_encoder(save_bert(tmp_path))
    assert not is_adapter(tmp_path)
    assert not is_adapter(tmp_path / "nowhere")


def test_the_recipe_s_adapters_are_small_enough_to_ship(tmp_path: Path):
    encoder, _ = begin_encoder(resolve_model("pocket/minilm").path)
    attach_lora(encoder, rank=32, alpha=64.0, leave=("pooler.dense",))
    save_adapter(lora_weights(encoder), tmp_path, encoder="pocket/minilm", rank=32, alpha=64.0)
    assert (tmp_path / "model.safetensors").stat().st_size < LARGEST
