"""Write answers with a prefix language model: greedy, beam and sampled, in batches.

Sources are encoded once; each step runs only the newest answer token against the kept keys and
values. Rows of different lengths do not touch each other: padding is masked, and positions are
counted from each row's own end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rag_frozen.errors import InputError
from rag_frozen.prompting.inject import SoftPrompts, prepend_to_right_padded
from rag_frozen.reader.prefix_lm import LayerCache, PrefixLM
from rag_frozen.reader.quoting import QuotedAnswers, allow_quoted
from rag_frozen.reader.sampling import gumbel_noise

__all__ = ["Decoded", "Decoding", "decode"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are written.

    ``kind``: ``greedy``, ``beam`` (``n_beams``, the score is the log-probability divided by
    length to the power ``length_penalty``) or ``sample`` (``temperature`` > 0, ``top_p``).
    No answer ends before ``min_new_tokens`` tokens; 1 makes a reader say something. Its
    log-probability stays the model's own, as if the end had been allowed.
    """

    kind: Literal["greedy", "beam", "sample"] = "greedy"
    max_new_tokens: int = 24
    n_beams: int = 4
    length_penalty: float = 0.0
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.n_beams < 1:
            raise InputError(
                f"max_new_tokens ({self.max_new_tokens}) and n_beams ({self.n_beams}) must be at "
                "least 1"
            )
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise InputError(
                f"min_new_tokens ({self.min_new_tokens}) must lie between 0 and max_new_tokens "
                f"({self.max_new_tokens})"
            )
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise InputError(
                f"temperature ({self.temperature}) must be above 0 and top_p ({self.top_p}) in "
                "(0, 1]; for the likeliest answer use greedy"
            )


@dataclass(frozen=True, slots=True)
class Decoded:
    """Token ids without the end token, the sum of log-probabilities with it, and whether the
    answer ended by itself."""

    token_ids: tuple[int, ...]
    logprob: float
    ended: bool


@dataclass(slots=True)
class _State:
    """What is kept between steps: keys and values, which source keys are real, own positions."""

    caches: list[LayerCache]
    real: Tensor
    """``[R, S]`` booleans."""
    lengths: Tensor
    """``[R]`` source lengths, soft prompt included."""
    step: int = 0

    def take(self, rows: Tensor) -> None:
        """Keep the rows ``[R']``, in that order."""
        self.caches = [(keys[rows], values[rows]) for keys, values in self.caches]
        self.real, self.lengths = self.real[rows], self.lengths[rows]


@torch.inference_mode()
def decode(
    model: PrefixLM,
    sources: Sequence[Sequence[int]],
    *,
    decoding: Decoding,
    start_id: int,
    end_id: int,
    pad_id: int,
    soft_prompt: Tensor | SoftPrompts | None = None,
    seeds: Sequence[int] | None = None,
    quoted: Sequence[QuotedAnswers | None] | None = None,
) -> list[Decoded]:
    """Answer each source.

    Args:
        model: a frozen prefix language model.
        sources: token ids of each row, special tokens included.
        decoding: how to search.
        start_id: begins the answer (never part of it).
        end_id: ends the answer.
        pad_id: fills rows; masked everywhere.
        soft_prompt: ``[B, P, E]``, or rows of different lengths, put before the sources' word
            embeddings.
        seeds: one a source, for sampling; the decoding's seed and the row's place by default.
        quoted: what may be written, one a source, None for anything.

    Returns:
        One :class:`Decoded` a source, in order.

    Raises:
        InputError: when source, soft prompt and answer exceed the position table.
    """
    if not sources:
        return []
    state = _encode(model, sources, pad_id=pad_id, soft_prompt=soft_prompt, decoding=decoding)
    rules = _Rules(decoding, end_id, quoted or [None] * len(sources))
    if decoding.kind == "beam" and decoding.n_beams > 1:
        return _beam(model, state, rules, start_id=start_id)
    if seeds is None:
        seeds = [decoding.seed + row for row in range(len(sources))]
    return _one_path(model, state, rules, start_id=start_id, seeds=seeds)


