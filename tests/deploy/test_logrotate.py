"""Logs in files: turned over while their writer goes on."""

import subprocess
from pathlib import Path

from tests.helpers.docs import ROOT

CONF = ROOT / "deploy" / "logrotate" / "bus-worker"


def test_a_log_is_turned_over_under_its_writer_and_goes_on(tmp_path: Path):
    log, conf = tmp_path / "worker-1.log", tmp_path / "logrotate.conf"
    conf.write_text(CONF.read_text().replace("/var/log/bus-worker", str(tmp_path)))
    conf.chmod(0o644)
    tmp_path.chmod(0o755)
    with log.open("a") as writer:  # as systemd's `append:` opens it
        print("before", file=writer, flush=True)
        command = ["logrotate", "--force", "--state", tmp_path / "state", conf]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert log.read_text() == ""
        print("after", file=writer, flush=True)
    assert log.read_text() == "after\n"
    (old,) = tmp_path.glob("worker-1.log-*")
    assert old.read_text() == "before\n"
