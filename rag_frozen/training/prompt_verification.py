"""Prove a trained prompt again: what ``rag-frozen prompts verify`` finds out.

Everything that needs no training data is done anew. The gain over the plain reader is measured
again where the data is given, else it is told as the training recorded it.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from rag_frozen.artifacts import load_manifest, verify
from rag_frozen.errors import InputError
from rag_frozen.evaluation.statistics import mcnemar_p
from rag_frozen.prompting.heads import DependentHead, Head, load_head, save_head
from rag_frozen.prompting.loading import load_prompt
from rag_frozen.prompting.proof import PromptProof, prove_head, time_head
from rag_frozen.reader.freezing import weights_digest
from rag_frozen.reader.make import make_reader
from rag_frozen.reader.prefix_reader import PrefixLMReader
from rag_frozen.reader.transformers_reader import TransformersReader
from rag_frozen.recipes.pipeline import ReaderSettings
from rag_frozen.training.prompt_data import load_prompt_rows
from rag_frozen.training.prompt_settings import PromptTraining
from rag_frozen.training.prompt_task import score_rows
from rag_frozen.types import Context, Question

__all__ = ["open_prompt", "verify_prompt"]

_PROBES = (
    "who wrote the origin of species",
    "how deep is lake baikal",
    "Which physicist discovered X-rays in 1895?",
    "what is the capital of france",
)
"""Questions on which log-probabilities are compared, closed book."""


def open_prompt(folder: Path) -> tuple[PrefixLMReader | TransformersReader, Head]:
    """Load the reader that a prompt's manifest names, and the prompt over it, proven or not.

    Raises:
        ArtifactError: when the folder holds no prompt for that reader.
        ModelError: when the reader is not at hand.
    """
    recipe = load_manifest(folder, kind="head").recipe
    adapter: TypeAdapter[Any] = TypeAdapter(ReaderSettings)  # Any: a union of settings
    reader = make_reader(adapter.validate_python(recipe["reader"]), dtype="float32")
    head = load_prompt(
        folder,
        reader_digest=reader.base_digest,
        device=reader.embedding_table.device,
        accept_unproven=True,
    )
    return reader, head


def verify_prompt(folder: Path, *, data: Path | None = None) -> dict[str, Any]:
    """Prove a prompt again.

    Args:
        folder: of the prompt.
        data: the folder below which the training's files lie (its ``data.path``); without it the
            gain is the recorded one, None for a prompt that was imported.

    Returns:
        What was found, as JSON values; ``faults`` says what is wrong, in words.

    Raises:
        ArtifactError: when the folder holds no prompt for its reader, or a file of it changed.
        InputError: when ``data`` is given for a prompt that was not trained here.
    """
    manifest = verify(folder, kind="head")
    reader, head = open_prompt(folder)
    contexts = [
        Context(Question(str(number), text), text, 0) for number, text in enumerate(_PROBES)
    ]
    answers = ["yes"] * len(contexts)
    with TemporaryDirectory() as scratch:
        save_head(Path(scratch), head, reader=reader.name, reader_digest=reader.base_digest)
        loaded = load_head(
            Path(scratch),
            reader_digest=reader.base_digest,
            encoder=head.encoder if isinstance(head, DependentHead) else None,
            device=reader.embedding_table.device,
        )
        difference, same, after = prove_head(reader, head, loaded, contexts, answers)
    without, with_it = time_head(reader, head, contexts, answers)
    recorded = _recorded(folder)
    gain = recorded if data is None else _gain(manifest.recipe, data, reader, head)
    proof = PromptProof(
        base_before=reader.digest,
        base_after=weights_digest(reader.model),
        largest_difference=difference,
        bitwise_after_loading=same,
        difference_after_loading=after,
        plain=gain.get("plain", 0.0),
        conditioned=gain.get("conditioned", 100.0),
        p=gain.get("p", 0.0),
        validation_rows=gain.get("validation_rows", 0),
    )
    faults = proof.faults()
    if data is None:
        faults += [fault for fault in recorded.get("faults", ()) if fault not in faults]
    shown = {name: gain[name] for name in ("plain", "conditioned", "p") if name in gain}
    return {
        "reader": reader.name,
        "reader_weights": reader.base_digest,
        "largest_difference_of_logprobs": difference,
        "bitwise_the_same_after_loading": same,
        "difference_after_loading": after,
        "trained_parameters": manifest.counts.get("trained_parameters"),
        "reader_parameters": manifest.counts.get("reader_parameters"),
        "milliseconds_plain": round(1_000 * without, 3),
        "milliseconds_added": round(1_000 * (with_it - without), 3),
        "exact_match_on_validation": shown or None,
        "measured_again": data is not None,
        "faults": faults,
    }


def _recorded(folder: Path) -> dict[str, Any]:
    """What the training proved; nothing for a prompt that was imported."""
    if not (folder / "proof.json").is_file():
        return {}
    found: dict[str, Any] = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
    return found


def _gain(
    recipe: dict[str, Any], data: Path, reader: PrefixLMReader | TransformersReader, head: Head
) -> dict[str, Any]:
    """Exact match without and with the prompt on the validation rows, and the paired test."""
    if recipe.get("kind") != "prompt":
        raise InputError(
            "This prompt was not trained here, so no validation rows belong to it. Verify it "
            "without --data."
        )
    settings = PromptTraining.model_validate(
        {**recipe, "data": {**recipe["data"], "path": str(data)}}
    )
    rows = load_prompt_rows(settings.data, template=settings.template, seed=settings.seed)
    plain, _ = score_rows(reader, None, rows.validation)
    matched, _ = score_rows(reader, head, rows.validation)
    return {
        "plain": 100 * sum(plain) / len(plain),
        "conditioned": 100 * sum(matched) / len(matched),
        "p": mcnemar_p(matched, plain),
        "validation_rows": len(plain),
    }
