"""Recipes: a wrong one names its file, the place in it and the nearest valid field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from rag_frozen.errors import RecipeError
from rag_frozen.recipes.loading import find_recipe, list_recipes, load_recipe, read_recipe
from rag_frozen.recipes.pipeline import PipelineRecipe


def load(*overrides: str) -> PipelineRecipe:
    return load_recipe("pocket", PipelineRecipe, folder="pipelines", overrides=overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("retrival.kind=bm25", "retrival: there is no such field; did you mean retrieval"),
        ("reranker.dept=3", r"reranker.*dept: .*did you mean depth"),
        ("retrieval.parts.0.kk=3", r"parts\.0.*kk: .*did you mean k"),
        ("reader.decoding.kind=gredy", "'gredy'"),
        ("packing.template.passage=x", "must hold {text} once"),
        ("retrieval.parts.7.k=3", "7 is no place in a list of 2"),
        ("name.x=3", "name is 'pocket' and has no fields"),
        ("no-equals-sign", "write it as a.b=c"),
        ("reader={kind: causal}", r"reader\.model: Field required"),
        ("retrieval.k=0", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load(override)


def test_overrides_are_yaml_values() -> None:
    recipe = load("retrieval.parts.1.k=7", "reader.decoding.kind=beam", "packing.window=null")
    assert recipe.retrieval.parts[1].k == 7  # type: ignore[union-attr]
    assert recipe.reader.decoding.kind == "beam"
    assert recipe.packing.window is None


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(RecipeError, match="There are: pocket"):
        find_recipe("poket", "pipelines")
    with pytest.raises(RecipeError, match="no recipe file"):
        find_recipe("missing.yaml", "pipelines")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", r"'a' stands twice \(line 2\)"),
        ("b:\n  a: 1\n  a: 2\n", r"'a' stands twice \(line 3\)"),
        ("? [a]\n: 1\n", "must be a word"),
        ("a: " + "[" * 1_500, "not well-formed YAML"),
        ("a: [1\n", "not well-formed YAML"),
        ("- 1\n", "must be a mapping"),
        ("a: !!python/object:os.system {}\n", "not well-formed YAML"),
    ],
)
def test_yaml_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=said):
        read_recipe(path)


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Flat(Strict):
    kind: Literal["flat"]
    depth: int = Field(ge=1)


class Graph(Strict):
    kind: Literal["graph", "hnsw"]
    neighbours: int = 32
    search: Flat | None = None


Engine = Annotated[Flat | Graph, Field(discriminator="kind")]


class Small(Strict):
    name: str
    rate: float = 0.1
    main: Engine
    further: tuple[Engine, ...] = ()
    by_name: dict[str, Engine] = {}
    loose: Flat | int | None = None
    maybe: Engine | None = None


GOOD = """\
name: small
main:
  kind: flat
  depth: 3
further:
  - kind: graph
    neighbours: 16
  - {kind: flat, depth: 1}
