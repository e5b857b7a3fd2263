"""Input-dependent soft prompts, ID-PT (Levine et al. 2022, arXiv 2204.10019, section 2.1).

A frozen encoder reads the input, together with learned vectors where the recipe wants them;
trained cross-attention turns its states, of any number, into a fixed number of vectors; a trained
projection maps them into the reader's embedding space. Sizes, norms and the form of the blocks are
not public; here they are pre-norm blocks with residuals and a narrow width (the bottleneck that
keeps the trained part small), and the output has the norm of the reader's embeddings.

Modules for training and inference alike; they know tensors only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rag_frozen.errors import InputError

__all__ = ["CrossAttentionGenerator", "GeneratorConfig"]


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Sizes of a generator.

    ``encoder_width`` and ``reader_width`` are those of the frozen models; ``n_queries`` dependent
    vectors and ``n_static`` static ones stand side by side, the static ones first; ``width`` is
    the bottleneck; ``encoder_prompt`` vectors are learned to be read by the encoder before its
    input (0 for none, so that its states can be shared).
    """

    encoder_width: int
    reader_width: int
    n_queries: int = 20
    n_static: int = 0
    width: int = 128
    depth: int = 2
    heads: int = 4
    inner: int = 256
    encoder_prompt: int = 0

    def __post_init__(self) -> None:
        if self.n_queries < 1 or self.n_static < 0 or self.encoder_prompt < 0 or self.depth < 1:
            raise InputError(
                f"A generator needs at least one query ({self.n_queries}) and one block "
                f"({self.depth}); the other counts must not be negative."
            )
        if self.width % self.heads:
            raise InputError(
                f"The generator's width ({self.width}) must be a multiple of its heads "
                f"({self.heads})."
            )

    def to_dict(self) -> dict[str, int]:
        """The settings as plain JSON values."""
        return asdict(self)


class _Block(nn.Module):
    """Queries look at the states, then pass a feed-forward layer; pre-norm, with residuals."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.inner_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, config.inner)
        self.outer = nn.Linear(config.inner, width)

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        rows, n_queries, width = queries.shape
        head = width // self.heads
        query = self.query(self.query_norm(queries)).view(rows, n_queries, self.heads, head)
        key, value = self.key_value(states).view(rows, -1, 2, self.heads, head).unbind(dim=2)
        scores = torch.einsum("bqhd,bthd->bhqt", query, key) / head**0.5
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
        attended = torch.einsum("bhqt,bthd->bqhd", weights, value).reshape(rows, n_queries, width)
        queries = queries + self.output(attended)
        inner = functional.gelu(self.inner(self.inner_norm(queries)))
        return queries + self.outer(inner), weights


class CrossAttentionGenerator(nn.Module):
    """From an encoder's states to soft prompts."""

    reader_norm: Tensor

    def __init__(
        self, config: GeneratorConfig, *, reader_norm: float, static: Tensor | None = None
    ) -> None:
        """Set up; the caller seeds torch.

        Args:
            config: sizes.
            reader_norm: mean Euclidean norm of the reader's word embeddings; the dependent vectors
                begin with it.
            static: ``[n_static, E]`` to begin the static part with.

        Raises:
            InputError: when ``static`` does not have the configured shape.
        """
        super().__init__()
        self.config = config
        width = config.width
        wanted = (config.n_static, config.reader_width)
        if static is None:
            static = torch.zeros(wanted)
        if tuple(static.shape) != wanted:
            raise InputError(
                f"The static part has shape {tuple(static.shape)}, the recipe says {wanted}."
            )
        self.encoder_prompt = nn.Parameter(
            torch.randn(config.encoder_prompt, config.encoder_width) * 0.02
        )
        self.static = nn.Parameter(static.detach().clone().float())
        self.states_norm = nn.LayerNorm(config.encoder_width)
        self.states_in = nn.Linear(config.encoder_width, width)
        self.queries = nn.Parameter(torch.randn(config.n_queries, width) * width**-0.5)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.out_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.reader_width)
        self.log_gain = nn.Parameter(torch.zeros(()))
        self.register_buffer("reader_norm", torch.tensor(float(reader_norm)))

    @property
    def length(self) -> int:
        """Number of vectors, static and dependent, P."""
        return self.config.n_static + self.config.n_queries

    @property
    def width(self) -> int:
        """Width of the vectors, E."""
        return self.config.reader_width

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Make soft prompts.

        Args:
            states: ``[B, T, H]`` of the encoder (over its learned vectors too, where it has them).
            mask: ``[B, T]``, true at real positions; at least one a row.

        Returns:
            ``[B, P, E]``.
        """
        return self.with_attention(states, mask)[0]

    def with_attention(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Make soft prompts, and say what each dependent vector looked at.

        Returns:
            ``[B, P, E]`` and ``[B, depth, heads, n_queries, T]``; the weights sum to 1 over T.
        """
        keys = self.states_in(self.states_norm(states.to(self.queries.dtype)))
        queries = self.queries.expand(states.shape[0], -1, -1)
        looked = []
        for block in self.blocks:
            queries, weights = block(queries, keys, mask)
            looked.append(weights)
        made = self.projection(self.out_norm(queries)).float()
        norm = self.reader_norm * torch.exp(self.log_gain)
        dependent = functional.normalize(made, dim=-1) * norm
        static = self.static.expand(states.shape[0], -1, -1)
        return torch.cat([static, dependent], dim=1), torch.stack(looked, dim=1)
