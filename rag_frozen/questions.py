"""What may be asked: questions are checked once, where they come in."""

from __future__ import annotations

from collections.abc import Sequence

from rag_frozen.errors import InputError
from rag_frozen.types import Question

__all__ = ["MAX_QUESTION_WORDS", "as_questions"]

MAX_QUESTION_WORDS = 1_000
"""Longer questions are refused: no reader's window holds them beside passages."""


def as_questions(questions: Sequence[str | Question]) -> list[Question]:
    """Check questions and give bare strings an id: their place in the batch.

    Raises:
        InputError: for an empty question, one of more than ``MAX_QUESTION_WORDS`` words, or
            something that is no text; a bare string in place of a list.
    """
    if isinstance(questions, str):
        raise InputError("answer() takes a list of questions; for one question use ask().")
    checked = []
    for number, asked in enumerate(questions):
        question = asked if isinstance(asked, Question) else Question(str(number), asked)
        text: object = question.text
        if not isinstance(text, str):
            raise InputError(
                f"Question {question.id!r} is {type(text).__name__}, not text. Give a string."
            )
        n_words = len(text.split())
        if n_words == 0 or not any(char.isalnum() for char in text):
            raise InputError(f"Question {question.id!r} is empty. Ask something in words.")
        if n_words > MAX_QUESTION_WORDS:
            raise InputError(
                f"Question {question.id!r} has {n_words:,} words; at most "
                f"{MAX_QUESTION_WORDS:,} are read. Ask a shorter question."
            )
        checked.append(question)
    return checked
