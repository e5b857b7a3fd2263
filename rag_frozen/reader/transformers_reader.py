"""Decoder-only and encoder-decoder models of transformers as frozen readers.

Weights are read from safetensors, frozen and hashed. Prompts are batched by length: padded on the
left for decoder-only models, on the right for encoders. A soft prompt goes before the input
embeddings through ``prompting.inject``. Log-probabilities are the model's own: before temperature,
nucleus and length penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rag_frozen.errors import InputError, ModelError
from rag_frozen.models.batching import token_budget_batches
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.parameters import ParameterCounts, parameter_counts
from rag_frozen.models.source import ModelFolder, resolve_model
from rag_frozen.prompting.inject import SoftPrompts
from rag_frozen.protocols import PromptGenerator
from rag_frozen.reader.decoding import Decoding
from rag_frozen.reader.freezing import freeze, verify_frozen, weights_digest
from rag_frozen.reader.loading import (
    accepts,
    clean_generation,
    decoder_start,
    end_ids,
    load_language_model,
    model_window,
)
from rag_frozen.reader.model_inputs import ModelInputs, make_inputs
from rag_frozen.reader.padding import padded
from rag_frozen.reader.prompt_tokens import PromptTokens
from rag_frozen.reader.quoting import QuotedAnswers
from rag_frozen.reader.sampling import row_seed
from rag_frozen.reader.spelling import passages_begin
from rag_frozen.reader.step_scores import Allowed, WrittenLogprobs, drawing
from rag_frozen.types import Context, Generation

__all__ = ["TransformersReader"]

_CPU_BUDGET = 2_048
"""24 prompts of 60 to 400 tokens, six layers of width 384, one thread: 2.5 s in such batches,
2.7 s in batches of 4,096 tokens, 3.7 s one by one, 4.9 s all at once."""
_GPU_BUDGET = 16_384


class TransformersReader:
    """A frozen language model of transformers that answers from packed passages."""

    def __init__(
        self,
        model: ModelFolder | str | Path,
        *,
        kind: Literal["causal", "seq2seq"],
        decoding: Decoding,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        chat_template: bool = False,
        window: int | None = None,
        token_budget: int | None = None,
        prompt_generator: PromptGenerator | None = None,
    ) -> None:
        """Load, freeze and hash the model.

        Args:
            model: a folder with safetensors, one file or sharded; or a name to resolve.
            kind: decoder-only or encoder-decoder.
            decoding: how answers are written.
            device, dtype: where and in what the model runs.
            chat_template: write the prompt as a user's message in the tokenizer's own template.
            window: tokens of soft prompt, prompt and (decoder-only) answer together; at most, and
                by default, what the model's positions allow.
            token_budget: prompt tokens a batch, padding and beams included; 2,048 on a CPU and
                16,384 elsewhere by default.
            prompt_generator: makes the soft prompt, if the reader is conditioned.

        Raises:
            ModelError: when the model cannot be loaded, or has no chat template to write.
            ModelMissingError: when it is not at hand.
        """
        folder = model if isinstance(model, ModelFolder) else resolve_model(str(model))
        self.name = folder.name
        self._folder = folder.path
        self.kind = kind
        self.decoding = decoding
        self.prompt_generator = prompt_generator
        loaded, tokenizer = load_language_model(folder, kind=kind, dtype=dtype)
        self.model: Any = freeze(loaded.to(device))  # Any: a transformers model
        self.digest = weights_digest(self.model)
        self.window = model_window(self.model.config, window)
        self._tokens = PromptTokens(tokenizer, name=folder.name, chat_template=chat_template)
        self._device = torch.device(device)
        by_default = _CPU_BUDGET if self._device.type == "cpu" else _GPU_BUDGET
        self._token_budget = token_budget or by_default
        self._ends = end_ids(self.model, tokenizer)
        pad = tokenizer.pad_token_id
        self._pad = int(next(iter(self._ends), 0) if pad is None else pad)
        self._starts = decoder_start(self.model, self._pad) if kind == "seq2seq" else []
        self.model.generation_config = clean_generation(
            self.model, pad_id=self._pad, end_ids=sorted(self._ends)
        )

    @property
    def embedding_width(self) -> int:
        """Width E of the input embeddings, which a soft prompt must have."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text as a prompt, special tokens and chat template included."""
        return [len(ids) for ids in self._tokens.encode(texts)]

    def parameter_counts(self) -> ParameterCounts:
        """All weights, and those outside of embedding tables."""
        return parameter_counts(self.model)

    def verify_frozen(self) -> None:
        """Raise ``FrozenWeightsChangedError`` when the weights are not those that were loaded."""
        verify_frozen(self.model, self.digest)

    @torch.inference_mode()
    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Answer each context.

        Rows are batched by length; in fp32 a batch gives what one by one gives (log-probabilities
        to 1e-4), in bf16 near ties may fall differently. A sampled answer is drawn from the
        decoding's seed and the question's id, whatever else is asked.

        Raises:
            InputError: when soft prompt, prompt and answer exceed the window.
            ModelError: when answers are to be quoted and the tokenizer has no offsets.
        """
        prompts = self._tokens.encode([context.prompt for context in contexts])
        self._check_window(contexts, prompts)
        beams = self.decoding.n_beams if self.decoding.kind == "beam" else 1
        budget = max(self._token_budget // beams, 1)
        generations: list[Generation | None] = [None] * len(contexts)
        for rows in token_budget_batches([len(p) for p in prompts], budget=budget, multiple=8):
            batch = self._generate([contexts[r] for r in rows], [prompts[r] for r in rows])
            for row, generation in zip(rows, batch, strict=True):
                generations[row] = generation
        return [generation for generation in generations if generation is not None]

    def _check_window(self, contexts: Sequence[Context], prompts: Sequence[Sequence[int]]) -> None:
        soft = self.prompt_generator.length if self.prompt_generator else 0
        answer = self.decoding.max_new_tokens if self.kind == "causal" else 0
        for context, prompt in zip(contexts, prompts, strict=True):
            if soft + len(prompt) + answer > self.window:
                raise InputError(
                    f"The prompt of question {context.question.id!r} takes {len(prompt)} tokens; "
                    f"with a soft prompt of {soft} and an answer of {answer} it exceeds the "
                    f"window of {self.name}, {self.window}. Pack fewer passages, or set a smaller "
                    "max_new_tokens."
                )

    def _generate(
        self, contexts: Sequence[Context], prompts: Sequence[Sequence[int]]
    ) -> list[Generation]:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        soft_prompt = None
        if self.prompt_generator is not None and self.prompt_generator.length:
            soft_prompt = self.prompt_generator.generate(contexts)
        inputs = self._inputs(prompts, soft_prompt)
        settings = inputs.named() | _search(self.decoding)
        front = 0 if inputs.embeds is not None else inputs.ids.shape[1]
        if self.kind == "seq2seq":
            starts = torch.tensor([self._starts], device=self._device)
            settings["decoder_input_ids"] = starts.expand(len(contexts), -1)
            front = len(self._starts)
        steps = WrittenLogprobs()
        seeds = [row_seed(self.decoding.seed, context) for context in contexts]
        drawn = drawing(self.decoding, seeds)
        searched = settings["num_beams"] > 1
        quoted = [self._quoted(context) for context in contexts]
        rules = Allowed(self._ends, self.decoding, front, quoted, self._tokens.line_breaks)
        written: Tensor = self.model.generate(
            **settings,
            stopping_criteria=StoppingCriteriaList([partial(self._stops_at_newline, front)]),
            logits_processor=LogitsProcessorList([*([] if searched else [steps]), rules, *drawn]),
        )[:, front:]
        answers = [self._cut(row.tolist()) for row in written]
        scores = self._rescored(inputs, answers) if searched else steps.of(written)
        return [
            Generation(self._text(ids, stop, context), float(row[: len(ids)].sum()), len(ids), stop)
            for (ids, stop), row, context in zip(answers, scores, contexts, strict=True)
        ]

    def _quoted(self, context: Context) -> QuotedAnswers | None:
        """What may be written for a context, where its answer must be quoted."""
        if context.quotable is None:
            return None
        return self._tokens.quoted(context.quotable.texts, context.quotable.also)

    def _inputs(
        self, prompts: Sequence[Sequence[int]], soft_prompt: Tensor | SoftPrompts | None
    ) -> ModelInputs:
        left = self.kind == "causal"
        return make_inputs(self.model, prompts, soft_prompt, pad=self._pad, left=left)

    @cached_property
    def base_digest(self) -> str:
        """Of the stored weights, whatever the precision in memory: what prompts are trained for."""
        return folder_digest(self._folder)

    @property
    def embedding_table(self) -> Tensor:
        """``[V, E]``: the input embeddings, beside which soft prompts stand."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    def token_text(self, token_id: int) -> str:
        """A token as the vocabulary writes it."""
        return self._tokens.token(token_id)

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, special tokens and chat template included."""
        return self._tokens.encode(texts)

    def encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of answers, the end token included.

        Raises:
            ModelError: when the model has no end token.
        """
        if not self._ends:
            raise ModelError(f"{self.name} has no end token, so answers cannot be scored.")
        end = min(self._ends)
        return [[*ids, end] for ids in self._tokens.encode_bare(texts)]

    def answer_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        soft_prompt: Tensor | SoftPrompts | None = None,
    ) -> Tensor:
        """Log-probability of each given answer token, in one forward pass (teacher forcing).

        Args:
            prompts: token ids of each row.
            answers: token ids, the end token included.
            soft_prompt: ``[B, P, E]`` or rows of different lengths; gradients flow to it.

        Returns:
            ``[B, A]`` in fp32, 0 behind each answer's end.
        """
        scores = self._rescored(
            self._inputs(prompts, soft_prompt), [(list(ids), "end") for ids in answers]
        )
        _, real = padded(answers, 0)
        return scores * real.to(scores.device)

    def _cut(self, ids: Sequence[int]) -> tuple[list[int], str]:
        """Cut what was written after the end token or the token that brought a line break; line
        breaks before any text count for nothing."""
        written = False
        for place, token in enumerate(ids):
            if token in self._ends:
                return list(ids[: place + 1]), "end"
            written = written or self._tokens.holds_text(token)
            if written and self._tokens.breaks_line(token):
                return list(ids[: place + 1]), "newline"
        return list(ids), "length"

    def _stops_at_newline(self, front: int, ids: Tensor, scores: object, **_: object) -> Tensor:
        """Tell ``generate`` which rows just ended a line that holds text; ``front`` tokens were
        there before."""
        breaks = [
            self._tokens.breaks_line(row[-1]) and any(map(self._tokens.holds_text, row[front:]))
            for row in ids.tolist()
        ]
        return torch.tensor(breaks, device=ids.device)

    def _text(self, ids: Sequence[int], stop: str, context: Context) -> str:
        after = passages_begin(context.prompt, context.question.text)
        return self._tokens.text(ids[:-1] if stop == "end" else ids, context.prompt, after=after)

    def _rescored(self, inputs: ModelInputs, answers: Sequence[tuple[list[int], str]]) -> Tensor:
        """Log-probabilities ``[B, A]`` of answers, in one forward pass over prompt and answer."""
        ids, real = padded([answer for answer, _ in answers], self._pad, left=False)
        ids, real = ids.to(self._device), real.to(self._device)
        size = ids.shape[1]
        if self.kind == "seq2seq":
            starts = torch.tensor([self._starts], device=self._device).expand(len(answers), -1)
            shifted = torch.cat([starts, ids[:, :-1]], dim=1)
            logits = self.model(**inputs.named(), decoder_input_ids=shifted).logits[:, -size:]
        else:
            seen = torch.cat([inputs.mask, real], dim=1)
            settings: dict[str, Any] = {"attention_mask": seen}
            if inputs.embeds is None:
                settings["input_ids"] = torch.cat([inputs.ids, ids], dim=1)
            else:
                answer = self.model.get_input_embeddings()(ids)
                settings["inputs_embeds"] = torch.cat([inputs.embeds, answer], dim=1)
            if accepts(self.model, "position_ids"):
                settings["position_ids"] = (seen.cumsum(dim=1) - 1).clamp(min=0)
            if accepts(self.model, "logits_to_keep"):
                settings["logits_to_keep"] = size + 1
            logits = self.model(**settings).logits[:, -size - 1 : -1]
        return torch.log_softmax(logits.float(), dim=-1).gather(2, ids[:, :, None])[:, :, 0]


def _search(decoding: Decoding) -> dict[str, Any]:
    """The decoding's settings as ``generate`` names them."""
    settings: dict[str, Any] = {
        "max_new_tokens": decoding.max_new_tokens,
        "do_sample": False,  # sampling is in the scores: see drawing
        "num_beams": decoding.n_beams if decoding.kind == "beam" else 1,
    }
    if settings["num_beams"] > 1:
        settings |= {"length_penalty": decoding.length_penalty, "early_stopping": False}
    return settings
