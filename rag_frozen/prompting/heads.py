"""Trained prompts as generators over one frozen reader, written and read as artifacts.

A head is what was trained beside a reader: a static soft prompt or an input-dependent generator.
Its folder holds ``head.safetensors``, ``head.json`` and, written by a training, ``manifest.json``;
``head.json`` names the digest of the reader it was trained for (and of the encoder that it reads
with), and no other is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rag_frozen.errors import ArtifactDamagedError, ArtifactMismatchError, ArtifactMissingError
from rag_frozen.prompting.generator import CrossAttentionGenerator, GeneratorConfig
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.prompting.soft_prompt import SoftPrompt
from rag_frozen.types import Context

__all__ = [
    "DependentHead",
    "Head",
    "HeadRecord",
    "Reads",
    "StaticHead",
    "load_head",
    "read_record",
    "save_head",
]

Reads = Literal["question", "context"]
"""What an input-dependent head's encoder reads: the question, or the whole prompt."""

_WEIGHTS = "head.safetensors"
_RECORD = "head.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class HeadRecord:
    """What a head is and what it belongs to.

    ``kind`` is static or input-dependent; ``reader`` and ``reader_digest`` name the frozen model;
    ``encoder``, ``encoder_digest``, ``reads``, ``max_tokens`` and ``generator`` are those of an
    input-dependent head; ``notes`` is free text for people.
    """

    kind: Literal["static", "input-dependent"]
    reader: str
    reader_digest: str
    length: int
    width: int
    encoder: str | None = None
    encoder_digest: str | None = None
    reads: Reads | None = None
    max_tokens: int | None = None
    generator: dict[str, int] | None = None
    notes: str = ""


class StaticHead:
    """A static soft prompt; implements ``protocols.PromptGenerator``."""

    def __init__(self, module: SoftPrompt) -> None:
        self.module = module

    @property
    def length(self) -> int:
        """Number of vectors, P."""
        return self.module.length

    def vectors(self, contexts: Sequence[Context]) -> Tensor:
        """``[B, P, E]``, with gradients."""
        made: Tensor = self.module(len(contexts))
        return made

    @torch.inference_mode()
    def generate(self, contexts: Sequence[Context]) -> Tensor:
        """Return ``[B, P, E]``."""
        return self.vectors(contexts)


class DependentHead:
    """An input-dependent generator and the frozen encoder that reads for it."""

    def __init__(
        self, module: CrossAttentionGenerator, encoder: InputEncoder, *, reads: Reads
    ) -> None:
        """Put the two together.

        Raises:
            ArtifactMismatchError: when their widths differ.
        """
        if module.config.encoder_width != encoder.width:
            raise ArtifactMismatchError(
                f"The generator reads states of {module.config.encoder_width}, {encoder.name} has "
                f"{encoder.width}. Name the encoder that it was trained with."
            )
        self.module = module
        self.encoder = encoder
        self.reads: Reads = reads

    @property
    def length(self) -> int:
        """Number of vectors, P."""
        return self.module.length

    def vectors(self, contexts: Sequence[Context]) -> Tensor:
        """``[B, P, E]``, with gradients to the trained part."""
        made: Tensor = self.module(*self._states(contexts))
        return made

    @torch.inference_mode()
    def generate(self, contexts: Sequence[Context]) -> Tensor:
        """Return ``[B, P, E]``."""
        return self.vectors(contexts)

    @torch.inference_mode()
    def attention(self, context: Context) -> tuple[list[str], Tensor]:
        """What the dependent vectors of one context look at.

        Returns:
            The encoder's tokens (learned vectors named ``[1]``, ``[2]`` ... in front) and
            ``[depth, heads, n_queries, T]``.
        """
        states, mask = self._states([context])
        _, weights = self.module.with_attention(states, mask)
        learned = [f"[{n}]" for n in range(1, self.module.config.encoder_prompt + 1)]
        return [*learned, *self.encoder.tokens(self._text(context))], weights[0]

    def _states(self, contexts: Sequence[Context]) -> tuple[Tensor, Tensor]:
        learned = self.module.encoder_prompt
        return self.encoder.states(
            [self._text(context) for context in contexts], learned if len(learned) else None
        )

    def _text(self, context: Context) -> str:
        return context.question.text if self.reads == "question" else context.prompt


