"""PEFT's prompt tuning and ours give equal logits, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.prompting.inject import prepend_to_left_padded, prepend_to_right_padded
from rag_frozen.prompting.peft_adapters import export_peft, import_peft
from rag_frozen.prompting.soft_prompt import SoftPrompt
from tests.tiny import save_gpt2, save_llama, save_t5

peft = pytest.importorskip("peft", reason="peft is not installed (extra dev)")
IDS = torch.tensor([[9, 12, 15, 20], [30, 31, 32, 33]])


@torch.inference_mode()
def our_logits(model: torch.nn.Module, prompt: SoftPrompt) -> torch.Tensor:
    embeds, mask = prepend_to_left_padded(
        prompt(len(IDS)), model.get_input_embeddings()(IDS), torch.ones_like(IDS)
    )
    logits: torch.Tensor = model(inputs_embeds=embeds, attention_mask=mask).logits
    return logits


@pytest.mark.parametrize("save", [save_llama, save_gpt2])
def test_an_exported_prompt_gives_the_same_logits_in_peft(tmp_path: Path, save):
    from transformers import AutoModelForCausalLM

    base = save(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    torch.manual_seed(0)
    prompt = SoftPrompt(torch.randn(5, 32))
    export_peft(
        prompt, tmp_path / "adapter", base_model=str(base), task="CAUSAL_LM", layers=2, heads=4
    )
    ours = our_logits(model, prompt)
    theirs = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter")).eval()
    with torch.inference_mode():
        logits = theirs(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    assert torch.allclose(logits, ours, atol=1e-5)
    assert float((ours[:, 5:] - model(input_ids=IDS).logits).abs().max()) > 1e-2


def test_an_adapter_that_peft_made_gives_the_same_logits_here(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    base = save_llama(tmp_path / "base")
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    torch.manual_seed(1)
    tuned = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    with torch.inference_mode():
        theirs = tuned(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    prompt = import_peft(tmp_path / "adapter", width=32)
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    assert prompt.length == 4
    assert torch.allclose(our_logits(plain, prompt), theirs, atol=1e-5)


@pytest.mark.parametrize("submodules", [1, 2])
def test_prompts_of_an_encoder_decoder_go_both_ways_with_equal_logits(
    tmp_path: Path, submodules: int
):
    from transformers import AutoModelForSeq2SeqLM

    base = save_t5(tmp_path / "base")
    answer = torch.tensor([[0, 5, 6], [0, 7, 8]])
    plain = AutoModelForSeq2SeqLM.from_pretrained(base).eval()

    def ours(prompt: SoftPrompt) -> torch.Tensor:
        embeds = plain.get_input_embeddings()(IDS)
        joined, lengths = prepend_to_right_padded(prompt(2), embeds, torch.tensor([4, 4]))
        assert lengths.tolist() == [4 + prompt.length] * 2
        with torch.inference_mode():
            mask = torch.ones(joined.shape[:2], dtype=torch.long)
            logits: torch.Tensor = plain(
                inputs_embeds=joined, attention_mask=mask, decoder_input_ids=answer
            ).logits
        return logits

    def theirs(tuned: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = tuned(
                input_ids=IDS, attention_mask=torch.ones_like(IDS), decoder_input_ids=answer
            ).logits
        return logits

    settings = peft.PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4, num_transformer_submodules=submodules
    )
    torch.manual_seed(1)
    fresh = AutoModelForSeq2SeqLM.from_pretrained(base)
    made = peft.get_peft_model(fresh, settings).eval()
    made.save_pretrained(tmp_path / "theirs")
    prompt = import_peft(tmp_path / "theirs", width=32)
    assert prompt.length == 4
    assert torch.allclose(ours(prompt), theirs(made), atol=1e-5)
    export_peft(
        prompt, tmp_path / "ours", base_model=str(base), task="SEQ_2_SEQ_LM", layers=2, heads=4
    )
    again = AutoModelForSeq2SeqLM.from_pretrained(base)
    back = peft.PeftModel.from_pretrained(again, str(tmp_path / "ours")).eval()
    assert torch.allclose(theirs(back), ours(prompt), atol=1e-5)
    without = plain(input_ids=IDS, decoder_input_ids=answer).logits
    assert float((ours(prompt) - without).detach().abs().max()) > 1e-2


def test_other_adapters_and_widths_are_refused(tmp_path: Path):
    prompt = SoftPrompt(torch.randn(3, 8))
    export_peft(prompt, tmp_path, base_model="b", task="SEQ_2_SEQ_LM", layers=2, heads=4)
    assert torch.equal(import_peft(tmp_path, width=8).vectors, prompt.vectors)
    with pytest.raises(InputError, match="holds an adapter already"):
        export_peft(prompt, tmp_path, base_model="b", task="CAUSAL_LM", layers=2, heads=4)
    with pytest.raises(DataFormatError, match="needs width 16"):
        import_peft(tmp_path, width=16)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LORA"}))
    with pytest.raises(DataFormatError, match="of type LORA"):
        import_peft(tmp_path, width=8)
    with pytest.raises(InputError, match="no adapter that can be read"):
        import_peft(tmp_path / "none", width=8)
