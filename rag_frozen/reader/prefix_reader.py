"""The pocket reader: the project's own prefix language model as a frozen reader.

Takes packed contexts, returns generations; the model's weights are hashed when the reader is made
and never change. Where an answer's tokens stand in a packed passage, the answer is given in the
passage's own spelling, which an uncased vocabulary cannot write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from rag_frozen.errors import ModelError
from rag_frozen.models.batching import token_budget_batches
from rag_frozen.models.digest import folder_digest
from rag_frozen.models.parameters import ParameterCounts, parameter_counts
from rag_frozen.prompting.inject import SoftPrompts, prepend_to_right_padded
from rag_frozen.protocols import PromptGenerator
from rag_frozen.reader.decoding import Decoded, Decoding, decode
from rag_frozen.reader.freezing import freeze, verify_frozen, weights_digest
from rag_frozen.reader.padding import padded
from rag_frozen.reader.prefix_lm import PrefixLM, prefix_mask
from rag_frozen.reader.prefix_lm_weights import load_prefix_lm
from rag_frozen.reader.quoting import QuotedAnswers, token_piece, whole_piece
from rag_frozen.reader.sampling import row_seed
from rag_frozen.reader.spelling import passage_spelling, passages_begin, tidy
from rag_frozen.types import Context, Generation

__all__ = ["PrefixLMReader"]


class PrefixLMReader:
    """A frozen prefix language model that answers from packed passages, or closed book."""

    def __init__(
        self,
        model: PrefixLM,
        tokenizer: Tokenizer,
        *,
        name: str,
        decoding: Decoding,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        token_budget: int = 8_192,
        prompt_generator: PromptGenerator | None = None,
        folders: tuple[Path, ...] = (),
    ) -> None:
        """Freeze the model and hash its weights.

        Args:
            model: trained; becomes the reader's own.
            tokenizer: of the encoder that the model began from, without padding or truncation.
            name: how messages and manifests call the reader.
            decoding: how answers are written.
            device, dtype: where and in what the model runs.
            token_budget: prompt tokens a batch, padding included.
            prompt_generator: makes the soft prompt, if the reader is conditioned.
            folders: where its weights came from, for ``base_digest``.

        Raises:
            ModelError: when the tokenizer lacks ``[CLS]``, ``[SEP]`` or ``[PAD]``.
        """
        ids: dict[str, int] = {}
        for token in ("[CLS]", "[SEP]", "[PAD]"):
            found = tokenizer.token_to_id(token)
            if found is None:
                raise ModelError(
                    f"The tokenizer of {name} lacks {token}. Use the tokenizer of the encoder "
                    "that the reader was trained from."
                )
            ids[token] = found
        self.name = name
        self.decoding = decoding
        self.prompt_generator = prompt_generator
        self.model = freeze(model.to(device=device, dtype=dtype))
        self.digest = weights_digest(self.model)
        self._folders = folders
        self._tokenizer = tokenizer
        self._ids = ids
        self._token_budget = token_budget

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        minilm: Path,
        *,
        decoding: Decoding,
        name: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        token_budget: int = 8_192,
        prompt_generator: PromptGenerator | None = None,
    ) -> PrefixLMReader:
        """Load trained weights and the encoder's word embeddings and tokenizer.

        Raises:
            ArtifactDamagedError: when a file is missing or does not fit.
        """
        tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(
            load_prefix_lm(folder, minilm),
            tokenizer,
            name=name or folder.name,
            decoding=decoding,
            device=device,
            dtype=dtype,
            token_budget=token_budget,
            prompt_generator=prompt_generator,
            folders=(folder, minilm),
        )

    @property
    def window(self) -> int:
        """Positions that the model has: soft prompt, prompt and answer together."""
        return self.model.config.max_position_embeddings

    @property
    def embedding_width(self) -> int:
        """Width E of the input embeddings, which a soft prompt must have."""
        return self.model.config.hidden_size

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text as a prompt, special tokens included."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    @cached_property
    def base_digest(self) -> str:
        """Of the stored weights, whatever the precision in memory: what prompts are trained for."""
        if not self._folders:
            return self.digest
        parts = "".join(folder_digest(folder) for folder in self._folders)
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def embedding_table(self) -> Tensor:
        """``[V, E]``: the word embeddings, beside which soft prompts stand."""
        return self.model.word_embeddings.weight

    def token_text(self, token_id: int) -> str:
        """A token as the vocabulary writes it."""
        return str(self._tokenizer.id_to_token(token_id))

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, special tokens included."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def encode_answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of answers, the end token included."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self._ids["[SEP]"]] for encoding in encodings]

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
        device = self.embedding_table.device
        start = self._ids["[CLS]"]
        rows = [[*p, start, *a[:-1]] for p, a in zip(prompts, answers, strict=True)]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        sources = torch.tensor([len(prompt) for prompt in prompts], device=device)
        ids, _ = padded(rows, self._ids["[PAD]"])
        embeds = self.model.word_embeddings(ids.to(device))
        front = torch.zeros_like(lengths)
        if soft_prompt is not None:
            embeds, joined = prepend_to_right_padded(soft_prompt, embeds, lengths)
            front, lengths = joined - lengths, joined
        position = torch.arange(embeds.shape[1], device=device).expand(len(rows), -1)
        types = (position >= (sources + front)[:, None]).long()
        mask = prefix_mask(sources + front, lengths, embeds.shape[1])
        states, _ = self.model(embeds, mask, position_ids=position, type_ids=types)
        labels, real = padded(answers, 0)
        labels, real = labels.to(device), real.to(device)
        column = (sources + front)[:, None] + torch.arange(labels.shape[1], device=device)
        column = column.clamp(max=embeds.shape[1] - 1)
        wanted = states.gather(1, column[:, :, None].expand(-1, -1, states.shape[2]))
        logprobs = torch.log_softmax(self.model.logits(wanted).float(), dim=-1)
        return logprobs.gather(2, labels[:, :, None])[:, :, 0] * real

    def parameter_counts(self) -> ParameterCounts:
        """All weights, and those outside of embedding tables."""
        return parameter_counts(self.model)

    def verify_frozen(self) -> None:
        """Raise ``FrozenWeightsChangedError`` when the weights are not those that were loaded."""
        verify_frozen(self.model, self.digest)

    def generate(self, contexts: Sequence[Context]) -> list[Generation]:
        """Answer each context.

        Rows are batched by length; in fp32 a batch gives what one by one gives (log-probabilities
        to 1e-4), in bf16 near ties may fall differently. A sampled answer is drawn from the
        decoding's seed and the question's id, whatever else is asked.
        """
        encodings = self._tokenizer.encode_batch([context.prompt for context in contexts])
        generations: list[Generation | None] = [None] * len(contexts)
        lengths = [len(encoding.ids) for encoding in encodings]
        batches = token_budget_batches(lengths, budget=self._token_budget)
        for rows in batches:
            soft_prompt = None
            if self.prompt_generator is not None and self.prompt_generator.length:
                soft_prompt = self.prompt_generator.generate([contexts[row] for row in rows])
            decoded = decode(
                self.model,
                [encodings[row].ids for row in rows],
                decoding=self.decoding,
                start_id=self._ids["[CLS]"],
                end_id=self._ids["[SEP]"],
                pad_id=self._ids["[PAD]"],
                soft_prompt=soft_prompt,
                seeds=[row_seed(self.decoding.seed, contexts[row]) for row in rows],
                quoted=[self._quoted(contexts[row]) for row in rows],
            )
            for row, answer in zip(rows, decoded, strict=True):
                generations[row] = self._generation(answer, contexts[row], encodings[row])
        return [generation for generation in generations if generation is not None]

    def _quoted(self, context: Context) -> QuotedAnswers | None:
        """What may be written for a context, where its answer must be quoted."""
        if context.quotable is None:
            return None
        texts, also = list(context.quotable.texts), list(context.quotable.also)
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        pieces = [
            token_piece(text, encoding.ids, encoding.offsets)
            for text, encoding in zip(texts, encodings, strict=True)
        ]
        whole = self._tokenizer.encode_batch(also, add_special_tokens=False)
        return QuotedAnswers([*pieces, *(whole_piece(encoding.ids) for encoding in whole)])

    def _generation(self, decoded: Decoded, context: Context, encoding: Encoding) -> Generation:
        ids = decoded.token_ids
        text = None
        if context.kept and ids:
            after = passages_begin(context.prompt, context.question.text)
            text = passage_spelling(
                ids, context.prompt, encoding.ids, encoding.offsets, after=after
            )
        if text is None:
            text = tidy(self._tokenizer.decode(list(ids)))
        n_tokens = len(ids) + int(decoded.ended)
        return Generation(text, decoded.logprob, n_tokens, "end" if decoded.ended else "length")
