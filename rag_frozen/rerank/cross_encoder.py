"""Cross-encoders: one transformer reads question and passage together and gives a score.

Any sentence-transformers cross-encoder, or sequence classifier of transformers with one label,
and the pocket reranker, whose weights ship with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import torch
from tokenizers import Tokenizer

from rag_frozen.errors import InputError, ModelError
from rag_frozen.models.device import DtypeName, choose_device, choose_dtype
from rag_frozen.models.digest import module_digest
from rag_frozen.models.parameters import ParameterCounts
from rag_frozen.models.quiet import quiet_loading
from rag_frozen.models.source import ModelFolder, resolve_model
from rag_frozen.models.text_tower import TextTower
from rag_frozen.rerank.pocket import is_pocket_reranker, load_pocket_classifier
from rag_frozen.rerank.window import fit_pairs
from rag_frozen.types import Hit, Passage, Question, Ranking, sort_hits

__all__ = ["PASSAGE_FORMAT", "CrossEncoderReranker", "pair_of"]

PASSAGE_FORMAT = "{title}. {text}"
"""How a passage is written for the cross-encoder; the pocket reranker was trained on this."""


def pair_of(
    question: Question, passage: Passage, *, passage_format: str = PASSAGE_FORMAT
) -> tuple[str, str]:
    """Write a pair as the cross-encoder reads it: the question, and title and text.

    A passage without a title is its text alone, whatever the format.

    >>> pair_of(Question("1", "who?"), Passage("2", "Hamlet", "A play."))
    ('who?', 'Hamlet. A play.')
    """
    if not passage.title:
        return question.text, passage.text
    return question.text, passage_format.format(title=passage.title, text=passage.text)


class CrossEncoderReranker:
    """Scores all pairs of a call together, in batches of like length."""

    def __init__(
        self,
        model: ModelFolder,
        *,
        max_length: int = 256,
        device: str | None = None,
        dtype: DtypeName = "auto",
        token_budget: int | None = None,
        passage_format: str = PASSAGE_FORMAT,
    ) -> None:
        """Load the model.

        Args:
            model: a folder with safetensors.
            max_length: tokens of a pair, special tokens included. The passage is cut, not the
                question; one that leaves the passage under a quarter is cut with a warning.
            device, dtype: where and in what it runs.
            token_budget: tokens a batch, padding included; by default 4,096 on a CPU, 8,192
                elsewhere.
            passage_format: a passage's text with the fields ``{title}`` and ``{text}``.

        Raises:
            InputError: when ``passage_format`` has other fields, or no ``{text}``.
            ModelError: when it cannot be loaded or has more than one label.
        """
        _check_format(passage_format)
        place = choose_device(device)
        classifier, tokenizer_folder = _load(model.path)
        labels = int(classifier.config.num_labels)
        if labels != 1:
            raise ModelError(
                f"{model.name} has {labels} labels; a reranker gives one score. Name a "
                "cross-encoder such as cross-encoder/ms-marco-MiniLM-L6-v2."
            )
        self.name = model.name
        self.digest = module_digest(classifier)
        self._format = passage_format
        positions = getattr(classifier.config, "max_position_embeddings", None)
        self._window = min(max_length, positions) if positions else max_length
        self._tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tower = TextTower(
            classifier,
            tokenizer_folder,
            place,
            choose_dtype(place, dtype),
            max_length,
            token_budget,
            _score,
        )

    @property
    def tokens_read(self) -> int:
        """Tokens read so far."""
        return self._tower.tokens_read

    @property
    def model(self) -> torch.nn.Module:
        """The transformer with its score."""
        return self._tower.model

    def parameter_counts(self) -> ParameterCounts:
        """All weights, and those outside of embedding tables."""
        return self._tower.parameter_counts()

    def rerank(
        self, questions: Sequence[Question], candidates: Sequence[Sequence[Passage]]
    ) -> list[Ranking]:
        """Return each question's candidates by the cross-encoder's score, best first, ties by id.

        Scores are logits. In fp32 they do not depend on the batch (to 1e-4).
        """
        pairs = [
            pair_of(question, passage, passage_format=self._format)
            for question, passages in zip(questions, candidates, strict=True)
            for passage in passages
        ]
        fitted = fit_pairs(pairs, self._tokenizer, window=self._window)
        scores = iter(self._tower.encode(fitted)[:, 0].tolist() if fitted else [])
        return [
            sort_hits([Hit(passage.id, next(scores)) for passage in passages])
            for passages in candidates
        ]


def _check_format(passage_format: str) -> None:
    try:
        fields = {name for _, name, _, _ in Formatter().parse(passage_format) if name is not None}
        if fields <= {"title", "text"}:
            passage_format.format(title="", text="")
    except (ValueError, LookupError) as error:
        raise InputError(
            f"The passage format {passage_format!r} cannot be read: {error}. Write it as "
            f"{PASSAGE_FORMAT!r}."
        ) from error
    if "text" not in fields or not fields <= {"title", "text"}:
        raise InputError(
            f"The passage format {passage_format!r} has the fields {sorted(fields)}; it takes "
            f"{{text}}, and {{title}} if wanted. Write it as {PASSAGE_FORMAT!r}."
        )


def _load(folder: Path) -> tuple[Any, Path]:  # Any: a transformers model
    if is_pocket_reranker(folder):
        minilm = resolve_model("pocket/minilm").path
        return load_pocket_classifier(folder, minilm), minilm
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet_loading():
            model = AutoModelForSequenceClassification.from_pretrained(
                str(folder), use_safetensors=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise ModelError(
            f"The cross-encoder in {folder} cannot be loaded: {said}. "
            "Name a folder or a hub model with config.json, tokenizer.json and safetensors."
        ) from error
    return model, folder


def _score(output: Any, mask: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = output.logits
    return logits
