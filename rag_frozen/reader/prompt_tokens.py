"""Prompts as a reader's token ids, and its token ids as text.

Wraps a tokenizer of transformers: the model's chat template where it is wanted, and text in which
nothing acts as a special token, so that a passage cannot end the prompt or speak as the assistant.
Knows nothing of models or batches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from rag_frozen.errors import ModelError
from rag_frozen.reader.quoting import QuotedAnswers, TokenPiece, token_piece, whole_piece
from rag_frozen.reader.spelling import passage_spelling, tidy

__all__ = ["PromptTokens"]

_MARK = "PROMPT-STANDS-HERE"
_BEFORE = "the "
_PROBE = "Röntgen sold 283,846 of O'Brien's"
"""Comes back changed from a tokenizer that loses spelling."""


class PromptTokens:
    """A tokenizer of transformers as a reader uses it."""

    def __init__(
        self,
        tokenizer: Any,  # Any: a tokenizer of transformers, which is not typed
        *,
        name: str,
        chat_template: bool = False,
    ) -> None:
        """Set up.

        Args:
            tokenizer: of transformers.
            name: how messages call the model.
            chat_template: write each prompt as a user's message in the tokenizer's own template.

        Raises:
            ModelError: when there is no chat template, or it cannot be used.
        """
        self._tokenizer = tokenizer
        self._name = name
        self._frame = _chat_frame(tokenizer, name) if chat_template else None
        added = {str(token) for token in tokenizer.get_added_vocab() if len(token.strip()) > 1}
        longest_first = sorted(added, key=lambda token: (-len(token), token))
        alternatives = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._added = re.compile(f"(?=(?:{alternatives}))", re.IGNORECASE)
        self._front, self._back = _special_frame(tokenizer)
        self._line_breaks: dict[int, bool] = {}
        self._texts: dict[int, bool] = {}
        bare = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        self._loses_spelling = self._decode(bare).strip() != _PROBE

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, special tokens and chat template included."""
        if not texts:
            return []
        if self._frame is not None:
            before, after = self._frame
            written = [f"{before}{text}{after}" for text in texts]
            rows = self._tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"]
        else:
            rows = self._tokenizer(list(texts), split_special_tokens=True, verbose=False)[
                "input_ids"
            ]
        return [
            self._encode_parted(text) if self._added.search(text) else list(row)
            for text, row in zip(texts, rows, strict=True)
        ]

    def encode_bare(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts alone, without special tokens or chat template."""
        if not texts:
            return []
        rows = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return [list(row) for row in rows]

    def token(self, token_id: int) -> str:
        """A token as the vocabulary writes it."""
        return str(self._tokenizer.convert_ids_to_tokens(token_id))

    def text(self, answer_ids: Sequence[int], prompt: str, *, after: int = 0) -> str:
        """Write an answer's tokens as one line of text.

        A tokenizer that loses spelling (case, accents) gives the prompt's own, where the tokens
        stand in it as whole words.

        Args:
            answer_ids: without the end token.
            prompt: what was read.
            after: the first character of the prompt whose spelling may be taken.
        """
        ids = list(answer_ids)
        decoded = self._decode(ids).strip().split("\n", 1)[0].strip()
        if not self._loses_spelling:
            return decoded
        found = None
        if self._tokenizer.is_fast:
            read = self._tokenizer(
                prompt, return_offsets_mapping=True, split_special_tokens=True, verbose=False
            )
            found = passage_spelling(
                ids, prompt, read["input_ids"], read["offset_mapping"], after=after
            )
        return tidy(decoded) if found is None else found

    def quoted(self, texts: Sequence[str], also: Sequence[str]) -> QuotedAnswers:
        """What may be written where an answer must be quoted.

        Words are written as after a space, and the first one also as at the beginning of a line,
        which is another token in vocabularies that hold their spaces.

        Args:
            texts: of which any run of whole words may be quoted.
            also: texts that may be quoted whole.

        Raises:
            ModelError: when the tokenizer does not tell where its tokens stand.
        """
        if not self._tokenizer.is_fast:
            raise ModelError(
                f"The tokenizer of {self._name} does not tell where its tokens stand in a text, so "
                "its answers cannot be quoted. Set answers={kind: free}."
            )
        pieces = [piece for text in texts for piece in self._pieces(text)]
        whole = [self._behind(text)[0] for text in also] + self.encode_bare(also)
        return QuotedAnswers([*pieces, *(whole_piece(ids) for ids in whole)])

    def _pieces(self, text: str) -> list[TokenPiece]:
        ids, offsets = self._behind(text)
        piece = token_piece(text, ids, offsets)
        if not self._holds_spaces:
            return [piece]
        words = [
            (at, start)
            for at, (start, starts) in enumerate(zip(offsets, piece.starts, strict=True))
            if starts
        ]
        made = [piece]
        for (_, (start, _)), following in zip(words, [*words[1:], None], strict=True):
            end = len(text) if following is None else following[1][0]
            word = text[start:end].strip()
            if not word:
                continue
            rest = len(ids) if following is None else following[0]
            first = self.encode_bare([word])[0]
            made.append(
                TokenPiece(
                    (*first, *ids[rest:]),
                    (True, *[False] * (len(first) + len(ids) - rest - 1)),
                    (*[False] * (len(first) - 1), piece.ends[rest - 1], *piece.ends[rest:]),
                    (*[any(map(str.isalnum, word))] * len(first), *piece.says[rest:]),
                )
            )
        return made

    def _behind(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """A text's tokens and their places in it, as they are behind a word and a space."""
        read = self._tokenizer(
            f"{_BEFORE}{text}",
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
            verbose=False,
        )
        skipped = len(_BEFORE)
        inside = [
            (token, (max(start - skipped, 0), stop - skipped))
            for token, (start, stop) in zip(read["input_ids"], read["offset_mapping"], strict=True)
            if start >= skipped - 1  # the space before the text may be a part of its first token
        ]
        return [token for token, _ in inside], [places for _, places in inside]

    @cached_property
    def _holds_spaces(self) -> bool:
        """True where a word behind a space is another token than one that begins a line."""
        return self._behind("Nile")[0] != self.encode_bare(["Nile"])[0]

    @cached_property
    def line_breaks(self) -> tuple[int, ...]:
        """The tokens that a line break is written as behind a word."""
        last = {row[-1] for row in self.encode_bare(["Nile\n", "\n"]) if row}
        return tuple(sorted(token for token in last if self.breaks_line(token)))

    def breaks_line(self, token: int) -> bool:
        """True for a token that holds a line break."""
        if token not in self._line_breaks:
            self._line_breaks[token] = "\n" in self._decode([token])
        return self._line_breaks[token]

    def holds_text(self, token: int) -> bool:
        """True for a token that shows something beside white space."""
        if token not in self._texts:
            self._texts[token] = bool(self._decode([token]).strip())
        return self._texts[token]

    def _decode(self, ids: Sequence[int]) -> str:
        decoded: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def _encode_parted(self, text: str) -> list[int]:
        """Encode a text that holds the spelling of an added token, parted within each of them."""
        cuts = [0, *(match.start() + 1 for match in self._added.finditer(text)), len(text)]
        ids: list[int] = []
        for start, end in pairwise(cuts):
            if start < end:
                ids += self._tokenizer(
                    text[start:end],
                    add_special_tokens=False,
                    split_special_tokens=True,
                    verbose=False,
                )["input_ids"]
        if self._frame is None:
            return [*self._front, *ids, *self._back]
        before, after = (
            self._tokenizer(part, add_special_tokens=False)["input_ids"] for part in self._frame
        )
        return [*before, *ids, *after]


def _chat_frame(tokenizer: Any, name: str) -> tuple[str, str]:
    """What the chat template writes before and after a user's message."""
    from jinja2 import TemplateError

    advice = "Set reader.chat_template: false, or name an instruction-tuned model."
    if not tokenizer.chat_template:
        raise ModelError(f"{name} has no chat template. {advice}")
    try:
        written: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # Qwen3 and others: answer at once; unknown names are ignored
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise ModelError(f"{name} has a chat template that fails: {error}. {advice}") from error
    before, mark, after = written.partition(_MARK)
    if not mark:
        raise ModelError(f"{name} has a chat template that leaves the message out. {advice}")
    return before, after


def _special_frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []
