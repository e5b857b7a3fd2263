"""Metrics of written texts that a recipe may ask for, each with a name, a version, a definition.

Each scores all predictions of a run together, in percent. ROUGE is rouge-score's (the Google
Research package that papers cite), BLEU is sacrebleu's, accuracy and macro F1 scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag_frozen.errors import InputError, MissingPackageError
from rag_frozen.evaluation.metrics import (
    METRIC_VERSIONS,
    efficientqa_match,
    gold_in_output,
    regex_match,
)
from rag_frozen.evaluation.statistics import bootstrap_counts

__all__ = [
    "TEXT_METRICS",
    "TextMetric",
    "intervals_of_whole",
    "normalize_label",
    "score_texts",
    "scores_of_each",
]

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], float]
Each = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]
Counts = NDArray[np.int64]
"""How often each prediction stands in each resample: ``[S, n]``."""
Scores = NDArray[np.float64]
Resampled = Callable[[Sequence[str], Sequence[Sequence[str]]], Callable[[Counts], Scores]]


@dataclass(frozen=True, slots=True)
class TextMetric:
    """``score`` takes predictions and, for each, its gold texts (at least one); percent. ``each``
    gives each prediction's own score, in percent, where ``score`` is their mean, ``resampled`` the
    score of resamples where it is of the whole set."""

    version: str
    definition: str
    score: Score
    each: Each | None = None
    resampled: Resampled | None = None


def score_texts(
    names: Sequence[str], predictions: Sequence[str], golds: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Score predictions by the metrics named, in percent; nothing where there is no prediction.

    Raises:
        InputError: for a metric that is not known, or one that cannot take these golds.
        MissingPackageError: when the package of a metric is not installed.

    >>> score_texts(["gold_in_output"], ["it is Rome.", "Oslo"], [["Rome"], ["Bern"]])
    {'gold_in_output': 50.0}
    """
    unknown = [name for name in names if name not in TEXT_METRICS]
    if unknown:
        raise InputError(
            f"There is no metric {unknown[0]!r} of texts. There are: {', '.join(TEXT_METRICS)}."
        )
    if not predictions:
        return {}
    return {name: TEXT_METRICS[name].score(predictions, golds) for name in names}


