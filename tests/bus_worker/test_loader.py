"""Stages from folders, files and installed packages; doubles refused."""

import sys
import textwrap
from pathlib import Path

import pytest

from bus_worker.errors import BadPlugin
from bus_worker.loader import find_stages

GAIN = '''
"""Turn the volume up or down."""
from pydantic import BaseModel
from bus_worker.plugin import Draft, stage

class Options(BaseModel):
    gain: float = 1.0

@stage(Options, needs=("samples",), gives=("samples",), version="1", per_request=("gain",))
async def gain(draft: Draft, options: Options) -> None:
    """Scale the samples."""
    draft.samples = draft.samples * options.gain
'''


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def test_the_built_ins_come_by_the_same_door():
    assert {"decode", "limits", "normalize", "silence", "whisper", "tidy"} <= set(find_stages())


@pytest.mark.parametrize("as_file", [False, True])
def test_a_dropped_in_file_is_found(as_file, tmp_path):
    path = write(tmp_path, "gain.py", GAIN)
    found = find_stages([path if as_file else tmp_path])["gain"]
    assert found.source == str(path)
    assert found.summary == "Scale the samples."


def test_a_package_is_found_and_may_import_its_own_modules(tmp_path):
    write(tmp_path, "louder/level.py", "LEVEL = 11\n")
    write(
        tmp_path,
        "louder/__init__.py",
        "from .level import LEVEL\n" + GAIN.replace("def gain", "def louder"),
    )
    assert find_stages([tmp_path])["louder"].options().gain == 1.0


def test_private_files_and_other_things_are_left_alone(tmp_path):
    for name in ("_draft.py", ".hidden.py", "notes.txt", "folder/readme.md"):
        write(tmp_path, name, "syntax error(")
    assert set(find_stages([tmp_path])) == set(find_stages())


def test_two_of_one_name_name_both_files(tmp_path):
    one, two = write(tmp_path, "a.py", GAIN), write(tmp_path, "b.py", GAIN)
    with pytest.raises(BadPlugin) as caught:
        find_stages([tmp_path])
    assert "'gain'" in caught.value.message
    assert str(one) in caught.value.message
    assert str(two) in caught.value.message


def test_a_built_in_cannot_be_replaced_by_stealth(tmp_path):
    write(tmp_path, "mine.py", GAIN.replace("def gain", "def decode"))
    with pytest.raises(BadPlugin, match=r"'decode'.*decode\.py.*mine\.py"):
        find_stages([tmp_path])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = (", "SyntaxError"),
        ("import no_such_thing", "ModuleNotFoundError"),
        ("1/0", "ZeroDivisionError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(text, says, tmp_path):
    path = write(tmp_path, "bad.py", text)
    with pytest.raises(BadPlugin, match=says) as caught:
        find_stages([tmp_path])
    assert str(path) in caught.value.message


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadPlugin, match="does not exist"):
        find_stages([tmp_path / "nope"])


def test_an_imported_stage_is_not_the_importers(tmp_path):
    write(tmp_path, "one.py", GAIN)
    write(tmp_path, "two.py", "from bus_worker.testing import pretend\n")
    assert "pretend" not in find_stages([tmp_path])


@pytest.mark.parametrize("target", ["shouting:gain", "shouting"])
def test_an_installed_package_is_found_by_its_entry_point(target, tmp_path, monkeypatch):
    write(tmp_path, "shouting.py", GAIN)
    write(
        tmp_path,
        "shouting-1.0.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n",
    )
    write(
        tmp_path,
        "shouting-1.0.dist-info/entry_points.txt",
        f"[bus_worker.stages]\ngain = {target}\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert find_stages()["gain"].source == str(tmp_path / "shouting.py")
    finally:
        sys.modules.pop("shouting", None)


def test_an_entry_point_to_something_else_is_refused(tmp_path, monkeypatch):
    write(tmp_path, "shouting.py", "gain = 5\n")
    write(
        tmp_path,
        "shouting-1.0.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n",
    )
    write(
        tmp_path,
        "shouting-1.0.dist-info/entry_points.txt",
        "[bus_worker.stages]\ngain = shouting:gain\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(BadPlugin, match="neither a stage nor a module"):
            find_stages()
    finally:
        sys.modules.pop("shouting", None)
