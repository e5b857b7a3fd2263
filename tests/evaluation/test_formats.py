"""Published forms of question files are told and read; what is wrong in them is named."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from rag_frozen.errors import DataFormatError, InputError
from rag_frozen.evaluation.datasets import read_examples
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.formats import tell_format
from rag_frozen.evaluation.metrics import METRIC_VERSIONS
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.types import Question
from tests.test_pipeline import pipeline

DATA = Path(os.environ.get("RAG_FROZEN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Lake_Baikal",
            "paragraphs": [
                {
                    "context": "It is 1,642 metres deep.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "how deep",
                            "answers": [{"text": "1,642 metres"}] * 2,
                        },
                        {"id": "b", "question": "how wide", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
TRIVIA = {
    "Data": [
        {
            "QuestionId": "tc_1",
            "Question": "Who was it?",
            "Answer": {"Value": "Röntgen", "Aliases": ["Röntgen", "W. Röntgen"]},
        }
    ]
}
WEB = [
    {"utterance": "what is it?", "targetValue": '(list (description "a (b)") (description Rome))'}
]
DPR = [
    {
        "question": "who",
        "answers": ["he"],
        "positive_ctxs": [{"title": "T", "text": "he did", "passage_id": "7"}],
    }
]
KILT = {
    "id": "k1",
    "input": "who",
    "output": [{"answer": "he"}, {"provenance": []}, {"answer": "him"}],
}


@pytest.mark.parametrize(
    ("name", "content", "form", "answers"),
    [
        ("dev.json", SQUAD, "squad", [("1,642 metres",), ()]),
        ("qa.json", TRIVIA, "triviaqa", [("Röntgen", "W. Röntgen")]),
        ("webq.json", WEB, "webquestions", [("a (b)", "Rome")]),
        ("webq.json", [{"qId": "w", "qText": "who", "answers": ["he"]}], "webquestions", [("he",)]),
        ("nq.json", DPR, "dpr-json", [("he",)]),
        ("nq.jsonl", KILT, "kilt", [("he", "him")]),
        ("nq.jsonl", {"question": "who", "answer": ["he"]}, "jsonl", [("he",)]),
    ],
)
def test_each_form_is_told_and_read(tmp_path: Path, name, content, form, answers):
    text = json.dumps(content, indent=None if name.endswith("l") else 1)
    (tmp_path / name).write_text(text)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert tell_format(tmp_path / name, text) == form
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        found = read_examples(path, allow_unanswerable=True)
        assert [one.answers for one in found.examples] == answers


def test_gold_passages_come_with_the_forms_that_have_them(tmp_path: Path):
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD))
    (tmp_path / "nq.json").write_text(json.dumps(DPR))
    first = read_examples(tmp_path / "dev.json", allow_unanswerable=True).examples[0]
    assert first.gold_passage is not None
    assert (first.gold_passage.title, first.gold_passage.text) == (
        "Lake Baikal",
        "It is 1,642 metres deep.",
    )
    [dpr] = read_examples(tmp_path / "nq.json").examples
    assert dpr.gold_passage_id == "7"


def beir(folder: Path, *, qrels: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    queries = [
        {"_id": "q1", "text": "who", "metadata": {"answer": ["he"]}},
        {"_id": "q2", "text": "what", "metadata": {}},
        {"_id": "q3", "text": "not judged"},
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_a_beir_folder_gives_its_judged_questions(tmp_path: Path):
    qrels = "query-id\tcorpus-id\tscore\nq1\tp1\t1\nq1\tp2\t2\nq2\tp3\t1\nq3\tp4\t0\n"
    folder = beir(tmp_path / "set", qrels=qrels)
    found = read_examples(folder, allow_unanswerable=True).examples
    assert [(one.question.id, one.gold_passage_id, one.answers) for one in found] == [
        ("q1", "p2", ("he",)),
        ("q2", "p3", ()),
    ]
    with pytest.raises(InputError, match=r"dev\.tsv cannot be read"):
        read_examples(folder, split="dev", allow_unanswerable=True)
    with pytest.raises(DataFormatError, match=r"line 2: expected query-id<TAB>"):
        read_examples(beir(tmp_path / "bad", qrels="q1\tp1\t1\nq1 p1 1\n"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.json", '{"data": [3]}', r"entry 1: not a JSON object"),
        ("x.json", '[{"question": "who"}]', r"entry 1: the question has no answer"),
        ("x.jsonl", '{"input": "who", "output": []}', r"line 1: the question has no answer"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, name: str, text: str, said: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataFormatError, match=said):
        read_examples(tmp_path / name)


CURATED = "2388\tfactoid\twhich play\tAfter the Fall|Finishing the Play\n2193\tfactoid\twho\t[xy]\n"


def test_curatedtrec_is_read_as_first_published_as_drqa_has_it_and_as_dpr_has_it(tmp_path: Path):
    first, drqa, dpr = (tmp_path / name for name in ("test.tsv", "CuratedTrec-test.txt", "t.csv"))
    first.write_text(CURATED)
    drqa.write_text('{"question": "which play", "answer": ["After the Fall|Finishing the Play"]}\n')
    dpr.write_text("which play\t['After the Fall|Finishing the Play']\n")
    for path in (first, drqa, dpr):
        found = read_examples(path, patterns=True).examples[0]
        assert (found.question.text, found.patterns) == ("which play", True)
        assert found.answers == ("After the Fall|Finishing the Play",)
    assert [one.question.id for one in read_examples(first).examples] == ["2388", "2193"]
    assert read_examples(first).examples[1].patterns  # told by the form
    first.write_text(CURATED + "broken\tline\n")
    with pytest.raises(DataFormatError, match="line 3: expected id<TAB>kind"):
        read_examples(first)


def test_popqas_own_file_is_read(tmp_path: Path):
    path = tmp_path / "popQA.tsv"
    head = "id\tsubj\tquestion\tpossible_answers\n"
    path.write_text(head + '7\tA\tWhat is A?\t"[""he"", ""him""]"\n')
    [example] = read_examples(path).examples
    assert (example.question.id, example.question.text) == ("7", "What is A?")
    assert example.answers == ("he", "him")
    path.write_text(head + "7\tA\tWhat is A?\the\n")
    with pytest.raises(DataFormatError, match="row 1: possible_answers is no list: 'he'"):
        read_examples(path)
    path.write_text(head + "7\tA\n")
    with pytest.raises(DataFormatError, match="row 1: possible_answers is no list"):
        read_examples(path)


def test_answers_may_be_patterns(tmp_path: Path):
    path = tmp_path / "curatedtrec-test.csv"
    path.write_text("who\t['R(o|ö)me|Roma']\n")
    [example] = read_examples(path, patterns=True).examples
    assert example.patterns
    path.write_text("who\t['R(ome']\n")
    with pytest.raises(DataFormatError, match="no regular expression"):
        read_examples(path, patterns=True)


def test_patterns_score_answers_and_passages():
    rows = (
        Example(Question("1", "which city"), ("R[oö]me",), patterns=True),
        Example(Question("2", "which town"), ("^Paris$", "Osl"), patterns=True),
    )
    result = evaluate(pipeline(), ExampleSet("trec", rows, "0" * 64))
    assert [one.exact_match for one in result.scored] == [True, False]  # it answers Rome
    assert [one.first_answering["retrieve"] for one in result.scored] == [2, 3]
    assert METRIC_VERSIONS["regex_match"] == "drqa-regex-match/1"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the test data {DATA} are not there")
@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("nq_dev_questions", 1_000),
        ("triviaqa_test_questions", 1_000),
        ("hotpot_dev_questions", 1_000),
        ("cmu_qa_questions", 100),
    ],
)
def test_real_question_files_are_read(name: str, n: int):
    data = read_examples(DATA / "qa" / f"{name}.jsonl.gz", allow_unanswerable=True)
    assert len(data.examples) >= n
