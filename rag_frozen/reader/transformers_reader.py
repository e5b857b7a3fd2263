"""Decoder-only and encoder-decoder models of transformers as frozen readers.

Weights are read from safetensors, frozen and hashed. Prompts are batched by length: padded on the
left for decoder-only models, on the right for encoders. A soft prompt goes before the input
embeddings through ``prompting.inject``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rag_frozen.errors import ModelError
from rag_frozen.models.batching import token_budget_batches
from rag_frozen.models.source import ModelFolder
from rag_frozen.prompting.inject import prepend_to_left_padded, prepend_to_right_padded
from rag_frozen.protocols import PromptGenerator
from rag_frozen.reader.decoding import Decoding
from rag_frozen.reader.freezing import freeze, verify_frozen, weights_digest
from rag_frozen.types import Context, Generation

__all__ = ["TransformersReader"]

_UNBOUNDED = 1_000_000
"""Tokenizers without a limit name one above this."""


class TransformersReader:
    """A frozen language model of transformers that answers from packed passages."""

    def __init__(
        self,
        model: ModelFolder,
        *,
        kind: Literal["causal", "seq2seq"],
        decoding: Decoding,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        chat_template: bool = False,
        window: int | None = None,
        token_budget: int = 16_384,
        prompt_generator: PromptGenerator | None = None,
    ) -> None:
        """Load, freeze and hash the model.

        Args:
            model: a folder with safetensors, one file or sharded.
            kind: decoder-only or encoder-decoder.
            decoding: how answers are written.
            device, dtype: where and in what the model runs.
            chat_template: write the prompt as a user's message in the tokenizer's own template.
            window: tokens of soft prompt, prompt and (decoder-only) answer together; the model's
                own by default, 2,048 where it has none.
            token_budget: prompt tokens a batch, padding included.
            prompt_generator: makes the soft prompt, if the reader is conditioned.

        Raises:
            ModelError: when the model cannot be loaded, or has no chat template to write.
        """
        self.name = model.name
        self.kind = kind
        self.decoding = decoding
        self.prompt_generator = prompt_generator
        loaded, self._tokenizer = _load(model, kind, dtype)
        self.model: Any = freeze(loaded.to(device))  # Any: a transformers model
        self.digest = weights_digest(self.model)
        self.window = window or _window(self.model.config)
        self._chat = chat_template
        self._line_breaks: dict[int, bool] = {}
        self._device = torch.device(device)
        self._token_budget = token_budget
        if chat_template and not self._tokenizer.chat_template:
            raise ModelError(
                f"{model.name} has no chat template. Set reader.chat_template: false, or name an "
                "instruction-tuned model."
            )
        ends = self.model.generation_config.eos_token_id
        named = [] if ends is None else ends if isinstance(ends, list) else [ends]
        self._ends = set(named or [self._tokenizer.eos_token_id])
        pad = self._tokenizer.pad_token_id
        self._pad = next(iter(self._ends)) if pad is None else pad

    @property
    def embedding_width(self) -> int:
        """Width E of the input embeddings, which a soft prompt must have."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text as a prompt, special tokens and chat template included."""
        return [len(self._encode(text)) for text in texts]

    def verify_frozen(self) -> None:
        """Raise ``FrozenWeightsChangedError`` when the weights are not those that were loaded."""
        verify_frozen(self.model, self.digest)

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Answer each context.

        In fp32 a batch gives what one by one gives (log-probabilities to 1e-4).
        """
        prompts = [self._encode(context.prompt) for context in contexts]
        generations: list[Generation | None] = [None] * len(contexts)
        lengths = [len(prompt) for prompt in prompts]
        for rows in token_budget_batches(lengths, budget=self._token_budget, multiple=8):
            batch = self._generate([contexts[r] for r in rows], [prompts[r] for r in rows])
            for row, generation in zip(rows, batch, strict=True):
                generations[row] = generation
        return [generation for generation in generations if generation is not None]

    def _encode(self, text: str) -> list[int]:
        """Token ids of a prompt. What looks like a special token in the text is plain text."""
        if not self._chat:
            return list(self._tokenizer(text, split_special_tokens=True)["input_ids"])
        mark = "\u2060prompt\u2060"
        written: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
        )
        before, _, after = written.partition(mark)
        pieces = (
            self._tokenizer(before, add_special_tokens=False),
            self._tokenizer(text, add_special_tokens=False, split_special_tokens=True),
            self._tokenizer(after, add_special_tokens=False),
        )
        return [token for piece in pieces for token in piece["input_ids"]]

    @torch.inference_mode()
    def _generate(
        self, contexts: Sequence[Context], prompts: Sequence[Sequence[int]]
    ) -> list[Generation]:
        embeds, mask = self._inputs(contexts, prompts)
        sampled = self.decoding.kind == "sample"
        beams = self.decoding.n_beams if self.decoding.kind == "beam" else 1
        settings: dict[str, Any] = {
            "max_new_tokens": self.decoding.max_new_tokens,
            "do_sample": sampled,
            "num_beams": beams,
            "pad_token_id": self._pad,
            "eos_token_id": sorted(self._ends),
            "stopping_criteria": [self._stops_at_newline],
        }
        if sampled:
            settings |= {"temperature": self.decoding.temperature, "top_p": self.decoding.top_p}
            settings["top_k"] = 0
        if beams > 1:
            settings |= {"length_penalty": self.decoding.length_penalty, "early_stopping": False}
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.decoding.seed)
            written = self.model.generate(inputs_embeds=embeds, attention_mask=mask, **settings)
        if self.kind == "seq2seq":
            written = written[:, 1:]  # the decoder's start token
        answers = [self._cut(row.tolist()) for row in written]
        logprobs = self._logprobs(embeds, mask, [ids for ids, _ in answers])
        return [
            Generation(self._text(ids), logprob, len(ids), stop)
            for (ids, stop), logprob in zip(answers, logprobs, strict=True)
        ]

    def _inputs(
        self, contexts: Sequence[Context], prompts: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """Embeddings ``[B, P + T, E]`` and mask, padded on the side that the model needs."""
        left = self.kind == "causal"
        size = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), size), self._pad, dtype=torch.long)
        mask = torch.zeros((len(prompts), size), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            place = slice(size - len(prompt), size) if left else slice(0, len(prompt))
            ids[row, place] = torch.tensor(prompt, dtype=torch.long)
            mask[row, place] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        if self.prompt_generator is None:
            return embeds, mask
        soft_prompt = self.prompt_generator.generate(contexts)
        if left:
            return prepend_to_left_padded(soft_prompt, embeds, mask)
        embeds, lengths = prepend_to_right_padded(soft_prompt, embeds, mask.sum(dim=1))
        column = torch.arange(embeds.shape[1], device=self._device)
        return embeds, (column[None] < lengths[:, None]).to(mask.dtype)

    def _cut(self, ids: Sequence[int]) -> tuple[list[int], str]:
        """Cut what was written after the end token or the token that brought a line break."""
        for place, token in enumerate(ids):
            if token in self._ends:
                return list(ids[: place + 1]), "end"
            if self._breaks_line(token):
                return list(ids[: place + 1]), "newline"
        return list(ids), "length"

    def _stops_at_newline(self, ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Tell ``generate`` which rows just wrote a line break."""
        breaks = [self._breaks_line(token) for token in ids[:, -1].tolist()]
        return torch.tensor(breaks, device=ids.device)

    def _breaks_line(self, token: int) -> bool:
        if token not in self._line_breaks:
            self._line_breaks[token] = "\n" in self._tokenizer.decode([token])
        return self._line_breaks[token]

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip().split("\n", 1)[0].strip()

    def _logprobs(
        self, embeds: Tensor, mask: Tensor, answers: Sequence[Sequence[int]]
    ) -> list[float]:
        """Natural-log probability of each answer, end token included, in one forward pass."""
        size = max(len(ids) for ids in answers)
        ids = torch.full((len(answers), size), self._pad, dtype=torch.long)
        real = torch.zeros((len(answers), size), dtype=torch.bool)
        for row, written in enumerate(answers):
            ids[row, : len(written)] = torch.tensor(written, dtype=torch.long)
            real[row, : len(written)] = True
        ids, real = ids.to(self._device), real.to(self._device)
        if self.kind == "seq2seq":
            start = self.model.config.decoder_start_token_id
            shifted = torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)
            output = self.model(
                inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=shifted
            )
            logits = output.logits
        else:
            whole = torch.cat([embeds, self.model.get_input_embeddings()(ids)], dim=1)
            seen = torch.cat([mask, real.to(mask.dtype)], dim=1)
            positions = (seen.cumsum(dim=1) - 1).clamp(min=0)
            output = self.model(inputs_embeds=whole, attention_mask=seen, position_ids=positions)
            logits = output.logits[:, embeds.shape[1] - 1 : -1]
        scores = torch.log_softmax(logits.float(), dim=-1).gather(2, ids[:, :, None])[:, :, 0]
        return [float(total) for total in (scores * real).sum(dim=1)]


def _load(
    model: ModelFolder, kind: Literal["causal", "seq2seq"], dtype: torch.dtype
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM
    try:
        loaded = auto.from_pretrained(str(model.path), dtype=dtype, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(str(model.path))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{model.name} cannot be loaded as a {kind} reader: {str(error).splitlines()[0]}. "
            "Name a model with config.json, a tokenizer and safetensors, of kind causal "
            "(decoder-only) or seq2seq (encoder-decoder)."
        ) from error
    return loaded, tokenizer


def _window(config: Any) -> int:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "seq_length"):
        found = getattr(text, name, None)
        if isinstance(found, int) and 0 < found < _UNBOUNDED:
            return found
    return 2_048
