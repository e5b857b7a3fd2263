"""The report is one file that shows what the run holds, and nothing in the data can break it."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rag_frozen.absent_stages import NoPassages, NoRetrieval
from rag_frozen.evaluation.examples import Example, ExampleSet
from rag_frozen.evaluation.report import render_report, write_report
from rag_frozen.evaluation.report.figures import Bar, bars
from rag_frozen.evaluation.report.numbers import answer_length, groups, question_word, recall_curve
from rag_frozen.evaluation.runner import evaluate
from rag_frozen.evaluation.runs import store_run
from rag_frozen.types import Question
from tests.evaluation import data
from tests.test_pipeline import PASSAGES, Store, pipeline

EVIL = '</script><script>alert("x")</script><img src=x onerror=alert(1)> & é \u2028'


class Page(HTMLParser):
    """What a browser would load, and the scripts as it would cut them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        self._script = self._script and tag != "script"

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data
        else:
            self.text += data


class Odd(Store):
    def get(self, passage_ids):
        return [replace(PASSAGES[one], text=f"{EVIL} Rome", title=EVIL) for one in passage_ids]


def odd() -> str:
    rows = (
        Example(Question("1", f"who {EVIL}"), ("Rome", EVIL), tags=(("style", EVIL),)),
        Example(Question("2", "unknown"), ()),
    )
    result = evaluate(pipeline(store=Odd()), ExampleSet("odd", rows, "0" * 64))
    return render_report(result, costs=None)


def test_the_page_refers_to_nothing_outside_and_holds_every_question():
    page = Page(render_report(evaluate(pipeline(), data()), costs=None))
    assert page.links == ["data:,"]
    assert len(page.scripts) == 2
    rows = json.loads(page.scripts[0])
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["evidence"][0]["text"] == PASSAGES["p1"].text
    for shown in ("exact match", "Where questions are lost", "Answer-recall", "Confidence", "Time"):
        assert shown in page.text
    assert "http" not in "".join(page.scripts)


def test_markup_in_questions_and_passages_stays_text():
    page = Page(odd())
    assert len(page.scripts) == 2
    assert "img" not in page.tags
    [first, _] = json.loads(page.scripts[0])
    assert first["question"] == f"who {EVIL}"
    assert first["evidence"][0]["title"] == EVIL


def test_closed_book_runs_and_runs_without_gold_answers_have_a_report():
    closed = evaluate(pipeline(retriever=NoRetrieval(), store=NoPassages()), data())
    assert "Answer-recall</h2>" not in render_report(closed, costs=None)
    unanswerable = replace(data(), examples=data().examples[2:])
    assert "0 questions" in render_report(evaluate(pipeline(), unanswerable), costs=None)


def test_a_stored_run_has_its_report_with_the_costs(tmp_path: Path):
    run = store_run(pipeline(), data(), tmp_path)
    text = (run.folder / "report.html").read_text()
    assert "peak memory" in text
    write_report(tmp_path / "again.html", run.result, costs=None)
    assert "peak memory" not in (tmp_path / "again.html").read_text()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Who wrote it?", "who"),
        ("in how many days", "how many"),
        ("how deep is it", "how"),
        ("the man who asked when", "who"),
        ("capital of france", "none"),
    ],
)
def test_questions_are_grouped_by_the_word_that_comes_first(text: str, word: str):
    assert question_word(text) == word


def test_groups_count_answerable_questions_alone():
    scored = evaluate(pipeline(), data()).scored
    assert groups(scored, lambda row: row.tags.get("style", "")) == [
        ("search", 1, 100.0),
        ("sentence", 1, 0.0),
    ]
    assert answer_length(scored[0]) == "1 word"
    assert list(recall_curve(scored, "retrieve")) == [(1, 0.5), (2, 1.0), (3, 1.0)]


def test_a_picture_escapes_its_labels_and_speaks():
    picture = str(bars([Bar("<b>", 0.5, "50 & more")], title='a "title"'))
    assert "&lt;b&gt;" in picture
    assert "50 &amp; more" in picture
    assert "<desc>" in picture
    assert "<b>" not in picture
