"""Where a setting comes from, and how a wrong one is refused."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, create_model

from bus_worker.addresses import shown_url
from bus_worker.errors import BadSetting
from bus_worker.settings import (
    STAGE_OPTIONS,
    Settings,
    environment,
    inherited,
    load_settings,
    stage_options,
)


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str = "base"
    max_duration: float | None = Field(30.0, gt=0)
    names: tuple[str, ...] | None = None
    deep: bool = False
    key: SecretStr | None = None


# --- the environment and .env -----------------------------------------------------------------


def test_defaults_are_those_of_the_contract():
    settings = load_settings({})
    assert settings.nats_url == ("nats://localhost:4222",)
    assert settings.pipeline == ("decode", "limits", "normalize", "silence", "whisper", "tidy")
    assert settings.whisper_model == "base"
    assert settings.max_audio_duration == 30
    assert settings.min_audio_duration == 0.1
    assert settings.max_file_size == 10_485_760
    assert settings.api_workers == 2
    assert settings.request_timeout == 60
    assert settings.redis_url is None
    assert settings.cache_enabled
    assert settings.cache_ttl == 3600
    assert settings.model_fields_set == set()


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text("API_WORKERS=3\nQUEUE_GROUP='of the file'\nexport X=1 # y\n")
    monkeypatch.setenv("API_WORKERS", "5")
    variables = environment(tmp_path)
    assert variables["API_WORKERS"] == "5"
    assert variables["QUEUE_GROUP"] == "of the file"
    assert variables["X"] == "1"


def test_the_file_of_the_current_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text("SUBJECT_PREFIX=mine\nNOT_OURS=1\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().subject_prefix == "mine"


def test_origins_are_read_as_browsers_write_them():
    settings = load_settings({"CORS_ORIGINS": "http://LocalHost:3000/, https://[::1]:8443"})
    assert settings.cors_origins == ("http://localhost:3000", "https://[::1]:8443")
    assert load_settings({"CORS_ORIGINS": "*"}).cors_origins == ("*",)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("rediss://me:hush@[::1]:7/3?password=hush", "rediss://***@[::1]:7/3"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis://localhost?password=hu@sh", "redis://***"),
    ],
)
def test_a_redis_url_is_taken_and_shown_without_its_secrets(url: str, shown: str):
    settings = load_settings({"REDIS_URL": url})
    assert "hush" not in repr(settings)
    assert settings.redis_url is not None
    assert shown_url(settings.redis_url.get_secret_value()) == shown


@pytest.mark.parametrize(("value", "wanted"), [("maybe", "bool"), ("0", None), ("FALSE", None)])
def test_the_cache_is_switched_off_by_a_plain_word(value: str, wanted: str | None):
    if wanted is None:
        assert not load_settings({"CACHE_ENABLED": value}).cache_enabled
    else:
        with pytest.raises(BadSetting, match=f"CACHE_ENABLED='maybe': .*{wanted}"):
            load_settings({"CACHE_ENABLED": value})


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path):
    (tmp_path / ".env").write_bytes("MODEL_NAME=hören\n".encode("latin-1"))
    with pytest.raises(BadSetting, match=r"\.env is not UTF-8"):
        environment(tmp_path)


def test_a_file_as_windows_saves_it_is_read_from_its_first_letter(tmp_path: Path):
    (tmp_path / ".env").write_bytes("SUBJECT_PREFIX=mine\r\n".encode("utf-8-sig"))
    assert environment(tmp_path)["SUBJECT_PREFIX"] == "mine"


def test_no_file_is_no_failure(tmp_path: Path):
    assert "PATH" in environment(tmp_path)


def test_an_empty_value_is_an_unset_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text("API_WORKERS=3\nNATS_URL=\nDEFAULT_MODEL\n")
    monkeypatch.setenv("API_WORKERS", "")
    monkeypatch.setenv("NATS_URL", "")
    variables = environment(tmp_path)
    assert not {"API_WORKERS", "NATS_URL", "DEFAULT_MODEL"} & variables.keys()
    assert load_settings(variables).api_workers == 2


def test_a_child_inherits_with_changes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NATS_URL", "nats://theirs")
    child = inherited({"NATS_URL": "nats://ours", "NATS_USER": ""})
    assert child["NATS_URL"] == "nats://ours"
    assert child["NATS_USER"] == ""
    assert "PATH" in child


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a,b", " a , b ", "a,,b,", ",a,\tb"])
def test_lists_are_comma_separated(text: str):
    settings = load_settings({"NATS_URL": text, "PIPELINE": text, "PLUGINS_PATH": text})
    assert settings.nats_url == settings.pipeline == settings.plugins_path == ("a", "b")


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("API_WORKERS", "zero", "integer"),
        ("API_WORKERS", "0", "greater than or equal to 1"),
        ("REQUEST_TIMEOUT", "-1", "greater than 0"),
        ("REQUEST_TIMEOUT", "inf", "finite"),
        ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("WHISPER_DEVICE", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("SUBJECT_PREFIX", "a.b", "pattern"),
        ("SUBJECT_PREFIX", "a b", "pattern"),
        ("NATS_INBOX_PREFIX", "_OTHER", "pattern"),
        ("MAX_FILE_SIZE", "10 MB", "integer"),
        ("CORS_ORIGINS", "localhost:3000", "https://app.example"),
        ("CORS_ORIGINS", "https://app.example/page", "without a path"),
        ("CORS_ORIGINS", "https://a.example https://b.example", "https://app.example"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_variable_value_and_what_is_allowed(
    variable: str, value: str, allowed: str
):
    with pytest.raises(BadSetting) as refused:
        load_settings({variable: value})
    message = refused.value.message
    assert message.startswith(f"{variable}={value!r}: ")
    assert allowed in message
    assert "\n" not in message
    assert refused.value.details == {"variable": variable}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("hush@127.0.0.1:4222", "***@127.0.0.1:4222"),
        ("me:hush@h:3", "***@h:3"),
        ("nats://me:hu@sh@h", "nats://***@h"),
        ("wss://hush@h/hush?key=hush", "wss://***@h/hush"),
        ("nats://h:4222", "nats://h:4222"),
        ("h", "h"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str):
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "localhost", "h:1", "nats://h", "nats://me:hush@[::1]:4222/", "tls://hush@h:65535",
        "ws://h/path", "wss://a,ws://b", "a,nats://b,tls://c", "hush@under_score.h",
    ],
)  # fmt: skip
def test_an_address_of_a_bus_is_taken(url: str):
    assert load_settings({"NATS_URL": url}).nats_url == tuple(url.split(","))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://x", "http://x"),
        ("h:99999", "h:99999"),
        ("h:0", "h:0"),
        ("nats://h:port", "nats://h:port"),
        ("nats://", "nats://"),
        (":4222", ":4222"),
        ("two words", "two words"),
        ("nats://h/path", "nats://h/path"),
        (",", ","),
        ("a,ws://b", "a,ws://b"),
        ("nats://hush@h:99999", "nats://***@h:99999"),
        ("nats://me:hu,sh@h", "nats://***@h"),
        ("nats://me:hu#sh@h", "nats://***@h"),
    ],
)
def test_an_address_that_leads_to_no_bus_stops_the_start(url: str, shown: str):
    with pytest.raises(BadSetting) as refused:
        load_settings({"NATS_URL": url})
    assert refused.value.message.startswith(f"NATS_URL={shown!r}: ")
    assert "ws://" in refused.value.message


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"MIN_AUDIO_DURATION": "31"}, "MIN_AUDIO_DURATION=31: .* MAX_AUDIO_DURATION=30"),
        ({"MAX_AUDIO_DURATION": ".05"}, "MIN_AUDIO_DURATION=0.1: .* MAX_AUDIO_DURATION=0.05"),
        ({"LIMITS__MIN_DURATION": "31"}, "LIMITS__MIN_DURATION=31: .* MAX_AUDIO_DURATION=30"),
        ({"DEFAULT_MODEL": "a b"}, "DEFAULT_MODEL='a b': .*a model's name"),
        ({"DEFAULT_MODEL": "org/repo"}, "DEFAULT_MODEL='org/repo': .*a model's name"),
    ],
)
def test_values_that_nobody_could_serve_stop_the_start(variables: dict[str, str], names: str):
    with pytest.raises(BadSetting, match=names):
        load_settings(variables)


def test_capitals_do_not_matter_in_a_word_of_few():
    settings = load_settings({"LOG_LEVEL": "info", "LOG_FORMAT": "JSON", "WHISPER_DEVICE": "CPU"})
    assert (settings.log_level, settings.log_format) == ("INFO", "json")
    assert settings.whisper_device == "cpu"
    assert load_settings({"WHISPER__DEVICE": "CPU"}).whisper_device == "cpu"


def test_secrets_are_shown_nowhere():
    settings = load_settings({"NATS_PASSWORD": "hush", "NATS_TOKEN": "hush"})
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings.model_dump())
    assert "hush" not in settings.model_dump_json()
    assert settings.nats_password is not None
    assert settings.nats_password.get_secret_value() == "hush"


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Settings().api_workers = 3  # type: ignore[misc]


# --- the model's name -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, "base"),
        ({"WHISPER_MODEL": "tiny.en"}, "tiny.en"),
        ({"WHISPER_MODEL": "org/repo"}, "repo"),
        ({"WHISPER_MODEL": "/models/mine", "MODEL_NAME": "ours"}, "ours"),
        ({"WHISPER_MODEL": "small", "WHISPER__MODEL": "medium"}, "medium"),
        ({"MODEL_NAME": "ours", "WHISPER__MODEL_NAME": "theirs"}, "theirs"),
        ({"WHISPER_MODEL": "small", "DEFAULT_MODEL": "large-v3"}, "large-v3"),
    ],
)
def test_requests_without_a_model_go_to_the_one_served_unless_another_is_named(
    variables: dict[str, str], asked: str
):
    settings = load_settings(variables)
    assert settings.asked_model == asked
    assert settings.chosen_model == (asked if variables else None)


# --- options of stages ------------------------------------------------------------------------


def options(variables: dict[str, str], stage: str = "whisper") -> Options:
    made = stage_options(stage, Options, load_settings(variables), variables)
    assert isinstance(made, Options)
    return made


def test_old_names_set_the_options_that_they_stand_for():
    for variable, targets in STAGE_OPTIONS.items():
        assert variable.lower() in Settings.model_fields, variable
        assert targets
    assert options({"WHISPER_MODEL": "small"}).model == "small"
    assert options({"MAX_AUDIO_DURATION": "5"}, "decode").max_duration == 5
    assert options({"MAX_AUDIO_DURATION": "5"}, "limits").max_duration == 5
    assert options({"MAX_AUDIO_DURATION": "5"}, "another").max_duration == 30


def test_the_stage_s_own_spelling_wins():
    variables = {"MAX_AUDIO_DURATION": "5", "LIMITS__MAX_DURATION": "7"}
    assert options(variables, "limits").max_duration == 7
    assert options(variables, "decode").max_duration == 5


def test_options_are_read_by_their_type():
    made = options({"WHISPER__NAMES": "a, b", "WHISPER__DEEP": "true", "WHISPER__KEY": "hush"})
    assert made.names == ("a", "b")
    assert made.deep is True
    assert "hush" not in repr(made)


def test_a_typo_stops_the_start_with_what_there_is():
    with pytest.raises(BadSetting) as refused:
        options({"WHISPER__MODLE": "small"})
    assert refused.value.message == (
        "WHISPER__MODLE is set, but stage 'whisper' has no such option; it has WHISPER__MODEL,"
        " WHISPER__MAX_DURATION, WHISPER__NAMES, WHISPER__DEEP, WHISPER__KEY"
    )


def test_options_of_other_stages_do_not_matter():
    assert options({"WHISPERER__MODLE": "x", "OTHER__X": "1"}) == Options()


@pytest.mark.parametrize(
    ("variable", "value"), [("WHISPER__MAX_DURATION", "long"), ("WHISPER__DEEP", "perhaps")]
)
def test_a_wrong_option_is_named_as_it_was_set(variable: str, value: str):
    with pytest.raises(BadSetting) as refused:
        options({variable: value})
    assert refused.value.message.startswith(f"{variable}={value!r}: ")


class Words(BaseModel):
    """One field for each target of an old name; none takes what the test sets."""

    formats: tuple[Literal["wav", "mp3"], ...] = ("wav",)
    device: Literal["auto", "cpu"] = "auto"
    compute_type: Literal["int8"] = "int8"
    free: str | Literal["auto"] = "auto"  # noqa: PYI051 - any text, and it stays as it is


def test_an_option_under_its_old_name_is_named_as_it_was_set():
    variables = {"ALLOWED_AUDIO_FORMATS": "wav,exe"}
    with pytest.raises(BadSetting) as refused:
        stage_options("decode", Words, load_settings(variables), variables)
    assert refused.value.message == (
        "ALLOWED_AUDIO_FORMATS='wav,exe': input should be 'wav' or 'mp3'"
    )


@pytest.mark.parametrize(
    ("variable", "target"), [(name, target) for name, of in STAGE_OPTIONS.items() for target in of]
)
def test_every_old_name_is_the_one_that_is_refused(variable: str, target: str):
    stage, _, option = target.partition(".")
    taken = {"MIN_AUDIO_DURATION": ".5", "ALLOWED_AUDIO_FORMATS": "exe"}
    variables = {variable: taken.get(variable, "7")}
    picky = create_model("Picky", **{option: (Literal["other"], "other")})
    with pytest.raises(BadSetting) as refused:
        stage_options(stage, picky, load_settings(variables), variables)
    assert refused.value.message.startswith(f"{variable}={variables[variable]!r}: ")


def test_capitals_do_not_matter_in_an_option_of_few_words():
    variables = {
        "ALLOWED_AUDIO_FORMATS": "WAV,Mp3", "DECODE__DEVICE": "CPU", "DECODE__FREE": "AUTO",
    }  # fmt: skip
    made = stage_options("decode", Words, load_settings(variables), variables)
    assert isinstance(made, Words)
    assert (made.formats, made.device, made.free) == (("wav", "mp3"), "cpu", "AUTO")


def test_a_setting_in_the_stage_s_spelling_is_named_as_it_was_set():
    with pytest.raises(BadSetting) as refused:
        load_settings({"WHISPER__REPLICAS": "many"})
    assert refused.value.message.startswith("WHISPER__REPLICAS='many': ")


def test_a_secret_option_is_not_shown_in_its_refusal():
    class Keyed(BaseModel):
        key: SecretStr = Field(min_length=10)

    with pytest.raises(BadSetting) as refused:
        stage_options("s", Keyed, Settings(), {"S__KEY": "hush"})
    assert "hush" not in refused.value.message
    assert refused.value.message.startswith("S__KEY=(hidden): ")
