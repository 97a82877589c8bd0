"""Names of languages."""

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from gateway.openai.languages import LANGUAGES, WRITTEN, language_name


def test_every_language_of_whispers_has_a_name_of_its_own():
    assert LANGUAGES.keys() == set(_LANGUAGE_CODES)
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)
    assert all(name == name.lower() for name in LANGUAGES.values())
    assert set(WRITTEN.values()) < LANGUAGES.keys()


@pytest.mark.parametrize(
    ("code", "name"),
    [("en", "english"), ("de", "german"), ("yue", "cantonese"), ("tlh", "tlh"), (None, "unknown")],
)
def test_a_language_is_told_by_its_name(code: str | None, name: str):
    assert language_name(code) == name
