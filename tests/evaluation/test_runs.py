"""A run is stored whole, found again, continued after any crash, and never hides behind another."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rag_frozen.absent_stages import KeepOrder, NoPacking, NoReader
from rag_frozen.artifacts import list_artifacts, load_manifest, verify
from rag_frozen.errors import ArtifactDamagedError, ArtifactMissingError, InputError
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.runs import RunOptions, read_run, run_folder, store_run
from rag_frozen.evaluation.scoring import ScoredAnswer
from rag_frozen.evaluation.stored_runs import (
    copy_run,
    refuse_copy,
    replay_stored,
    stored_ranking,
    stored_scores,
)
from rag_frozen.packing.each import PassagePrior
from rag_frozen.pipeline import Pipeline
from rag_frozen.retrieval.fusion import FusionRetriever, reciprocal_rank_fusion
from rag_frozen.retrieval.replay import ReplayRetriever, read_trec_run
from rag_frozen.types import Context, Generation, Hit, Passage, Question
from tests.evaluation import data
from tests.test_pipeline import PASSAGES, ByLength, Echo, Retriever, pipeline, reading_each

SAME = ("predictions.jsonl", "metrics.json", "run.trec", "retrieve.trec", "qrels.txt")
"""Files that every undisturbed or resumed run of the same shares, byte for byte."""
TWO = RunOptions(chunk_size=2)


class Other(Echo):
    """Answers otherwise, as other weights of the same name would."""

    digest = "f" * 64

    def generate(self, contexts: list[Context]) -> list[Generation]:  # type: ignore[override]
        return [Generation("Oslo", -1.0, 1, "end") for _ in contexts]


class Crashing(Echo):
    """Dies at the n-th batch."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def generate(self, contexts):
        if self.calls == self._at:
            raise KeyboardInterrupt
        return super().generate(contexts)


def many(n: int = 11) -> ExampleSet:
    examples = tuple(
        Example(Question(f"q{i}", f"which city {i}"), ("Rome",) if i % 3 else ("Oslo", "é"), "p1")
        for i in range(n)
    )
    return ExampleSet("many", examples, "1" * 64)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SAME}


def test_a_run_is_stored_whole_and_found_again(tmp_path: Path):
    run = store_run(pipeline(), data(), tmp_path, evaluation={"name": "tiny"})
    manifest = verify(run.folder, kind="run")
    assert manifest.counts == {"questions": 2, "unanswerable": 1}
    assert run.folder.parent == run_folder(tmp_path, pipeline="test", data="tiny")
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prediction"] for row in rows] == ["Rome", "Rome", "Rome"]
    assert [row["answers"] for row in rows] == [["rome"], ["Paris", "Lutetia"], []]
    assert [row["lost_at"] for row in rows] == [None, "reading", None]
    assert json.loads((run.folder / "metrics.json").read_text()) == run.result.to_json()
    recipe = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    assert recipe == {"evaluation": {"name": "tiny"}, "pipeline": {}}
    assert "# test on tiny" in (run.folder / "report.md").read_text()
    assert (run.folder / "qrels.txt").read_text() == "1 0 p1 1\n2 0 p2 1\n"
    timings = [json.loads(line) for line in (run.folder / "timings.jsonl").open()]
    assert [set(row["seconds"]) for row in timings] == [
        {"retrieve", "fetch", "rerank", "pack", "read"}
    ] * 3
    costs = json.loads((run.folder / "costs.json").read_text())
    assert costs["peak_memory_mib"] > 1
    assert costs["tokens"]["answer"] == 2
    assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]


def test_a_stored_run_gives_the_scores_of_the_run_itself(tmp_path: Path):
    run = store_run(pipeline(), data(), tmp_path)
    in_memory = evaluate(pipeline(), data())
    assert read_run(run.folder).to_json() == run.result.to_json() == in_memory.to_json()
    assert read_run(run.folder).scored == in_memory.scored


def test_the_stored_ranking_is_the_one_that_was_scored(tmp_path: Path):
    run = store_run(pipeline(), data(), tmp_path)
    answers = pipeline().answer([example.question for example in data().examples])
    assert read_trec_run(run.folder / "run.trec") == {a.question.id: a.hits for a in answers}
    retrieved = read_trec_run(run.folder / "retrieve.trec")
    assert retrieved["1"] == (Hit("p0", 3.0), Hit("p1", 2.0), Hit("p2", 1.0))


