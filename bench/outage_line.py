"""The line that fails: the tests' TCP proxy as a process.

`python -m bench.outage_line TARGET PORT_FILE BROKEN` says `ready`; each line on stdin breaks or heals it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bench.faces import say

_TESTS = Path(__file__).parent.parent / "tests"


async def main(target: str, port_file: Path, broken: str) -> None:
    """Carry bytes until stdin ends."""
    sys.path.append(str(_TESTS))
    from faults.link_proxy import LinkProxy  # noqa: PLC0415 - found once the path is set

    assert broken in {"dead", "reset"}
    proxy, down = LinkProxy(int(target)), False
    await proxy.start()
    await asyncio.to_thread(port_file.write_text, str(proxy.port), encoding="ascii")
    say("ready")
    while await asyncio.to_thread(sys.stdin.readline):
        down = not down
        proxy.set(("dead" if broken == "dead" else "reset") if down else "up")
        say("down" if down else "up")
    await proxy.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
