"""The study of a sweep opens in Optuna's dashboard by the command that the docs print."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

STUDY = Path(__file__).resolve().parents[2] / "carry_on/folders/sweep/study.db"


def test_optunas_dashboard_shows_the_study(tmp_path):
    shutil.copy(STUDY, tmp_path / "study.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    command = [program, f"sqlite:///{tmp_path}/study.db", "--port", str(port), "--server", "wsgiref"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
                    studies = json.load(answer)["study_summaries"]
                break
            except urllib.error.URLError:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.2)
        assert [study["study_name"] for study in studies] == ["sweep"]
    finally:
        process.kill()
        process.wait()
