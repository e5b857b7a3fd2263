"""``rag-frozen prompts``: proofs, nearest tokens, pictures, and PEFT's adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rag_frozen.artifacts import write_artifact
from rag_frozen.cli.prompts import prompts_app
from rag_frozen.errors import CheckFailedError, InputError
from rag_frozen.models.source import resolve_model
from rag_frozen.prompting.generator import CrossAttentionGenerator, GeneratorConfig
from rag_frozen.prompting.heads import DependentHead, Head, StaticHead, save_head
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.soft_prompt import SoftPrompt, from_tokens
from rag_frozen.reader.make import make_reader
from rag_frozen.recipes.pipeline import CausalReader, PrefixReader
from tests.tiny import save_llama

POCKET = PrefixReader(kind="prefix-lm")


def command(*arguments: object) -> None:
    prompts_app([str(one) for one in arguments], standalone_mode=False)


def written(
    folder: Path, head: Head, settings: PrefixReader | CausalReader, **proof: object
) -> Path:
    reader = make_reader(settings, dtype="float32")
    recipe = {"reader": settings.model_dump(mode="json")}
    with write_artifact(folder, kind="head", name="made", recipe=recipe) as draft:
        save_head(draft.folder, head, reader=reader.name, reader_digest=reader.base_digest)
        (draft / "proof.json").write_text(json.dumps({"faults": [], **proof}))
    return folder


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of real tokens: paris and london."""
    reader = make_reader(POCKET, dtype="float32")
    [ids] = reader.encode_answers(["paris london"])
    head = StaticHead(SoftPrompt(from_tokens(reader.embedding_table, ids[:-1])))
    folder = tmp_path_factory.mktemp("heads") / "static"
    return written(folder, head, POCKET, plain=10.0, conditioned=20.0, p=0.01)


def test_a_good_prompt_is_verified_and_a_changed_file_is_noticed(static: Path, capsys):
    command("verify", static, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == []
    assert found["largest_difference_of_logprobs"] > 0
    assert found["bitwise_the_same_after_loading"]
    assert found["exact_match_on_validation"] == {"plain": 10.0, "conditioned": 20.0, "p": 0.01}


def test_the_gain_is_measured_again_where_the_data_is_given(tmp_path: Path, capsys):
    from rag_frozen.training.prompt_training import train_prompt
    from tests.tiny import save_reader_and_rows
    from tests.training.test_prompt_training import settings

    save_reader_and_rows(tmp_path)
    done = train_prompt(settings(tmp_path, steps=1), tmp_path / "root")
    recorded = json.loads((done.folder / "proof.json").read_text())
    with pytest.raises(CheckFailedError, match="no gain"):
        command("verify", done.folder, "--data", tmp_path, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["measured_again"]
    gain = found["exact_match_on_validation"]
    assert gain == {name: recorded[name] for name in ("plain", "conditioned", "p")}
    assert found["trained_parameters"] == 3 * 32
    assert found["milliseconds_plain"] > 0


def test_a_prompt_of_elsewhere_has_no_gain_to_measure(static: Path, tmp_path: Path):
    with pytest.raises(InputError, match="was not trained here"):
        command("verify", static, "--data", tmp_path)


def test_a_prompt_without_gain_fails_its_verification(tmp_path: Path, capsys):
    head = StaticHead(SoftPrompt(torch.ones(1, 384)))
    folder = written(tmp_path / "head", head, POCKET, faults=["no gain"])
    with pytest.raises(CheckFailedError, match="no gain"):
        command("verify", folder)
    assert "faults: ['no gain']" in capsys.readouterr().out


def test_the_nearest_tokens_of_a_prompt_of_tokens_are_those(static: Path, capsys):
    command("show", static, "--k", "2", "--json")
    rows = json.loads(capsys.readouterr().out)
    assert [row[0] for row in rows] == [["paris", 1.0], ["london", 1.0]]
    command("show", static)
    assert "paris 1.00" in capsys.readouterr().out


def test_attention_is_drawn_for_dependent_prompts_alone(static: Path, tmp_path: Path, capsys):
    config = GeneratorConfig(384, 384, n_queries=3, width=16, heads=2, inner=16)
    torch.manual_seed(0)
    module = CrossAttentionGenerator(config, reader_norm=1.0)
    encoder = InputEncoder(resolve_model("pocket/minilm"))
    head = DependentHead(module, encoder, reads="question")
    folder = written(tmp_path / "dependent", head, POCKET)
    command("attention", folder, "who discovered radium", "--out", tmp_path / "seen.svg")
    drawn = (tmp_path / "seen.svg").read_text()
    assert "<svg" in drawn
    assert "radium" in drawn
    command("attention", folder, "who discovered radium", "--out", tmp_path / "seen.png")
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="is static"):
        command("attention", static, "who", "--out", tmp_path / "x.svg")
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        command("attention", folder, "who", "--out", tmp_path / "x.gif")


def test_a_prompt_goes_to_peft_and_comes_back_the_same(static: Path, tmp_path: Path, capsys):
    settings = CausalReader(kind="causal", model=str(save_llama(tmp_path / "llama")))
    vectors = torch.randn(3, 32)
    folder = written(tmp_path / "head", StaticHead(SoftPrompt(vectors)), settings)
    command("export", folder, tmp_path / "adapter")
    command("import", tmp_path / "adapter", tmp_path / "back", "--model", tmp_path / "llama")
    assert "3 vectors" in capsys.readouterr().out
    command("show", tmp_path / "back", "--json")
    one = (tmp_path / "back" / "head.safetensors").read_bytes()
    assert one == (folder / "head.safetensors").read_bytes()
    with pytest.raises(InputError, match="for pocket/reader"):
        command("export", static, tmp_path / "other")
