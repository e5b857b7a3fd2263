from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_frozen.artifacts import canonical_json, file_sha256, fingerprint
from rag_frozen.errors import InputError

from .strategies import recipes


@settings(max_examples=50)
@given(recipes)
def test_canonical_json_loads_back_equal(recipe: dict[str, Any]) -> None:
    assert json.loads(canonical_json(recipe)) == recipe


@settings(max_examples=50)
@given(recipes, st.randoms())
def test_the_order_of_keys_does_not_change_a_fingerprint(
    recipe: dict[str, Any], random: Random
) -> None:
    keys = list(recipe)
    random.shuffle(keys)
    shuffled = {key: recipe[key] for key in keys}
    assert fingerprint(shuffled, {"a": "1", "b": "2"}) == fingerprint(recipe, {"b": "2", "a": "1"})


@settings(max_examples=50)
@given(recipes, recipes)
def test_different_recipes_have_different_fingerprints(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    same = canonical_json(left) == canonical_json(right)
    assert (fingerprint(left, {}) == fingerprint(right, {})) == same


def test_inputs_and_recipe_cannot_be_confused() -> None:
    assert fingerprint({"a": "b"}, {}) != fingerprint({}, {"a": "b"})
    assert fingerprint({}, {"a": "1"}) != fingerprint({}, {"a": "2"})
    assert len(fingerprint({}, {})) == 16


@pytest.mark.parametrize(
    "value",
    [{"x": float("nan")}, {"x": {1: 2}}, {"x": [{None: 2}]}, {"x": Path("a")}, {"x": "\ud800"}],
)
def test_a_value_without_a_json_form_has_no_fingerprint(value: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="fingerprint needs"):
        fingerprint(value, {})


@settings(max_examples=20)
@given(st.binary(max_size=300))
def test_a_files_hash_is_that_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "hashed"
    path.write_bytes(data)
    assert file_sha256(path) == hashlib.sha256(data).hexdigest()