def _encode(
    model: PrefixLM,
    sources: Sequence[Sequence[int]],
    *,
    pad_id: int,
    soft_prompt: Tensor | SoftPrompts | None,
    decoding: Decoding,
) -> _State:
    device = model.word_embeddings.weight.device
    size = max(len(source) for source in sources)
    ids = torch.full((len(sources), size), pad_id, dtype=torch.long)
    for row, source in enumerate(sources):
        ids[row, : len(source)] = torch.tensor(source, dtype=torch.long)
    lengths = torch.tensor([len(source) for source in sources], device=device)
    embeds = model.word_embeddings(ids.to(device))
    if soft_prompt is not None:
        embeds, lengths = prepend_to_right_padded(soft_prompt, embeds, lengths)
    size = embeds.shape[1]
    if size + decoding.max_new_tokens > model.config.max_position_embeddings:
        raise InputError(
            f"A source of {size} tokens (soft prompt included) and {decoding.max_new_tokens} "
            f"answer tokens exceed the reader's window of {model.config.max_position_embeddings}. "
            "Pack fewer passages or set a smaller max_new_tokens."
        )
    position = torch.arange(size, device=device)
    real = position[None] < lengths[:, None]
    mask = real[:, None, None, :].expand(-1, 1, size, -1)
    positions = position[None].expand(len(sources), -1)
    _, caches = model(embeds, mask, position_ids=positions, type_ids=torch.zeros_like(positions))
    return _State(caches, real, lengths)


