"""One frozen reader over one task of a study: rows, trainings and the rates they are trained with.

Models and rows are loaded when they are first needed and then kept, so that a study whose cells
are finished loads next to nothing, and one that goes on after a stop begins where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from rag_frozen.artifacts import artifact_root
from rag_frozen.artifacts.writing import atomic_write_text
from rag_frozen.models.device import choose_device
from rag_frozen.prompting.input_encoder import InputEncoder
from rag_frozen.reader.make import make_reader
from rag_frozen.recipes.pipeline import ReaderSettings
from rag_frozen.studies.evaluations import (
    Evaluation,
    Pieces,
    open_pieces,
    open_questions,
    open_rows,
)
from rag_frozen.studies.methods import training_of
from rag_frozen.studies.settings import (
    PromptStudy,
    QuestionsEvaluation,
    RowsEvaluation,
    StudyTask,
    TrainedMethod,
)
from rag_frozen.training.loop import Progress
from rag_frozen.training.prompt_data import PromptRow, PromptRows, load_prompt_rows
from rag_frozen.training.prompt_settings import InputDependentPrompt
from rag_frozen.training.prompt_start import input_encoder
from rag_frozen.training.prompt_task import TrainableReader, score_rows
from rag_frozen.training.prompt_training import AtHand, PromptReport, data_hashes, train_prompt

__all__ = ["Bench", "Benches"]


class Benches:
    """The benches of a study, and the models that they share."""

    def __init__(
        self,
        study: PromptStudy,
        *,
        root: Path | None,
        tell: Callable[[str], None],
        progress: Callable[[Progress], None],
    ) -> None:
        """Load nothing yet.

        Args:
            study: the recipe.
            root: artifacts' folder.
            tell: is told what is being done.
            progress: is told each training's progress.
        """
        self.study = study
        self.folder = artifact_root(root) / "studies" / study.name
        self.root = root
        self.tell = tell
        self.progress = progress
        self._readers: dict[str, TrainableReader] = {}
        self._encoders: dict[tuple[str, int], InputEncoder] = {}
        self._benches: dict[tuple[str, str], Bench] = {}

    def of(self, reader: str, task: str) -> Bench:
        """The bench of a reader and a task, by their names."""
        place = (reader, task)
        if place not in self._benches:
            [found] = [one for one in self.study.tasks if one.name == task]
            self._benches[place] = Bench(self, reader, found)
        return self._benches[place]

    def reader(self, name: str) -> TrainableReader:
        """A frozen reader of the study."""
        if name not in self._readers:
            self._readers[name] = make_reader(self.study.readers[name])
        return self._readers[name]

    def encoder(self, head: InputDependentPrompt) -> InputEncoder:
        """The frozen encoder that a head reads with."""
        place = (head.encoder, head.max_tokens)
        if place not in self._encoders:
            made = input_encoder(head, choose_device())
            assert made is not None  # the head is input-dependent
            self._encoders[place] = made
        return self._encoders[place]


class Bench:
    """A reader and a task; see the module."""

    def __init__(self, benches: Benches, reader: str, task: StudyTask) -> None:
        self.benches = benches
        self.study = benches.study
        self.reader_name = reader
        self.task = task
        self._rates: dict[str, tuple[float, str]] = {}
        self._trained: dict[tuple[str, int, float], PromptReport] = {}

    @property
    def settings(self) -> ReaderSettings:
        """The reader's."""
        return self.study.readers[self.reader_name]

    @property
    def reader(self) -> TrainableReader:
        """The frozen reader."""
        return self.benches.reader(self.reader_name)

    @cached_property
    def rows(self) -> PromptRows:
        """Training and validation rows, the same for every method and seed."""
        study = self.study
        data = self.task.data.model_copy(
            update={"path": study.data_path, "split_seed": study.split_seed}
        )
        return load_prompt_rows(data, template=study.template, seed=study.split_seed)

    @property
    def shots(self) -> tuple[PromptRow, ...]:
        """Training rows in order, for few-shot prompts."""
        return tuple(row for _, of_one in self.rows.training for row in of_one)

    @cached_property
    def data_identity(self) -> str:
        """Changes with the reader, with the rows, and with how they are split."""
        data = self.task.data.model_copy(update={"path": self.study.data_path})
        described = (
            self.reader.base_digest,
            self.settings.model_dump(mode="json", exclude={"model", "encoder"}),
            data.model_dump(mode="json", exclude={"path"}),
            data_hashes(data),
            self.study.template.model_dump(mode="json"),
            self.study.split_seed,
        )
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    @cached_property
    def evaluations(self) -> list[Evaluation | Pieces]:
        """What the methods are measured on."""
        return [self._opened(one) for one in self.task.evaluations]

    def _opened(self, wanted: object) -> Evaluation | Pieces:
        match wanted:
            case QuestionsEvaluation():
                return open_questions(
                    wanted,
                    self.study,
                    self.settings,
                    reader_digest=self.reader.base_digest,
                    cache=self.benches.folder / "contexts",
                    root=self.benches.root,
                )
            case RowsEvaluation():
                return open_rows(wanted, self.study)
            case _:
                return open_pieces(wanted, self.study)  # type: ignore[arg-type]

    def plain_matches(self) -> list[bool]:
        """Exact match of the plain reader on each validation row, measured once and kept."""
        name = f"plain-{self.data_identity[:16]}.json"
        stored = self.benches.folder / "validation" / name
        if not stored.exists():
            self.benches.tell(f"{self.reader_name}, {self.task.name}: plain on validation rows")
            matched, _ = score_rows(self.reader, None, self.rows.validation)
            atomic_write_text(stored, json.dumps(list(map(bool, matched))) + "\n")
        return [bool(one) for one in json.loads(stored.read_text(encoding="utf-8"))]

    def train(self, method: TrainedMethod, *, seed: int, rate: float | None = None) -> PromptReport:
        """Train a method with a seed, or find it trained, with the rate that was chosen for it."""
        if rate is None:
            rate, _ = self.rate(method)
        place = (method.name, seed, rate)
        if place in self._trained:
            return self._trained[place]
        optimiser = method.optimiser.model_copy(update={"learning_rate": rate})
        recipe = training_of(
            method.model_copy(update={"optimiser": optimiser}),
            self.study,
            self.task,
            (self.reader_name, self.settings),
            seed=seed,
        )
        head = method.head
        known = AtHand(
            self.reader,
            self.benches.encoder(head) if isinstance(head, InputDependentPrompt) else None,
            rows=lambda: self.rows,
            plain=self.plain_matches,
        )
        progress = self._telling(f"{method.name}, seed {seed}, learning rate {rate:g}")
        done = train_prompt(recipe, artifact_root(self.benches.root), progress, at_hand=known)
        self._trained[place] = done
        return done

    def _telling(self, what: str) -> Callable[[Progress], None]:
        """Progress that says once what is trained: nothing, where it is found trained."""
        told: list[str] = []

        def report(progress: Progress) -> None:
            if not told:
                told.append(what)
                self.benches.tell(f"{self.reader_name}, {self.task.name}: training {what}")
            self.benches.progress(progress)

        return report

    def rate(self, method: TrainedMethod) -> tuple[float, str]:
        """The learning rate of a method on this bench, and in words how it was chosen."""
        if method.name not in self._rates:
            self._rates[method.name] = self._chosen(method)
        return self._rates[method.name]

    def _chosen(self, method: TrainedMethod) -> tuple[float, str]:
        source = self.task.rates_from
        if source is not None:
            other = self.benches.of(source.reader or self.reader_name, source.task)
            return other.rate(method)[0], f"learning rate as on {source.task}"
        rates = method.learning_rates
        if len(rates) < 2:
            return (*rates, method.optimiser.learning_rate)[0], ""
        first = self.study.seeds_of(method, self.task)[0]
        scores = [
            self.train(method, seed=first, rate=rate).metrics["exact_match"] for rate in rates
        ]
        best = max(range(len(rates)), key=lambda place: (scores[place], -place))
        tried = ", ".join(
            f"{rate:g}: {score:.1f}" for rate, score in zip(rates, scores, strict=True)
        )
        return rates[best], f"learning rate {rates[best]:g} (validation exact match {tried})"
