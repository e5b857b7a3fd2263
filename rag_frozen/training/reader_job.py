"""The training of a pocket reader, or pocket language model, as a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from rag_frozen.artifacts import MANIFEST_NAME, load_manifest
from rag_frozen.errors import RecipeError
from rag_frozen.models.device import choose_device, choose_dtype
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.source import resolve_model
from rag_frozen.reader.prefix_lm import PrefixLM, PrefixLMConfig
from rag_frozen.reader.prefix_lm_weights import (
    averaged,
    begin_from_minilm,
    deepened,
    load_prefix_lm,
    save_trained,
)
from rag_frozen.training.job import Begun, Job, data_hashes, named_inputs
from rag_frozen.training.processes import ALONE, Share
from rag_frozen.training.reader_task import ReaderTask
from rag_frozen.training.settings import ReaderTraining
from rag_frozen.training.sources import load_reading_data

__all__ = ["reader_job"]


def reader_job(settings: ReaderTraining, *, share: Share = ALONE) -> Job:
    """Name the recipe's inputs; models and data are loaded when the job begins, in each of the
    processes that share it.

    Raises:
        RecipeError: when a model that it begins from, or its teacher, held other rows out.
    """
    encoder = resolve_model(settings.encoder).path
    _refuse_other_split(settings)
    recipe, inputs = named_inputs(settings)
    for choice in ("layers", "distillation", "dropout", "validation_min_new_tokens"):
        if not recipe[choice]:
            recipe.pop(choice)  # a recipe without it is the same as before there was a choice
    if recipe["data"]["split_seed"] is None:
        recipe["data"].pop("split_seed")
    if not recipe["mixture"]["substitute"]:
        recipe["mixture"].pop("substitute")
    if settings.distillation is not None:
        inputs["teacher"] = folder_digest(resolve_model(settings.distillation.teacher).path)
        recipe["distillation"]["teacher"] = "teacher"
    data = settings.data
    sources = [*data.reading, *filter(None, (data.yes_no, data.closed_book))]
    inputs |= data_hashes(data.path, data.passages, sources)
    return Job(settings, recipe, inputs, lambda home: _begin(settings, encoder, share))


def _begin(settings: ReaderTraining, encoder: Path, share: Share) -> Begun:
    device = share.device or choose_device()
    model = _model(settings, encoder)
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    data, validation = load_reading_data(settings)
    bf16 = choose_dtype(device) is torch.bfloat16
    teacher = _teacher(settings, encoder)
    task = ReaderTask(
        model,
        tokenizer,
        settings,
        data=data,
        validation=validation,
        bf16=bf16,
        device=device,
        teacher=teacher,
        share=share,
    )

    def write(folder: Path) -> None:
        model.eval()
        save_trained(model, folder, int8=settings.int8, difference_to=settings.difference_to)
        task.model = load_prefix_lm(folder, encoder).to(device)

    frozen = {"word_embeddings": {"words": model.word_embeddings.weight}}
    if teacher is not None:
        frozen["teacher"] = teacher.state_dict()
    return Begun(task, frozen, write, validate_first=not settings.examples)


def _refuse_other_split(settings: ReaderTraining) -> None:
    """A start or teacher that learned this training's held-out rows would make its metrics, and
    what is chosen by them, too good."""
    start = settings.start_from
    names = [start] if isinstance(start, str) else [*(start or ())]
    if settings.distillation is not None:
        names.append(settings.distillation.teacher)
    ours = _split(settings.model_dump(mode="json"))
    for name in names:
        folder = resolve_model(name).path
        if not (folder / MANIFEST_NAME).is_file():
            continue
        recipe = load_manifest(folder).recipe
        if recipe.get("kind") != settings.kind:
            continue
        theirs = _split(recipe)
        same_sources = all(theirs[key] == ours[key] for key in _SOURCES)
        if same_sources and theirs != ours:
            differing = {key: value for key, value in theirs.items() if value != ours[key]}
            raise RecipeError(
                f"{name} was trained with other rows held out, so it may have learned those that "
                "this training is validated on. Hold out the same: "
                + " ".join(f"--set data.{key}={value}" for key, value in differing.items())
            )


_SOURCES = ("titles_of", "validation_source")


def _split(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which rows a recipe (JSON) holds out."""
    data = recipe["data"]
    seed = data.get("split_seed")
    return {
        "titles_of": data["reading"][0]["name"],
        "validation_source": data["validation_source"],
        "validation_titles": data["validation_titles"],
        "validation_rows": data["validation_rows"],
        "split_seed": recipe["seed"] if seed is None else seed,
    }


def _model(settings: ReaderTraining, encoder: Path) -> PrefixLM:
    """The model to train: the encoder's layers, or one that was trained before."""
    start = settings.start_from
    if start is None:
        config = PrefixLMConfig(max_position_embeddings=settings.max_position_embeddings)
        n_layers = settings.layers or config.num_hidden_layers
        first = replace(config, num_hidden_layers=min(n_layers, config.num_hidden_layers))
        return deepened(begin_from_minilm(encoder, first), n_layers)
    names = (start,) if isinstance(start, str) else start
    model = averaged([load_prefix_lm(resolve_model(name).path, encoder) for name in names])
    found = model.config.max_position_embeddings
    if found != settings.max_position_embeddings:
        raise RecipeError(
            f"{settings.start_from} has {found} positions, the recipe says "
            f"{settings.max_position_embeddings}. Set max_position_embeddings: {found}."
        )
    found = model.config.num_hidden_layers
    if settings.layers is not None and settings.layers < found:
        raise RecipeError(
            f"{settings.start_from} has {found} layers, the recipe says {settings.layers}. Leave "
            "layers out, or train the start with them."
        )
    model = deepened(model, settings.layers or found)
    model.requires_grad_(True)
    model.word_embeddings.requires_grad_(False)
    return model.train()


def _teacher(settings: ReaderTraining, encoder: Path) -> PrefixLM | None:
    if settings.distillation is None:
        return None
    teacher = load_prefix_lm(resolve_model(settings.distillation.teacher).path, encoder)
    return teacher.requires_grad_(False).eval()
