"""Prompt templates as data: fixed fields, checked when loaded.

A template says how a question and its passages become the reader's prompt. It knows nothing of
tokens or budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

from pydantic import BaseModel, ConfigDict, field_validator

from rag_frozen.types import Passage, Question

__all__ = ["PromptTemplate"]


class PromptTemplate(BaseModel):
    """How a prompt is written.

    ``with_passages`` holds ``{passages}`` and ``{question}`` once each; ``passage`` is written
    once a passage and holds ``{title}`` and ``{text}`` (``{number}``, from 1, if wished);
    ``closed_book`` holds ``{question}`` and is used where there is no passage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    with_passages: str = "{passages}Question: {question}\nAnswer:"
    passage: str = "{title}\n\n{text}\n\n"
    closed_book: str = "Question: {question}\nAnswer:"

    @field_validator("with_passages")
    @classmethod
    def _check_with_passages(cls, value: str) -> str:
        return _checked(value, required={"passages", "question"}, allowed={"passages", "question"})

    @field_validator("passage")
    @classmethod
    def _check_passage(cls, value: str) -> str:
        return _checked(value, required={"text"}, allowed={"title", "text", "number"})

    @field_validator("closed_book")
    @classmethod
    def _check_closed_book(cls, value: str) -> str:
        return _checked(value, required={"question"}, allowed={"question"})

    def write_passage(self, passage: Passage, number: int) -> str:
        """Write one passage, the ``number``-th of the prompt (from 1).

        >>> PromptTemplate().write_passage(Passage("1", "Hamlet", "A play."), 1)
        'Hamlet\\n\\nA play.\\n\\n'
        """
        return self.passage.format(title=passage.title, text=passage.text, number=number)

    def write(self, question: Question, passages: Sequence[Passage]) -> str:
        """Write the whole prompt, passages in the order given; closed book when there is none."""
        if not passages:
            return self.closed_book.format(question=question.text)
        written = "".join(
            self.write_passage(passage, number) for number, passage in enumerate(passages, 1)
        )
        return self.with_passages.format(passages=written, question=question.text)


def _checked(value: str, *, required: set[str], allowed: set[str]) -> str:
    try:
        fields = [
            field for _, field, spec, conversion in Formatter().parse(value) if field is not None
        ]
        plain = all(
            not spec and not conversion for _, field, spec, conversion in Formatter().parse(value)
        )
    except ValueError as error:
        raise ValueError(f"the template {value!r} is not well formed: {error}") from error
    unknown = [field for field in fields if field not in allowed]
    if unknown or not plain:
        raise ValueError(
            f"the template {value!r} may hold only {_braced(allowed)}, "
            f"found {unknown or 'a format'}; write other braces twice: {{{{ }}}}"
        )
    for field in sorted(required):
        if fields.count(field) != 1:
            raise ValueError(
                f"the template {value!r} must hold {{{field}}} once, found {fields.count(field)}"
            )
    return value


def _braced(names: set[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
