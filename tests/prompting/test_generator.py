"""The generator's vectors depend on the input, on nothing that is padded, and begin at the
reader's norm; heads come back from disk as they were and refuse strangers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rag_frozen.errors import (
    ArtifactDamagedError,
    ArtifactMismatchError,
    ArtifactMissingError,
    InputError,
)
from rag_frozen.models.source import ModelFolder
from rag_frozen.models.state_memory import StateMemory
from rag_frozen.prompting.generator import CrossAttentionGenerator, GeneratorConfig
from rag_frozen.prompting.heads import (
    DependentHead,
    StaticHead,
    load_head,
    read_record,
    save_head,
)
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.soft_prompt import SoftPrompt
from rag_frozen.retrieval.dense_encoders import SentenceEncoder
from rag_frozen.types import Context, Passage, Question
from tests.tiny import save_bert, save_t5

DIGEST = "a" * 64
CONFIG = GeneratorConfig(32, 24, n_queries=3, n_static=2, width=16, heads=2, inner=20)


def generator(**changes: int) -> CrossAttentionGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(**{**CONFIG.to_dict(), **changes})
    return CrossAttentionGenerator(config, reader_norm=2.5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder("tiny-bert", save_bert(tmp_path_factory.mktemp("bert")))


def contexts() -> list[Context]:
    texts = ["who wrote hamlet", "when", "who was king of france in the war"]
    return [
        Context(Question(str(n), t), f"question: {t} passage: x", 9) for n, t in enumerate(texts)
    ]


def test_the_vectors_have_the_readers_norm_and_the_static_part_stands_first():
    module = generator()
    made = module(torch.randn(4, 7, 32), torch.ones(4, 7, dtype=torch.bool))
    assert made.shape == (4, 5, 24) == (4, module.length, module.width)
    assert torch.allclose(made[:, 2:].norm(dim=2), torch.tensor(2.5), atol=1e-4)
    assert torch.equal(made[:, :2], module.static.expand(4, -1, -1))


def test_padding_changes_nothing_and_other_input_changes_the_vectors():
    module = generator()
    states, mask = torch.randn(1, 5, 32), torch.ones(1, 5, dtype=torch.bool)
    plain = module(states, mask)
    longer = torch.cat([states, torch.full((1, 3, 32), 9.0)], dim=1)
    seen = torch.cat([mask, torch.zeros(1, 3, dtype=torch.bool)], dim=1)
    assert torch.allclose(module(longer, seen), plain, atol=1e-5)
    other = module(torch.randn(1, 5, 32), mask)
    assert float((other - plain)[:, 2:].detach().abs().max()) > 1e-3
    assert torch.equal(other[:, :2], plain[:, :2])


def test_attention_sums_to_one_over_the_input():
    _, weights = generator().with_attention(
        torch.randn(2, 6, 32), torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    )
    assert weights.shape == (2, 2, 2, 3, 6)
    assert torch.allclose(weights.sum(dim=-1), torch.tensor(1.0), atol=1e-5)
    assert not weights[1, ..., 2:].any()


@pytest.mark.parametrize("wrong", [{"n_queries": 0}, {"depth": 0}, {"width": 15}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]):
    with pytest.raises(InputError):
        generator(**wrong)


@pytest.mark.parametrize("save", [save_bert, save_t5])
def test_an_encoder_reads_a_batch_as_one_by_one_and_is_frozen(tmp_path: Path, save):
    encoder = InputEncoder(ModelFolder("tiny", save(tmp_path)))
    texts = [context.question.text for context in contexts()]
    states, mask = encoder.states(texts)
    assert states.shape == (3, int(mask.sum(dim=1).max()), 32)
    for row, text in enumerate(texts):
        alone, _ = encoder.states([text])
        assert torch.allclose(states[row, mask[row]], alone[0], atol=1e-5)
    assert not states.requires_grad


@pytest.mark.parametrize("save", [save_bert, save_t5])
def test_learned_vectors_are_read_before_the_input_and_get_gradients(tmp_path: Path, save):
    encoder = InputEncoder(ModelFolder("tiny", save(tmp_path)))
    vectors = torch.randn(2, 32, requires_grad=True)
    states, mask = encoder.states(["who wrote hamlet", "when"], vectors)
    plain, plain_mask = encoder.states(["who wrote hamlet", "when"])
    assert mask.sum(dim=1).tolist() == [n + 2 for n in plain_mask.sum(dim=1).tolist()]
    assert not torch.allclose(states[0, 2:], plain[0], atol=1e-3)
    states.sum().backward()
    assert vectors.grad is not None
    assert float(vectors.grad.abs().max()) > 0


def test_states_that_retrieval_computed_are_not_computed_again(tmp_path: Path):
    folder = save_bert(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "x.models.Pooling"}
    (folder / "modules.json").write_text(json.dumps([module, pooling]))
    retriever = SentenceEncoder(ModelFolder("tiny", folder), dtype="float32")
    memory = StateMemory()
    assert retriever.share_states(memory)
    alone = InputEncoder(ModelFolder("tiny", folder))
    sharing = InputEncoder(ModelFolder("tiny", folder), memory=memory)
    texts = [context.question.text for context in contexts()]
    retriever.encode_questions(texts[:2])
    retriever.encode_passages([Passage("p", "title", "text")])
    assert len(memory) == 2
    states, mask = sharing.states(texts)
    wanted, _ = alone.states(texts)
    assert (alone.texts_encoded, sharing.texts_encoded) == (3, 1)
    assert torch.allclose(states[mask], wanted[mask], atol=1e-5)


def test_the_memory_forgets_the_oldest_text():
    memory = StateMemory(size=2)
    for n in range(3):
        memory.put([n], torch.full((1, 2), float(n)))
    assert memory.get([0]) is None
    assert len(memory) == 2


@pytest.mark.parametrize("encoder_prompt", [0, 2])
def test_a_head_comes_back_from_disk_bit_by_bit(
    tmp_path: Path, bert: ModelFolder, encoder_prompt: int
):
    encoder = InputEncoder(bert)
    for head in (
        DependentHead(generator(encoder_prompt=encoder_prompt), encoder, reads="context"),
        StaticHead(SoftPrompt(torch.randn(3, 24))),
    ):
        folder = tmp_path / type(head).__name__
        folder.mkdir()
        save_head(folder, head, reader="tiny", reader_digest=DIGEST, notes="a test")
        again = load_head(folder, reader_digest=DIGEST, encoder=encoder)
        for name, tensor in head.module.state_dict().items():
            assert torch.equal(again.module.state_dict()[name], tensor)
        assert torch.equal(again.generate(contexts()), head.generate(contexts()))
        assert read_record(folder).notes == "a test"
        assert not any(p.requires_grad for p in again.module.parameters())


def test_reading_the_context_differs_from_reading_the_question(bert: ModelFolder):
    module, encoder = generator(), InputEncoder(bert)
    by_question = DependentHead(module, encoder, reads="question").generate(contexts())
    by_context = DependentHead(module, encoder, reads="context").generate(contexts())
    assert float((by_question - by_context).abs().max()) > 1e-3


def test_what_a_query_attends_to_is_told_by_token(bert: ModelFolder):
    head = DependentHead(generator(encoder_prompt=2), InputEncoder(bert), reads="question")
    tokens, weights = head.attention(contexts()[0])
    assert tokens == ["[1]", "[2]", "[CLS]", "who", "wrote", "hamlet", "[SEP]"]
    assert weights.shape == (2, 2, 3, 7)


def test_a_head_of_another_reader_or_encoder_is_refused(tmp_path: Path, bert: ModelFolder):
    encoder = InputEncoder(bert)
    head = DependentHead(generator(), encoder, reads="question")
    save_head(tmp_path, head, reader="tiny", reader_digest=DIGEST)
    with pytest.raises(ArtifactMismatchError, match="trained for tiny"):
        load_head(tmp_path, reader_digest="b" * 64, encoder=encoder)
    with pytest.raises(ArtifactMismatchError, match="reads with tiny-bert"):
        load_head(tmp_path, reader_digest=DIGEST)
    other = InputEncoder(ModelFolder("other", save_bert(tmp_path / "other", seed=5)))
    with pytest.raises(ArtifactMismatchError, match="given was other"):
        load_head(tmp_path, reader_digest=DIGEST, encoder=other)


def test_missing_and_damaged_heads_are_told(tmp_path: Path):
    with pytest.raises(ArtifactMissingError, match=r"head\.json is missing"):
        read_record(tmp_path)
    save_head(tmp_path, StaticHead(SoftPrompt(torch.ones(2, 4))), reader="r", reader_digest=DIGEST)
    weights = tmp_path / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ArtifactDamagedError, match="cannot be read"):
        load_head(tmp_path, reader_digest=DIGEST)
    record = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**record, "format": 9}))
    with pytest.raises(ArtifactDamagedError, match="format is 9"):
        read_record(tmp_path)
