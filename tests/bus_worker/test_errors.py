"""The tree of errors."""

import pickle

import pytest

from bus_worker import errors

LEAVES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, errors.BusWorkerError)
    and "code" in vars(kind)
    and kind.code
]


def test_codes_are_unique():
    codes = [kind.code for kind in LEAVES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.code)
def test_each_has_a_sentence_a_place_in_the_tree_and_a_way_back_from_its_code(kind):
    assert str(kind()).endswith(".")
    assert f"{kind.__name__} " in errors.__doc__
    assert f" {kind.code}" in errors.__doc__
    assert type(errors.error_for_code(kind.code, "m", {})) is kind


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.code)
def test_each_survives_pickling(kind):
    back = pickle.loads(pickle.dumps(kind("m", a=1)))  # noqa: S301 - our own bytes
    assert (type(back), back.message, back.details) == (kind, "m", {"a": 1})


def test_asking_again_helps_with_429_503_and_504_only():
    assert {kind.code for kind in LEAVES if kind.retry} == {
        "rate_limited", "busy", "stopping", "unavailable", "deadline_exceeded",
    }  # fmt: skip
    for kind in LEAVES:
        assert kind.retry is (kind.status in {429, 503, 504})