def test_an_equal_run_is_kept_and_another_answer_gets_another_folder(tmp_path: Path):
    first = store_run(pipeline(), data(), tmp_path).folder
    again = store_run(pipeline(), data(), tmp_path).folder
    retrained = pipeline(reader=Other(), recipe={"reader": {"model": "mine/reader"}})
    third = store_run(retrained, data(), tmp_path).folder
    assert first == again != third
    assert sorted(list_artifacts(tmp_path, "run")) == sorted([first, third])
    models = verify(third).models
    assert (models["reader"].name, models["reader"].digest) == ("mine/reader", "f" * 64)


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_a_run_that_crashed_goes_on_and_ends_as_an_undisturbed_one(tmp_path: Path, at: int):
    whole = store_run(pipeline(), many(), tmp_path / "a", options=TWO)
    with pytest.raises(KeyboardInterrupt):
        store_run(pipeline(reader=Crashing(at)), many(), tmp_path / "b", options=TWO)
    reader = Echo()
    resumed = store_run(pipeline(reader=reader), many(), tmp_path / "b", options=TWO)
    assert resumed.resumed == 2 * at
    assert reader.calls == 6 - at
    assert contents(resumed.folder) == contents(whole.folder)
    assert resumed.folder.name == whole.folder.name
    assert len((resumed.folder / "timings.jsonl").read_text().splitlines()) == 11


@pytest.mark.parametrize("torn", ["predictions.jsonl", "run.trec", "timings.jsonl"])
def test_what_a_killed_process_half_wrote_is_cut_off(tmp_path: Path, torn: str):
    whole = store_run(pipeline(), many(), tmp_path / "a", options=TWO)
    with pytest.raises(KeyboardInterrupt):
        store_run(pipeline(reader=Crashing(2)), many(), tmp_path / "b", options=TWO)
    (unfinished,) = run_folder(tmp_path / "b", pipeline="test", data="many").iterdir()
    with (unfinished / torn).open("ab") as handle:
        handle.write(b'{"id": "q4", "half')
    resumed = store_run(pipeline(), many(), tmp_path / "b", options=TWO)
    assert contents(resumed.folder) == contents(whole.folder)


