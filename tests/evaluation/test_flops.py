"""Operations counted from a model's sizes are those that torch counts while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rag_frozen.evaluation.flops import generation_flops, reading_flops, text_model
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.decoding import Decoding, decode
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.reader.prefix_lm_weights import load_prefix_lm
from tests.tiny import save_bart, save_bert, save_gpt2, save_llama, save_t5

SOURCE, WRITTEN = 23, 6


def counted(run: Callable[[], object]) -> int:
    """What torch counts; its fused attention is taken apart, whose CPU form it does not know."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return int(counter.get_total_flops())


def written_by(model: PrefixLM, *, prompt: int = 0) -> int:
    """Count one answer of ``WRITTEN`` tokens after ``SOURCE``, ``prompt`` vectors among them."""
    vectors = torch.randn(1, prompt, model.config.hidden_size) if prompt else None
    ids = list(range(5, 5 + SOURCE - prompt))
    end = model.config.vocab_size  # never written
    found: list[int] = []

    def run() -> None:
        decoded = decode(
            model, [ids], decoding=Decoding(max_new_tokens=WRITTEN), start_id=1, end_id=end,
            pad_id=0, soft_prompt=vectors,
        )  # fmt: skip
        found.append(len(decoded[0].token_ids))

    total = counted(run)
    assert found == [WRITTEN]
    return total


def test_a_small_prefix_language_model_costs_what_torch_counts():
    torch.manual_seed(0)
    model = PrefixLM(PrefixLMConfig(90, 32, 3, 4, 48, 64)).eval()
    sizes = text_model(model)
    assert sizes is not None
    assert generation_flops(sizes, SOURCE, WRITTEN) == written_by(model)
    assert generation_flops(sizes, SOURCE, WRITTEN) == written_by(model, prompt=4)


def test_the_pocket_reader_costs_what_torch_counts():
    model = load_prefix_lm(resolve_model("pocket/reader").path, resolve_model("pocket/minilm").path)
    sizes = text_model(model.eval())
    assert sizes is not None
    assert generation_flops(sizes, SOURCE, WRITTEN) == written_by(model)
    attention = 4 * sizes.reader.layers * sizes.reader.attention * SOURCE**2
    assert attention < 0.01 * generation_flops(sizes, SOURCE, WRITTEN)


@pytest.mark.parametrize("save", [save_llama, save_gpt2, save_t5, save_bart])
def test_models_of_transformers_cost_what_torch_counts(tmp_path: Path, save: Any):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if save in (save_t5, save_bart) else AutoModelForCausalLM
    model = auto.from_pretrained(save(tmp_path)).eval()
    ids = torch.arange(5, 5 + SOURCE)[None]

    def run() -> None:
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1,
                min_new_tokens=WRITTEN, max_new_tokens=WRITTEN,
            )  # fmt: skip

    sizes = text_model(model)
    assert sizes is not None
    assert generation_flops(sizes, SOURCE, WRITTEN) == pytest.approx(counted(run), rel=1e-6)


@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification"])
def test_encoders_and_cross_encoders_cost_what_torch_counts(tmp_path: Path, kind: str):
    import transformers

    model = getattr(transformers, kind).from_pretrained(save_bert(tmp_path, kind=kind)).eval()
    ids = torch.arange(5, 5 + SOURCE).expand(3, -1)
    sizes = text_model(model)
    assert sizes is not None
    found = counted(lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)))
    assert reading_flops(sizes.reader, SOURCE, texts=3) == found


def test_a_model_of_unknown_form_has_no_count():
    assert text_model(nn.Linear(3, 4)) is None
