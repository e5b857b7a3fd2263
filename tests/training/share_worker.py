"""What two processes check of each other; run by test_processes.py through torch.distributed.run.

Arguments: a folder with the world of rankings.py and with tiny encoders, one with a tiny reader
and rows, and one to train in.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from tokenizers import Tokenizer

from rag_frozen.models.lora import attach_lora
from rag_frozen.retrieval.minilm_adapter import begin_encoder
from rag_frozen.training.loop import run_loop
from rag_frozen.training.processes import ALONE, Share, join_processes
from rag_frozen.training.prompt_training import train_prompt
from rag_frozen.training.ranking_data import load_ranking_data
from rag_frozen.training.reranker_settings import RerankerTraining
from rag_frozen.training.reranker_task import RerankerTask
from rag_frozen.training.retriever_settings import RetrieverTraining
from rag_frozen.training.retriever_task import RetrieverTask
from rag_frozen.training.settings import OptimiserSettings
from tests.training.rankings import only_mined
from tests.training.test_prompt_training import settings as prompt_settings

STOPPING = {"metric": "exact_match", "patience": 2}
COMMON: dict[str, Any] = {"name": "tiny", "seed": 5, "examples": 48, "batch_size": 8}


def retriever(world: Path, share: Share) -> RetrieverTask:
    """A retriever's task with adapters that already do something."""
    settings = RetrieverTraining.model_validate(
        {**COMMON, "kind": "pocket-retriever", "data": only_mined(world)}
    )
    encoder, form = begin_encoder(world / "encoder")
    torch.manual_seed(3)
    attach_lora(encoder, rank=4, alpha=8.0)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return RetrieverTask(
        encoder, form, Tokenizer.from_file(str(world / "encoder" / "tokenizer.json")), settings,
        **parts(settings), share=share,
    )  # fmt: skip


def reranker(world: Path, share: Share) -> RerankerTask:
    """A reranker's task."""
    from transformers import BertForSequenceClassification

    settings = RerankerTraining.model_validate(
        {**COMMON, "kind": "pocket-reranker", "data": only_mined(world)}
    )
    classifier = BertForSequenceClassification.from_pretrained(world / "classifier")
    tokenizer = Tokenizer.from_file(str(world / "classifier" / "tokenizer.json"))
    return RerankerTask(classifier, tokenizer, settings, **parts(settings), share=share)


def parts(settings: RerankerTraining | RetrieverTraining) -> dict[str, Any]:
    """Rows and lists for a task."""
    sources, lists = load_ranking_data(settings.data, examples=48, seed=5)
    return {"sources": sources, "validation": lists, "bf16": False}


def gradients(task: RetrieverTask | RerankerTask, share: Share) -> dict[str, torch.Tensor]:
    """Of the first batch, averaged over the processes."""
    task.loss(task.batch(0)).backward()
    named = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
    share.average_gradients(named.values())
    return {n: p.grad for n, p in named.items() if p.grad is not None}


def train(task: RetrieverTask | RerankerTask, folder: Path, share: Share, told: list[int]) -> None:
    """Six steps in the loop."""
    run_loop(
        task, OptimiserSettings(learning_rate=1e-3, warmup_steps=1), checkpoints=folder,
        identity="one", batch_size=8, validate_every=3, checkpoint_every=2, validate_first=True,
        report=lambda progress: told.append(progress.step), share=share,
    )  # fmt: skip


def prompt(folder: Path, out: Path, share: Share) -> None:
    """A static prompt, and full tuning: trained by two, alike when one trains, and found again."""
    for head in ({"kind": "static", "length": 3}, {"kind": "full"}):
        wanted = prompt_settings(folder, head=head, early_stopping=STOPPING)
        done = train_prompt(wanted, out / "two", share=share)
        assert not done.reused or not share.is_main
        assert train_prompt(wanted, out / "two", share=share).reused
        alone = train_prompt(wanted, out / f"alone-{share.index}")
        curves = [
            json.loads((one.folder / "curves.json").read_text(encoding="utf-8"))["losses"]
            for one in (done, alone)
        ]
        assert len(curves[0]) == len(curves[1])
        for two, one in zip(*curves, strict=True):
            assert math.isclose(two["loss"], one["loss"], rel_tol=1e-3), (head, two, one)


def main(world: Path, prompts: Path, out: Path) -> None:
    """Compare shared gradients with whole ones, then weights after training and resuming."""
    share = join_processes()
    assert share.count == 2
    assert share.decided_by_main(share.is_main)
    assert not share.decided_by_main(not share.is_main)
    for make in (retriever, reranker):
        ours = gradients(make(world, share), share)
        whole = gradients(make(world, ALONE), ALONE) if make is reranker else None
        if whole is None:  # the loss gathers from all processes wherever there are several
            task = make(world, ALONE)
            task._loss.gather_across_devices = False
            whole = gradients(task, ALONE)
        for name, gradient in ours.items():
            assert torch.allclose(gradient, whole[name], rtol=1e-3, atol=1e-6), (make, name)
    task = reranker(world, share)
    told: list[int] = []
    train(task, out, share, told)
    assert told == ([3, 6] if share.is_main else [])
    for name, parameter in task.model.named_parameters():
        both = gather(parameter.detach()[None])
        assert torch.equal(both[0], both[1]), name
    again = reranker(world, share)
    train(again, out, share, told)  # finished: only restored
    for name, parameter in task.model.named_parameters():
        assert torch.equal(parameter, again.model.get_parameter(name)), name
    prompt(prompts, out / "prompts", share)
    if share.is_main:
        (out / "agreed").write_text("yes", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
