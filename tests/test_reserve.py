"""The room that is kept back on the outbox's disk, on a small one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import lacking

PROGRAM = """
import os, sqlite3, sys, time
from pathlib import Path
from facerelay.edge.outbox import Outbox
from facerelay.edge.reserve import BYTES
from faults.disk import mount
from faults.numbered import Offered, freeze

disk = mount(Path(sys.argv[1]), 128_000_000)
if disk is None:
    sys.exit("no small filesystem can be mounted")

def taken():
    one = Offered(outbox.number(), outbox.id, outbox.run, outbox.number(), time.time_ns() // 1000)
    try:
        outbox.put(freeze(1, one), chosen=time.time()).result()
    except sqlite3.Error:
        return False
    return True

def within(seconds, done):
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(0.05)
    return done()

child = os.fork()
if not child:  # a thread must not be there when the disk is mounted
    held = disk.folder / "o.db.reserve"
    with Outbox(disk.folder / "o.db", max_bytes=10**9, max_message=10**6) as outbox:
        assert held.stat().st_size == BYTES, "no room was kept back"
        disk.fill()
        assert within(20, lambda: not taken()), "a full disk takes faces"
        assert held.stat().st_size == 0, "room is kept back on a full disk"
        assert not within(3, taken), "what was kept back went to faces"
        disk.fill(leave=BYTES * 3 // 2)
        assert within(20, taken), "there is room again, and no face is taken"
        assert held.stat().st_size == BYTES, "no room is kept back again"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_faces_are_taken_again_once_the_disk_has_room_for_a_reserve_and_a_little(
    tmp_path: Path,
) -> None:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "disk")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)
    if "can be mounted" in done.stderr:
        lacking("no small filesystem can be mounted: that needs root on Linux")
    assert done.returncode == 0, done.stderr