def test_a_shortened_file_of_an_unfinished_run_is_told(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        store_run(pipeline(reader=Crashing(2)), many(), tmp_path, options=TWO)
    (unfinished,) = run_folder(tmp_path, pipeline="test", data="many").iterdir()
    (unfinished / "predictions.jsonl").write_text("")
    with pytest.raises(ArtifactDamagedError, match=r"predictions.jsonl has 0 bytes"):
        store_run(pipeline(), many(), tmp_path, options=TWO)


def test_an_unfinished_run_is_not_continued_with_other_weights_or_chunks(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        store_run(pipeline(reader=Crashing(2)), many(), tmp_path, options=TWO)
    recipe = {"reader": {"model": "mine/reader"}}
    other = store_run(pipeline(reader=Other(), recipe=recipe), many(), tmp_path, options=TWO)
    by_three = store_run(pipeline(), many(), tmp_path, options=RunOptions(chunk_size=3))
    assert (other.resumed, by_three.resumed) == (0, 0)


def test_two_processes_do_not_run_the_same_at_once(tmp_path: Path):
    class Nested(Echo):
        def generate(self, contexts):
            with pytest.raises(InputError, match="Another process"):
                store_run(pipeline(), many(), tmp_path, options=TWO)
            return super().generate(contexts)

    assert store_run(pipeline(reader=Nested()), many(), tmp_path, options=TWO).resumed == 0


def test_overlapped_stages_give_the_same_run(tmp_path: Path):
    plain = store_run(pipeline(), many(), tmp_path / "a", options=TWO)
    ahead = store_run(
        pipeline(), many(), tmp_path / "b", options=RunOptions(chunk_size=2, overlap=True)
    )
    assert contents(ahead.folder) == contents(plain.folder)


def test_stages_run_as_separate_passes_give_the_answers_of_one_pass(tmp_path: Path):
    whole = store_run(pipeline(), many(), tmp_path)
    ranked = store_run(
        pipeline(packer=NoPacking(), reader=NoReader()),
        many(),
        tmp_path,
        options=RunOptions(until="rerank"),
    )
    assert not (ranked.folder / "predictions.jsonl").exists()
    metrics = json.loads((ranked.folder / "metrics.json").read_text())
    assert "exact_match" not in metrics
    assert metrics["recall"] == whole.result.to_json()["recall"]
    path, reranked = stored_ranking(ranked.folder)
    assert reranked
    replay = ReplayRetriever(read_trec_run(path), name="stored")
    read = store_run(pipeline(retriever=replay, reranker=KeepOrder()), many(), tmp_path)
    predicted = [(row.id, row.prediction, row.confidence) for row in read.result.scored]
    assert predicted == [(r.id, r.prediction, r.confidence) for r in whole.result.scored]
    with pytest.raises(InputError, match="ends with rankings"):
        read_run(ranked.folder)


def test_stages_run_as_separate_passes_tell_the_scores_that_each_passage_is_read_by(tmp_path: Path):
    """Retrieve, rerank and read, each a pass of its own, read by the scores of any stage."""

    def fused() -> FusionRetriever:
        other = ReplayRetriever(
            {f"q{i}": (Hit("p2", 0.9), Hit("p1", 0.8), Hit("p0", 0.1)) for i in range(11)},
            name="other",
        )
        parts = [("bm25", Retriever(), 3), ("dense", other, 3)]
        return FusionRetriever(parts, reciprocal_rank_fusion)

    def passed(stage: str, folder: Path | None, **stages: object) -> Pipeline:
        retriever: object = fused()
        if folder is not None:
            scores = {name: read_trec_run(path) for name, path in stored_scores(folder).items()}
            found = read_trec_run(stored_ranking(folder)[0])
            retriever = ReplayRetriever(found, name="stored", scores=scores)
        made = reading_each(retriever=retriever, weigh=PassagePrior(stage, 1.5), **stages)
        if folder is not None:
            replay_stored(made, folder, many())
        return made

    def store(made: Pipeline, until: str) -> Path:
        options = RunOptions(until=until)  # type: ignore[arg-type]
        return store_run(made, many(), tmp_path, options=options).folder

    last = {"packer": NoPacking(), "reader": NoReader()}
    found = store(passed("dense", None, reranker=KeepOrder(), rerank_depth=3, **last), "retrieve")
    recipe = {"reranker": {"kind": "cross-encoder"}}
    ranked = store(passed("dense", found, recipe=recipe, **last), "rerank")
    assert set(stored_scores(found)) == {"retrieve", "bm25", "dense"}
    assert set(stored_scores(ranked)) == {"retrieve", "bm25", "dense", "rerank"}
    answers = set()
    for stage in ("retrieve", "bm25", "dense", "rerank"):
        whole = read_run(store(passed(stage, None), "read")).scored
        read = read_run(store(passed(stage, ranked, reranker=KeepOrder()), "read")).scored
        for ours, theirs in zip(read, whole, strict=True):
            assert (ours.prediction, ours.logprob) == (theirs.prediction, theirs.logprob)
            assert ours.evidence == theirs.evidence  # every stage's scores, and own answers
            assert ours.first_answering == theirs.first_answering
        answers.add(tuple((row.prediction, row.logprob) for row in whole))
    assert len(answers) == 4
    assert stored_scores(found / "run.trec") == {}


def test_lines_of_runs_from_before_passages_were_read_alone_are_still_read(tmp_path: Path):
    row = evaluate(reading_each(), data()).scored[0]
    assert ScoredAnswer.from_json(row.to_json()) == row
    assert [passage.own is None for passage in row.evidence] == [False, False]
    assert row.to_json()["evidence"][0]["own"].keys() == {"text", "logprob", "prior"}
    packed = evaluate(pipeline(), data()).scored[0]
    assert all("own" not in passage for passage in packed.to_json()["evidence"])
    assert ScoredAnswer.from_json(packed.to_json()) == packed


def test_predictions_of_another_run_are_not_gone_on_with(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        store_run(pipeline(reader=Crashing(2)), many(), tmp_path, options=TWO)
    (unfinished,) = run_folder(tmp_path, pipeline="test", data="many").iterdir()
    path = unfinished / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1].replace('"q1"', '"x1"'), *lines[2:]]))
    before = path.read_bytes()
    with (unfinished / "run.trec").open("ab") as handle:
        handle.write(b"half a line")
    with pytest.raises(
        ArtifactDamagedError, match=r"predictions\.jsonl is not what this run wrote"
    ):
        store_run(pipeline(), many(), tmp_path, options=TWO)
    assert path.read_bytes() == before
    assert (unfinished / "run.trec").read_bytes().endswith(b"half a line")


