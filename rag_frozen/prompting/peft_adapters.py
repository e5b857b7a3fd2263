"""Import from and export to PEFT's prompt-tuning adapters.

PEFT keeps ``prompt_embeddings: [P, E]`` in ``adapter_model.safetensors`` and its settings in
``adapter_config.json``. For an encoder-decoder it counts virtual tokens for both transformers;
only one is used here, that of the encoder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rag_frozen.artifacts.storage import make_folder, storage_errors
from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.prompting.soft_prompt import SoftPrompt

__all__ = ["export_peft", "import_peft"]

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_KEY = "prompt_embeddings"


def export_peft(
    prompt: SoftPrompt,
    folder: Path,
    *,
    base_model: str,
    task: Literal["CAUSAL_LM", "SEQ_2_SEQ_LM"],
    layers: int,
    heads: int,
) -> None:
    """Write a static prompt as an adapter that ``PeftModel.from_pretrained`` loads.

    Args:
        prompt: what was trained.
        folder: made when missing; an adapter in it is refused.
        base_model: name or path of the frozen model.
        task: of it.
        layers, heads: of its transformer, which PEFT records.

    Raises:
        InputError: when the folder holds an adapter already, or is a file.
        StorageError: when it cannot be written.
    """
    if (folder / _CONFIG).exists():
        raise InputError(f"{folder} holds an adapter already; name a new folder.")
    if folder.is_file():
        raise InputError(f"{folder} is a file; name a new folder for the adapter.")
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": task,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "num_virtual_tokens": prompt.length,
        "token_dim": prompt.width,
        "num_transformer_submodules": 1,
        "num_attention_heads": heads,
        "num_layers": layers,
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_name_or_path": None,
    }
    vectors = prompt.vectors.detach().cpu().contiguous()
    with storage_errors(folder):
        make_folder(folder)
        save_file({_KEY: vectors}, str(folder / _WEIGHTS), metadata={"format": "pt"})
        (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def import_peft(folder: Path, *, width: int) -> SoftPrompt:
    """Read a prompt-tuning adapter.

    Args:
        folder: of the adapter.
        width: E, of the reader that it is for.

    Raises:
        DataFormatError: when it is another kind of adapter, or of another width.
        InputError: when it cannot be read.
    """
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / _WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{folder} holds no adapter that can be read: {error}. It needs {_CONFIG} and "
            f"{_WEIGHTS}."
        ) from error
    kind = config.get("peft_type")
    if kind != "PROMPT_TUNING" or _KEY not in tensors:
        raise DataFormatError(
            f"The adapter in {folder} is of type {kind}; prompt-tuning adapters alone are read."
        )
    vectors: torch.Tensor = tensors[_KEY]
    wanted = int(config.get("num_virtual_tokens", len(vectors)))
    if vectors.dim() != 2 or vectors.shape[1] != width or len(vectors) < wanted:
        raise DataFormatError(
            f"The adapter in {folder} has vectors of shape {tuple(vectors.shape)}; this reader "
            f"needs width {width} and the adapter's settings say {wanted} vectors."
        )
    return SoftPrompt(vectors[:wanted])