"""


def load_small(folder: Path, text: str, *overrides: str) -> Small:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, Small, folder="indexes", overrides=overrides)


def test_unions_are_chosen_by_kind(tmp_path: Path) -> None:
    recipe = load_small(tmp_path, GOOD, "rate=1e-4", "maybe={kind: hnsw}")
    assert recipe.main == Flat(kind="flat", depth=3)
    assert recipe.further == (Graph(kind="graph", neighbours=16), Flat(kind="flat", depth=1))
    assert recipe.rate == 1e-4
    assert isinstance(recipe.maybe, Graph)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("depth: 3", "dept: 3", "line 4: main.dept: there is no such field; did you mean depth?"),
        ("depth: 3", "depth: 0", "line 4: main.depth: Input should be greater than or equal to 1"),
        ("depth: 3", "depth: 0", "(found 0)"),
        ("  depth: 3\n", "", "line 2: main.depth: Field required"),
        ("kind: flat\n", "kind: falt\n", "line 2: main: Input tag 'falt'"),
        ("neighbours", "neighbors", "line 7: further.0.neighbors: there is no such field; did you"),
        ("depth: 1", "depht: 1", "line 8: further.1.depht: there is no such field; did you mean d"),
        ("neighbours: 16", "search: {kind: flat}", "line 7: further.0.search.depth: Field req"),
        ("name: small", "nmae: small", "line 1: nmae: there is no such field; did you mean name?"),
        (
            "name: small",
            "name: small\nxyzzy: 1",
            "line 2: xyzzy: there is no such field; valid are",
        ),
        ("name: small", "name: no", "line 1: name: Input should be a valid string (found False)"),
        (
            "name: small",
            "name: s\nby_name:\n  a: {kind: hnsw, neighbour: 1}",
            "line 3: by_name.a.neighbour: there is no such field; did you mean neighbours?",
        ),
        (
            "name: small",
            "name: s\nloose: {kind: flat, dpth: 1}",
            "line 2: loose.dpth: there is no such field; did you mean depth?",
        ),
        (
            "name: small",
            "name: s\nmaybe: {kind: hnsw, neighbour: 1}",
            "line 2: maybe.neighbour: there is no such field; did you mean neighbours?",
        ),
    ],
)
def test_a_problem_is_told_with_its_line_and_the_place_as_set_takes_it(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError, match=r"small\.yaml is wrong") as caught:
        load_small(tmp_path, GOOD.replace(old, new, 1))
    assert said in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_small(tmp_path, GOOD.replace("depth: 3", "dept: 3").replace("name", "nmae"))
    assert len(str(caught.value).splitlines()) == 1 + 4


def test_a_value_from_the_command_line_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"override main\.depth=x: main\.depth: Input should be"):
        load_small(tmp_path, GOOD, "rate=2", "main.depth=x")
    with pytest.raises(RecipeError, match=r"override main=\{kind: flat\}: main\.depth: Field requ"):
        load_small(tmp_path, GOOD, "main={kind: flat}")


def test_a_long_value_is_shortened(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_small(tmp_path, GOOD, f"main.depth={'x' * 5_000}")
    assert max(map(len, str(caught.value).splitlines())) < 300
    assert "x…" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("=1", "write it as a.b=c"),
        ("a..b=1", "write it as a.b=c"),
        (".a=1", "write it as a.b=c"),
        ("main.depth", "write it as a.b=c"),
        ("main={a: 1, a: 2}", "stands twice"),
        ("main=[1", "not well-formed"),
        ("further.x=1", "x is no place in a list of 2"),
        ("further.-1=1", "-1 is no place in a list of 2"),
        ("further.2.depth=1", "2 is no place in a list of 2"),
        ("name.first=x", "name is 'small' and has no fields"),
    ],
)
def test_an_override_that_cannot_be_applied_is_refused(
    tmp_path: Path, override: str, said: str
) -> None:
    with pytest.raises(RecipeError, match="override ") as caught:
        load_small(tmp_path, GOOD, override)
    assert said in str(caught.value)


simple = st.none() | st.booleans() | st.integers() | st.text("abc :{}[]'\"#", max_size=8)


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4), simple | st.lists(simple)
)
def test_an_override_sets_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, place: list[str], value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "r.yaml"
    path.write_text("z: 1\n", encoding="utf-8")
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    found: Any = read_recipe(path, overrides=[f"{'.'.join(place)}={text}"])
    assert found["z"] == 1
    for part in place:
        found = found[part]
    assert found == value


def test_overrides_are_applied_in_order_and_lists_by_number(tmp_path: Path) -> None:
    recipe = load_small(
        tmp_path, GOOD, "further.0.neighbours=1", "further.0.neighbours=2", "name=x=y"
    )
    assert isinstance(recipe.further[0], Graph)
    assert recipe.further[0].neighbours == 2
    assert recipe.name == "x=y"


def test_the_same_name_as_a_path_and_as_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket").mkdir()
    assert find_recipe("pocket", "pipelines").name == "pocket.yaml"
    assert "pocket" in list_recipes("pipelines")
    assert "pocket-reader" in list_recipes("pipelines/train")
    assert "train" not in list_recipes("pipelines")