def scores_of_each(
    names: Sequence[str], predictions: Sequence[str], golds: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Each prediction's own score, in percent, by those of the metrics named that are means.

    >>> scores_of_each(["gold_in_output", "bleu"], ["it is Rome.", "Oslo"], [["Rome"], ["Bern"]])
    {'gold_in_output': [100.0, 0.0]}
    """
    chosen = {name: TEXT_METRICS[name].each for name in names if predictions}
    return {name: each(predictions, golds) for name, each in chosen.items() if each is not None}


def intervals_of_whole(
    names: Sequence[str], predictions: Sequence[str], golds: Sequence[Sequence[str]]
) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals, in percent, of those of the metrics named that are no means."""
    found = {}
    for name in names if predictions else ():
        resampled = TEXT_METRICS[name].resampled
        if resampled is not None:
            scores = resampled(predictions, golds)
            drawn = np.concatenate([scores(some) for some in bootstrap_counts(len(predictions))])
            low, high = np.quantile(drawn, [0.025, 0.975])
            found[name] = (float(low), float(high))
    return found


def normalize_label(text: str) -> str:
    """Lower case, white space folded, a final full stop removed: what counts of a label.

    >>> normalize_label(" Not  Entailment. ")
    'not entailment'
    """
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def _mean(
    each: Each,
    predictions: Sequence[str],
    golds: Sequence[Sequence[str]],
) -> float:
    found = each(predictions, golds)
    return sum(found) / len(found)


def _matches(
    match: Callable[[str, Sequence[str]], bool],
    predictions: Sequence[str],
    golds: Sequence[Sequence[str]],
) -> list[float]:
    pairs = zip(predictions, golds, strict=True)
    return [100.0 * match(text, gold) for text, gold in pairs]


def _regex_matches(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> list[float]:
    import re

    try:
        return _matches(regex_match, predictions, golds)
    except re.error as error:
        raise InputError(
            f"regex_match was asked for, and a gold answer is no regular expression: {error}. "
            "Leave it out, or name data whose answers are patterns (--set data.patterns=true)."
        ) from error


def _labels(
    predictions: Sequence[str], golds: Sequence[Sequence[str]]
) -> tuple[list[str], list[str]]:
    """Gold and predicted labels; of several gold labels the one that was predicted, else the
    first."""
    predicted = [normalize_label(text) for text in predictions]
    true = []
    for label, accepted in zip(predicted, golds, strict=True):
        options = [normalize_label(one) for one in accepted]
        true.append(label if label in options else options[0])
    return true, predicted


def _accuracy(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    from sklearn.metrics import accuracy_score

    true, predicted = _labels(predictions, golds)
    return 100 * float(accuracy_score(true, predicted))


def _right_labels(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> list[float]:
    true, predicted = _labels(predictions, golds)
    return [100.0 * (one == other) for one, other in zip(true, predicted, strict=True)]


def _macro_f1(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    from sklearn.metrics import f1_score

    true, predicted = _labels(predictions, golds)
    labels = sorted(set(true))
    return 100 * float(f1_score(true, predicted, labels=labels, average="macro", zero_division=0))


def _resampled_macro_f1(
    predictions: Sequence[str], golds: Sequence[Sequence[str]]
) -> Callable[[Counts], Scores]:
    true, predicted = _labels(predictions, golds)
    labels = sorted(set(true))
    is_true = np.array([[one == label for label in labels] for one in true], dtype=np.float64)
    is_said = np.array([[one == label for label in labels] for one in predicted], dtype=np.float64)

    def scores(counts: Counts) -> Scores:
        """Over the gold labels that a resample has."""
        there = counts @ is_true
        f1 = 2 * (counts @ (is_true * is_said)) / np.maximum(there + counts @ is_said, 1)
        made: Scores = 100 * (f1 * (there > 0)).sum(axis=1) / (there > 0).sum(axis=1)
        return made

    return scores


def _resampled_bleu(
    predictions: Sequence[str], golds: Sequence[Sequence[str]]
) -> Callable[[Counts], Scores]:
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)  # silences a warning; counts and lengths are the same
    each = [
        bleu.sentence_score(text, list(gold)) for text, gold in zip(predictions, golds, strict=True)
    ]
    parts = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each])

    def scores(counts: Counts) -> Scores:
        found = []
        for row in (counts @ parts).tolist():
            made = BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="exp")
            found.append(made.score)
        return np.array(found, dtype=np.float64)

    return scores


def _rouge(kind: str, predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> list[float]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingPackageError("ROUGE needs rouge-score: pip install rouge-score") from error
    scorer = RougeScorer([kind], use_stemmer=True)
    return [
        100 * float(scorer.score_multi(list(gold), text)[kind].fmeasure)
        for text, gold in zip(predictions, golds, strict=True)
    ]


def _by_each(version: str, definition: str, each: Each) -> TextMetric:
    return TextMetric(version, definition, partial(_mean, each), each)


def _bleu(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> float:
    try:
        import sacrebleu
    except ImportError as error:
        raise MissingPackageError("BLEU needs sacrebleu: pip install sacrebleu") from error
    most = max(map(len, golds))
    references: Any = [  # Any: sacrebleu takes None for a missing one, its types do not say so
        [gold[at] if at < len(gold) else None for gold in golds] for at in range(most)
    ]
    return float(sacrebleu.corpus_bleu(list(predictions), references).score)


TEXT_METRICS: Mapping[str, TextMetric] = {
    "accuracy": TextMetric(
        "label-accuracy/1",
        "share of predictions equal to a gold label: lower case, white space folded, no final "
        "full stop",
        _accuracy,
        _right_labels,
    ),
    "macro_f1": TextMetric(
        "label-macro-f1/1",
        "mean over the gold labels of each label's F1, labels compared as for accuracy",
        _macro_f1,
        resampled=_resampled_macro_f1,
    ),
    **{
        name: _by_each(
            f"rouge-score-{kind}-stemmed/1",
            f"mean over the texts of {kind}'s F-measure, Porter's stemmer on, the best gold text",
            partial(_rouge, kind),
        )
        for name, kind in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL"))
    },
    "bleu": TextMetric(
        "sacrebleu-corpus-13a-exp/1",
        "BLEU of the whole corpus, all gold texts as references, tokens 13a, exponential smoothing",
        _bleu,
        resampled=_resampled_bleu,
    ),
    "efficientqa_match": _by_each(
        METRIC_VERSIONS["efficientqa_match"],
        "share of predictions equal to a gold answer, after NFD and SQuAD's normalisation",
        partial(_matches, efficientqa_match),
    ),
    "gold_in_output": _by_each(
        METRIC_VERSIONS["gold_in_output"],
        "share of normalised predictions that hold a normalised gold answer as a substring",
        partial(_matches, gold_in_output),
    ),
    "regex_match": _by_each(
        METRIC_VERSIONS["regex_match"],
        "share of predictions at whose beginning a gold pattern matches, without case",
        _regex_matches,
    ),
}
"""The metrics that a recipe may name beside the standing ones."""
