"""The stages, listed."""

import json
from pathlib import Path

from tests.helpers.shell import shell

BROKEN = """
from bus_worker.plugin import stage

@stage()
async def broken(draft, options):
    raise LookupError("secret")
"""


async def test_plugins_are_listed_in_the_order_of_the_pipeline(tmp_path: Path):
    (tmp_path / "broken.py").write_text(BROKEN)
    ended = await shell(
        "plugins", "--json", cwd=tmp_path, PIPELINE="decode,broken,tidy", PLUGINS_PATH="broken.py"
    )
    assert ended.status == 0
    stages = json.loads(ended.out)
    assert [s["name"] for s in stages][:3] == ["decode", "broken", "tidy"]
    assert [s["position"] for s in stages][:4] == [1, 2, 3, None]
    decode = stages[0]
    assert (decode["needs"], decode["gives"]) == (["audio"], ["samples"])
    assert Path(decode["source"]).name == "decode.py"
    longest = next(o for o in decode["options"] if o["name"] == "max_duration")
    assert longest["variable"] == "MAX_AUDIO_DURATION"
    assert longest["default"] == 30.0
    assert not longest["per_request"]
    assert longest["description"]
    normalize = next(s for s in stages if s["name"] == "normalize")
    assert normalize["options"][0]["variable"] == "NORMALIZE__PEAK"
    assert normalize["options"][0]["per_request"]
    written = await shell("plugins", cwd=tmp_path)
    assert "normalize  (version 2, 3. in PIPELINE, " in written.out
    assert "    NORMALIZE__PEAK=1.0  (a request may set it)\n" in written.out


async def test_a_plugin_that_cannot_be_loaded_is_one_sentence(tmp_path: Path):
    (tmp_path / "bad.py").write_text("import nothing_of_that_name\n")
    ended = await shell("plugins", cwd=tmp_path, PLUGINS_PATH="bad.py")
    assert ended.status == 1
    assert "bad.py cannot be imported: ModuleNotFoundError" in ended.sentence