def test_predictions_of_another_recipe_over_the_same_questions_are_refused(tmp_path: Path):
    class Late(Other):
        """Has answered four questions otherwise when it dies."""

        def generate(self, contexts):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().generate(contexts)

    for name, reader in (("ours", Crashing(2)), ("theirs", Late())):
        with pytest.raises(KeyboardInterrupt):
            store_run(pipeline(reader=reader), many(), tmp_path / name, options=TWO)
    ours, theirs = (
        next(run_folder(tmp_path / name, pipeline="test", data="many").iterdir())
        for name in ("ours", "theirs")
    )
    foreign = (theirs / "predictions.jsonl").read_bytes()
    assert foreign.count(b"\n") == 4
    padded = foreign + b" " * 10_000  # longer than ours: nothing tells it but its hash
    (ours / "predictions.jsonl").write_bytes(padded)
    with pytest.raises(ArtifactDamagedError, match="is it of another run"):
        store_run(pipeline(), many(), tmp_path / "ours", options=TWO)
    assert (ours / "predictions.jsonl").read_bytes() == padded


def test_a_copy_that_was_made_before_a_kill_is_kept(tmp_path: Path):
    run = store_run(pipeline(), data(), tmp_path / "root")
    out = copy_run(run.folder, tmp_path / "out")
    times = sorted(path.stat().st_mtime_ns for path in out.iterdir())
    refuse_copy(out, load_manifest(run.folder).recipe)
    assert copy_run(run.folder, out) == out
    assert sorted(path.stat().st_mtime_ns for path in out.iterdir()) == times
    other = store_run(pipeline(), many(), tmp_path / "root")
    with pytest.raises(InputError, match=r"holds another run.*The new one is stored in"):
        copy_run(other.folder, out)
    with pytest.raises(InputError, match="holds another run"):
        refuse_copy(out, {"evaluation": {"name": "other"}})


