"""The engine against faster-whisper itself on the real clips: as good, and much faster."""

import json
from pathlib import Path

import pytest

from bus_worker.bench import main


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_less_is_understood_than_by_faster_whisper_and_much_faster(speech, tmp_path: Path):
    path = tmp_path / "accuracy.json"
    assert main(["accuracy", str(speech), "--at-once", "8", "--words", "--json", str(path)]) == 0
    found = json.loads(path.read_text())["sections"]
    for row in found["accuracy"]["rows"]:
        low = float(row["95 %"].split()[0])
        assert low <= 0, f"worse than noise explains: {row}"
        assert row["ruined"] == 0, row
    for row in found["speed"]["rows"]:
        if row["engine"] != "bus-worker":
            assert row["ours is x as fast"] > 2, row
    assert found["times of words"]["rows"][0]["%"] >= 90