Head = StaticHead | DependentHead


def save_head(
    folder: Path, head: Head, *, reader: str, reader_digest: str, notes: str = ""
) -> None:
    """Write a head into an existing folder.

    Args:
        folder: that of a draft; files of the same names are replaced.
        head: what was trained.
        reader: name of the frozen model.
        reader_digest: of its weights.
        notes: for people.
    """
    common = {"reader": reader, "reader_digest": reader_digest, "length": head.length}
    if isinstance(head, DependentHead):
        record: dict[str, Any] = {  # Any: JSON values
            "kind": "input-dependent",
            **common,
            "width": head.module.width,
            "encoder": head.encoder.name,
            "encoder_digest": head.encoder.digest,
            "reads": head.reads,
            "max_tokens": head.encoder.max_tokens,
            "generator": head.module.config.to_dict(),
        }
    else:
        record = {"kind": "static", **common, "width": head.module.width}
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in head.module.state_dict().items()
    }
    save_file(tensors, str(folder / _WEIGHTS))
    text = json.dumps({"format": _FORMAT, **record, "notes": notes}, indent=2) + "\n"
    (folder / _RECORD).write_text(text, encoding="utf-8")


def read_record(folder: Path) -> HeadRecord:
    """Read what a head's folder says about itself.

    Raises:
        ArtifactMissingError: when it is no such folder.
        ArtifactDamagedError: when it cannot be read.
    """
    try:
        values = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactMissingError(
            f"{folder} holds no trained prompt ({_RECORD} is missing). Name the folder that "
            "rag-frozen train printed."
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error)) from error
    version = values.pop("format", None) if isinstance(values, dict) else None
    if version != _FORMAT:
        raise _damaged(folder, f"its format is {version!r}, this version reads {_FORMAT}")
    try:
        return HeadRecord(**values)
    except TypeError as error:
        raise _damaged(folder, str(error)) from error


def load_head(
    folder: Path,
    *,
    reader_digest: str,
    encoder: InputEncoder | None = None,
    device: torch.device | str = "cpu",
) -> Head:
    """Load a head for a reader.

    Args:
        folder: of the head.
        reader_digest: of the frozen model that it will condition.
        encoder: that an input-dependent head reads with.
        device: where it runs.

    Raises:
        ArtifactMissingError, ArtifactDamagedError: when it cannot be read.
        ArtifactMismatchError: when it was trained for another reader, or with another encoder.
    """
    record = read_record(folder)
    if record.reader_digest != reader_digest:
        raise ArtifactMismatchError(
            f"The prompt in {folder} was trained for {record.reader} "
            f"({record.reader_digest[:16]}), the reader here has weights {reader_digest[:16]}. Use "
            "that reader, or train the prompt again for this one."
        )
    try:
        tensors = load_file(str(folder / _WEIGHTS))
        if record.kind == "static":
            static = StaticHead(SoftPrompt(tensors["vectors"]))
            static.module.to(device).eval().requires_grad_(False)
            return static
        config = GeneratorConfig(**(record.generator or {}))
        module = CrossAttentionGenerator(config, reader_norm=1.0)
        module.load_state_dict(tensors)
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, str(error).splitlines()[0]) from error
    if encoder is None or encoder.digest != record.encoder_digest:
        found = "none" if encoder is None else f"{encoder.name} ({encoder.digest[:16]})"
        raise ArtifactMismatchError(
            f"The prompt in {folder} reads with {record.encoder} "
            f"({(record.encoder_digest or '')[:16]}), given was {found}. Name that encoder."
        )
    module.to(device).eval().requires_grad_(False)
    return DependentHead(module, encoder, reads=record.reads or "question")


def _damaged(folder: Path, what: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(
        f"The prompt in {folder} cannot be read: {what}. Train it again, or copy it anew."
    )
