"""Load a trained prompt for a reader in memory, with the encoder that it reads with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, ArtifactMissingError
from rag_frozen.models.source import resolve_model
from rag_frozen.models.state_memory import StateMemory
from rag_frozen.prompting.heads import Head, load_head, read_record
from rag_frozen.prompting.input_encoder import InputEncoder

__all__ = ["ShareStates", "check_prompt", "check_proof", "load_prompt"]

ShareStates = Callable[[str, StateMemory], bool]
"""Given an encoder's digest and a memory: whether the retriever will fill the memory."""

_PROOF = "proof.json"


def load_prompt(
    folder: Path,
    *,
    reader_digest: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    share_states: ShareStates | None = None,
    accept_unproven: bool = False,
) -> Head:
    """Load a head.

    Args:
        folder: of the head.
        reader_digest: of the reader that it will condition.
        device, dtype: of the encoder of an input-dependent one.
        share_states: asks the dense retriever to hand over the states of questions that it
            encodes with the same model.
        accept_unproven: take a prompt whose proof failed.

    Raises:
        ArtifactError: when it cannot be read, belongs to another reader, or is not proven.
        ModelError: when its encoder is not at hand.
    """
    if not accept_unproven:
        check_proof(folder)
    record = read_record(folder)
    if record.kind == "static" or record.reader_digest != reader_digest:
        return load_head(folder, reader_digest=reader_digest, device=device)
    encoder = InputEncoder(
        resolve_model(record.encoder or ""),
        device=device,
        dtype=dtype,
        max_tokens=record.max_tokens or 256,
    )
    learned = (record.generator or {}).get("encoder_prompt", 0)
    if share_states is not None and record.reads == "question" and not learned:
        memory = StateMemory()
        if share_states(encoder.digest, memory):
            encoder.memory = memory
    return load_head(folder, reader_digest=reader_digest, encoder=encoder, device=device)


def check_prompt(folder: Path, *, accept_unproven: bool = False) -> None:
    """Refuse a folder without a prompt, or with one whose proof failed, before anything is loaded.

    Raises:
        ArtifactError: as :func:`load_prompt` would, as far as it can be told without the reader.
    """
    if not accept_unproven:
        check_proof(folder)
    read_record(folder)


def check_proof(folder: Path) -> None:
    """Refuse a head whose training could not prove it; one without a proof (imported) passes.

    Raises:
        ArtifactMismatchError: when the proof names faults.
        ArtifactDamagedError: when it cannot be read.
    """
    try:
        faults = json.loads((folder / _PROOF).read_text(encoding="utf-8"))["faults"]
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise ArtifactMissingError(
            f"{folder} is a file, not the folder of a trained prompt. Name the folder that "
            "rag-frozen train printed."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactDamagedError(
            f"{_PROOF} of the prompt in {folder} cannot be read: {error}. Train it again."
        ) from error
    if faults:
        raise ArtifactMismatchError(
            f"The prompt in {folder} is not proven: {'; '.join(faults)}. Train it otherwise, or "
            "use it all the same with: --set prompt.accept_unproven=true"
        )
