"""PEFT's prompt tuning and ours give equal logits, both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.prompting.inject import prepend_to_left_padded
from rag_frozen.prompting.peft_adapters import export_peft, import_peft
from rag_frozen.prompting.soft_prompt import SoftPrompt
from tests.tiny import save_gpt2, save_llama

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
