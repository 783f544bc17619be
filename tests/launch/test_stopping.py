"""Which signals stop a role in order."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys
from headrace.launch.stopping import Stop
# Whoever runs these tests may have been started by nohup himself.
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2:] else signal.SIG_DFL)
stop = Stop()
os.kill(os.getpid(), int(sys.argv[1]))
print(stop())
"""


def stopped(number: signal.Signals, *nohup: str) -> str:
    argv = [sys.executable, "-c", CODE, str(int(number)), *nohup]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or str(done.returncode)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_stops_a_role(number):
    assert stopped(number) == "True"


def test_nohup_holds():
    assert stopped(signal.SIGHUP, "nohup") == "False"