def test_progress_begins_with_what_an_earlier_process_did(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        store_run(pipeline(reader=Crashing(2)), many(), tmp_path, options=TWO)
    told: list[int] = []
    store_run(pipeline(), many(), tmp_path, options=TWO, progress=lambda one: told.append(one.done))
    assert told == [4, 6, 8, 10, 11]


class Counting(ByLength):
    """Counts tokens as a cross-encoder does."""

    tokens_read = 0

    def parameter_counts(self) -> tuple[int, int]:
        return 10, 10

    def rerank(self, questions, candidates):
        self.tokens_read += 7 * len(questions)
        return super().rerank(questions, candidates)


def test_tokens_are_counted_over_all_processes_of_a_run(tmp_path: Path):
    broken = pipeline(reader=Crashing(2), reranker=Counting())
    with pytest.raises(KeyboardInterrupt):
        store_run(broken, many(), tmp_path, options=TWO)
    run = store_run(pipeline(reranker=Counting()), many(), tmp_path, options=TWO)
    assert run.resumed == 4
    assert json.loads((run.folder / "costs.json").read_text())["tokens"]["reranker"] == 7.0
    assert not (run.folder / "tokens.jsonl").exists()


class Sparse(Retriever):
    """Finds nothing for the second question."""

    def retrieve(self, questions, *, k):
        found = super().retrieve(questions, k=k)
        return [() if q.id == "q1" else r for q, r in zip(questions, found, strict=True)]


def test_a_stored_run_replays_the_questions_for_which_nothing_was_found(tmp_path: Path):
    def ranked(data: ExampleSet) -> Path:
        options = RunOptions(until="rerank")
        stages = {"retriever": Sparse(), "packer": NoPacking(), "reader": NoReader()}
        return store_run(pipeline(**stages), data, tmp_path, options=options).folder

    def replayed(folder: Path) -> Pipeline:
        stored = ReplayRetriever(read_trec_run(stored_ranking(folder)[0]), name="stored")
        made = pipeline(retriever=stored, reranker=KeepOrder())
        replay_stored(made, folder, many())
        return made

    read = store_run(replayed(ranked(many())), many(), tmp_path)
    assert [row.id for row in read.result.scored if not row.evidence] == ["q1"]
    fewer = replace(many(), examples=many().examples[:5], name="fewer")
    with pytest.raises(InputError, match="holds no ranking for"):
        store_run(replayed(ranked(fewer)), many(), tmp_path)


def test_a_finished_run_is_copied_out_and_nothing_is_overwritten(tmp_path: Path):
    run = store_run(pipeline(), data(), tmp_path / "root")
    copied = copy_run(run.folder, tmp_path / "out")
    assert contents(copied) == contents(run.folder)
    assert verify(copied, kind="run").fingerprint == run.folder.name
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.jsonl").write_text("{}")
    with pytest.raises(InputError, match="nothing was overwritten"):
        copy_run(run.folder, tmp_path / "mine")
    assert (tmp_path / "mine" / "predictions.jsonl").read_text() == "{}"


def test_passage_ids_that_a_trec_run_cannot_hold_lose_the_ranking_alone(tmp_path: Path, caplog):
    class Odd(Retriever):
        def retrieve(self, questions, *, k):
            return [(Hit("a b", 1.0),) for _ in questions]

    class Store:
        def __len__(self) -> int:
            return 1

        def get(self, passage_ids):
            return [Passage(one, "T", PASSAGES["p1"].text) for one in passage_ids]

    odd = pipeline(retriever=Odd(), store=Store())
    with caplog.at_level(logging.WARNING):
        run = store_run(odd, data(), tmp_path)
    assert "ranking is left out" in caplog.text
    assert not (run.folder / "run.trec").exists()
    assert verify(run.folder).counts["questions"] == 2
    with pytest.raises(ArtifactMissingError, match=r"no run\.trec"):
        stored_ranking(run.folder)


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot name a run"):
        run_folder(tmp_path, pipeline="test", data="owner/set")
    with pytest.raises(InputError, match="cannot name a run"):
        store_run(pipeline(), replace(data(), name="x" * 130), tmp_path)
    assert list(tmp_path.iterdir()) == []


_SCRIPT = """
import sys, time
from pathlib import Path
from tests.evaluation.test_runs import TWO, many
from tests.test_pipeline import Echo, pipeline
from rag_frozen.evaluation.runs import store_run

class Slow(Echo):
    def generate(self, contexts):
        time.sleep(0.02)
        return super().generate(contexts)

print("ready", flush=True)
print(store_run(pipeline(reader=Slow()), many(60), Path(sys.argv[1]), options=TWO).folder)
"""


def _killed_runs(root: Path, *, kills: int, seed: int) -> tuple[Path, int]:
    """Run the script again and again, killed after random times; return its folder in the end."""
    chance = random.Random(seed)
    done = 0
    while True:
        with subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(root)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if done < kills:
                time.sleep(chance.uniform(0.02, 0.5))
                process.send_signal(signal.SIGKILL)
                done += process.wait() == -signal.SIGKILL
                continue
            return Path(process.stdout.readline().strip()), done


def test_a_run_that_is_killed_three_times_ends_as_an_undisturbed_one(tmp_path: Path):
    whole = store_run(pipeline(), many(60), tmp_path / "a", options=TWO)
    folder, kills = _killed_runs(tmp_path / "b", kills=3, seed=1)
    assert kills == 3
    assert contents(folder) == contents(whole.folder)


@pytest.mark.soak
def test_a_run_that_is_killed_twenty_times_ends_as_an_undisturbed_one(tmp_path: Path):
    whole = store_run(pipeline(), many(60), tmp_path / "a", options=TWO)
    for seed in range(4):
        folder, kills = _killed_runs(tmp_path / f"b{seed}", kills=5, seed=seed)
        assert kills == 5
        assert contents(folder) == contents(whole.folder)