def _advance(model: PrefixLM, state: _State, tokens: Tensor) -> Tensor:
    """Feed one token a row ``[R]``; return log-probabilities of the next ``[R, V]`` in fp32."""
    answered = torch.ones((len(tokens), state.step + 1), dtype=torch.bool, device=tokens.device)
    mask = torch.cat([state.real, answered], dim=1)[:, None, None, :]
    states, state.caches = model(
        model.word_embeddings(tokens[:, None]),
        mask,
        position_ids=(state.lengths + state.step)[:, None],
        type_ids=torch.ones_like(tokens[:, None]),
        past=state.caches,
    )
    state.step += 1
    return torch.log_softmax(model.logits(states[:, -1]).float(), dim=-1)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What may be written."""

    decoding: Decoding
    end_id: int
    quoted: Sequence[QuotedAnswers | None]
    """Of each source."""

    def allowed(
        self, scores: Tensor, step: int, rows: Sequence[int], written: Sequence[Sequence[int]]
    ) -> Tensor:
        """The scores ``[R, V]`` of the sources ``rows`` with ``-inf`` at what may not follow what
        was ``written`` of each."""
        allowed = scores
        if step < self.decoding.min_new_tokens:
            allowed = scores.clone()
            allowed[:, self.end_id] = float("-inf")
        quoted = [self.quoted[row] for row in rows]
        return allow_quoted(scores, allowed, quoted, written, ends=[self.end_id])


def _one_path(
    model: PrefixLM, state: _State, rules: _Rules, *, start_id: int, seeds: Sequence[int]
) -> list[Decoded]:
    decoding = rules.decoding
    device = state.lengths.device
    n_rows = len(state.lengths)
    alive = torch.arange(n_rows, device=device)
    tokens = torch.full((n_rows,), start_id, device=device)
    written: list[list[int]] = [[] for _ in range(n_rows)]
    logprobs = torch.zeros(n_rows, device=device)
    ended = [False] * n_rows
    for step in range(decoding.max_new_tokens):
        scores = _advance(model, state, tokens)
        rows = alive.tolist()
        allowed = rules.allowed(scores, step, rows, [written[row] for row in rows])
        if decoding.kind == "sample":
            tokens = _sample(allowed, decoding, [seeds[row] for row in rows], step)
        else:
            tokens = allowed.argmax(dim=-1)
        logprobs[alive] += scores.gather(1, tokens[:, None])[:, 0]
        going = tokens != rules.end_id
        for row, token, goes in zip(rows, tokens.tolist(), going.tolist(), strict=True):
            if goes:
                written[row].append(token)
            else:
                ended[row] = True
        if not bool(going.any()):
            break
        if not bool(going.all()):
            keep = going.nonzero()[:, 0]
            state.take(keep)
            alive, tokens = alive[keep], tokens[keep]
    return [
        Decoded(tuple(ids), float(logprob), done)
        for ids, logprob, done in zip(written, logprobs.tolist(), ended, strict=True)
    ]


def _sample(scores: Tensor, decoding: Decoding, seeds: Sequence[int], step: int) -> Tensor:
    """Draw a token a row ``[R]`` from log-probabilities ``[R, V]``."""
    logprobs = torch.log_softmax(scores / decoding.temperature, dim=-1)
    if decoding.top_p < 1:
        ordered, order = logprobs.sort(dim=-1, descending=True)
        kept = ordered.exp()
        ordered[kept.cumsum(dim=-1) - kept >= decoding.top_p] = float("-inf")
        logprobs = torch.full_like(logprobs, float("-inf")).scatter(1, order, ordered)
    noise = gumbel_noise(seeds, step, scores.shape[1]).to(logprobs.device)
    return (logprobs + noise).argmax(dim=-1)


def _beam(model: PrefixLM, state: _State, rules: _Rules, *, start_id: int) -> list[Decoded]:
    decoding, end_id = rules.decoding, rules.end_id
    device = state.lengths.device
    width, n_rows = decoding.n_beams, len(state.lengths)
    state.take(torch.arange(n_rows, device=device).repeat_interleave(width))
    tokens = torch.full((n_rows * width,), start_id, device=device)
    logprobs = torch.full((n_rows, width), float("-inf"), device=device)
    logprobs[:, 0] = 0.0  # the beams begin equal; only one may count
    paths: list[list[tuple[int, ...]]] = [[()] * width for _ in range(n_rows)]
    best: list[Decoded | None] = [None] * n_rows
    for step in range(decoding.max_new_tokens):
        advanced = _advance(model, state, tokens)
        whose = [row for row in range(n_rows) for _ in range(width)]
        allowed = rules.allowed(advanced, step, whose, [path for own in paths for path in own])
        scores = allowed.view(n_rows, width, -1)
        vocabulary = scores.shape[-1]
        total = (logprobs[:, :, None] + scores).view(n_rows, -1)
        top, where = total.topk(2 * width, dim=-1)
        rows, next_tokens = [], []
        for row in range(n_rows):
            kept: list[tuple[float, int, int]] = []
            for value, at in zip(top[row].tolist(), where[row].tolist(), strict=True):
                beam, token = divmod(at, vocabulary)
                if value == float("-inf"):
                    continue
                if token == end_id:
                    best[row] = _better(best[row], Decoded(paths[row][beam], value, True), decoding)
                elif len(kept) < width:
                    kept.append((value, beam, token))
            while len(kept) < width:
                kept.append((float("-inf"), 0, end_id))
            logprobs[row] = torch.tensor([value for value, _, _ in kept], device=device)
            paths[row] = [(*paths[row][beam], token) for _, beam, token in kept]
            rows += [row * width + beam for _, beam, _ in kept]
            next_tokens += [token for _, _, token in kept]
        if all(_settled(best[row], logprobs[row], decoding) for row in range(n_rows)):
            break
        state.take(torch.tensor(rows, device=device))
        tokens = torch.tensor(next_tokens, device=device)
    unfinished = [Decoded(paths[r][0], float(logprobs[r, 0]), False) for r in range(n_rows)]
    # An end that hardly any answer has must not win over a likely one that the limit cut.
    return [_better(done, open_, decoding) for done, open_ in zip(best, unfinished, strict=True)]


def _score(decoded: Decoded, decoding: Decoding) -> float:
    n_tokens = len(decoded.token_ids) + int(decoded.ended)
    return decoded.logprob / float(n_tokens**decoding.length_penalty)


def _better(old: Decoded | None, new: Decoded, decoding: Decoding) -> Decoded:
    return new if old is None or _score(new, decoding) > _score(old, decoding) else old


def _settled(done: Decoded | None, logprobs: Tensor, decoding: Decoding) -> bool:
    """True when no open beam can still beat the finished answer."""
    if done is None:
        return False
    reach = float(logprobs.max())
    longest = float(decoding.max_new_tokens**decoding.length_penalty)
    return reach / longest <= _score(done, decoding)
