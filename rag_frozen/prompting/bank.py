"""Several prompts over one frozen reader in memory; each context of a batch may carry its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rag_frozen.errors import InputError
from rag_frozen.prompting.heads import Head
from rag_frozen.prompting.inject import SoftPrompts
from rag_frozen.protocols import PromptGenerator
from rag_frozen.types import Context

__all__ = ["PromptBank"]


class PromptBank:
    """Prompts by name; implements ``protocols.PromptGenerator``.

    A context is conditioned by the prompt that its ``soft_prompt`` names, else by the bank's
    ``default``, else by none. Prompts of any length and kind stand in one batch.
    """

    def __init__(self, width: int, *, load: Callable[[Path], Head] | None = None) -> None:
        """Begin empty.

        Args:
            width: E, of the reader's embeddings.
            load: reads a folder for this reader, and refuses a prompt of another.
        """
        self._width = width
        self._load = load
        self._prompts: dict[str, PromptGenerator] = {}
        self.default: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The prompts at hand, sorted."""
        return tuple(sorted(self._prompts))

    @property
    def length(self) -> int:
        """The longest prompt's number of vectors; 0 without any."""
        return max((prompt.length for prompt in self._prompts.values()), default=0)

    def add(
        self, name: str, prompt: PromptGenerator | Path | str, *, default: bool = False
    ) -> None:
        """Take a prompt, or load one from its folder; a name that is there is refused.

        Raises:
            InputError: when the name is taken, or this bank cannot load folders.
            ArtifactError: when the folder holds no prompt for this reader.
        """
        if name in self._prompts:
            raise InputError(f"A prompt {name!r} is loaded already. Drop it first.")
        if isinstance(prompt, Path | str):
            if self._load is None:
                raise InputError("This bank was made without a reader to load prompts for.")
            prompt = self._load(Path(prompt))
        self._prompts[name] = prompt
        if default:
            self.default = name

    def drop(self, name: str) -> None:
        """Forget a prompt.

        Raises:
            InputError: when there is none of that name.
        """
        self._find(name)
        del self._prompts[name]
        if self.default == name:
            self.default = None

    def get(self, name: str) -> PromptGenerator:
        """Return a prompt.

        Raises:
            InputError: when there is none of that name.
        """
        return self._find(name)

    def generate(self, contexts: Sequence[Context]) -> SoftPrompts:
        """Return the soft prompts of a batch, each row's own."""
        rows_of: dict[str, list[int]] = {}
        for row, context in enumerate(contexts):
            name = context.soft_prompt or self.default
            if name is not None:
                rows_of.setdefault(name, []).append(row)
        made: list[tuple[list[int], Tensor]] = []
        for name, rows in rows_of.items():
            vectors = self._find(name).generate([contexts[row] for row in rows])
            if isinstance(vectors, SoftPrompts):
                raise InputError(f"The prompt {name!r} is itself a bank; add its prompts instead.")
            made.append((rows, vectors))
        longest = max((vectors.shape[1] for _, vectors in made), default=0)
        device = made[0][1].device if made else None
        joined = torch.zeros((len(contexts), longest, self._width), device=device)
        lengths = torch.zeros(len(contexts), dtype=torch.long, device=device)
        for rows, vectors in made:
            joined[rows, : vectors.shape[1]] = vectors.float()
            lengths[rows] = vectors.shape[1]
        return SoftPrompts(joined, lengths)

    def _find(self, name: str) -> PromptGenerator:
        try:
            return self._prompts[name]
        except KeyError as error:
            known = ", ".join(self.names) or "none"
            raise InputError(f"No prompt {name!r} is loaded (loaded: {known}).") from error
