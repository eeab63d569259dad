"""Known vulnerabilities of what constraints.txt pins, asked of pip-audit; an audit that was not done is said.

pip-audit calls a package that its service does not know "not found", and ends with 0 where it knows none at
all: behind a mirror of the registry that would pass for an audit. So its report is read here. With AUDIT=must
in the environment an audit that was not done is a failure; else it is told, and the check goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_SERVICES: Final = ("pypi", "osv")
_CHOSEN: Final = "PIP_AUDIT_VULNERABILITY_SERVICE"
_LIMIT_S: Final = 180
_SHOWN: Final = 8

Report = list[dict[str, Any]]


def ask(program: str, pins: Path, service: str) -> Report | str:
    """Return what a service knows of each package, or why it did not answer."""
    command = [program, "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
    command += ["-s", service, "-r", str(pins)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)  # noqa: S603 - by our own words
    except subprocess.TimeoutExpired:
        return f"no answer in {_LIMIT_S} s"
    except OSError as error:
        return f"{program}: {error.strerror}"
    try:
        report: Report = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        words = done.stderr.strip().splitlines()
        return words[-1][:300] if words else f"it ended with {done.returncode}"
    return report


def judge(report: Report) -> tuple[list[str], list[str]]:
    """Return the vulnerabilities, a line each, and the packages that nothing was said of."""
    bad = [
        f"{one['name']} {one['version']}: {found['id']}"
        f" (mended in {', '.join(found.get('fix_versions') or ['no version'])})"
        for one in report
        for found in one.get("vulns", ())
    ]
    return bad, [one["name"] for one in report if "skip_reason" in one]


def main(program: str, pins: Path) -> int:
    """Audit, tell, and return the exit code."""
    chosen = os.environ.get(_CHOSEN)
    services = (chosen,) if chosen else _SERVICES
    reasons = []
    for service in services:
        report = ask(program, pins, service)
        if isinstance(report, str):
            reasons.append(f"{service}: {report}")
            continue
        bad, unknown = judge(report)
        for line in bad:
            _say(f"VULNERABLE: {line}")
        if bad:
            return 1
        if not unknown:
            _say(f"{len(report)} packages, none with a known vulnerability (by {service})")
            return 0
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        reasons.append(f"{service} knows nothing of {', '.join(unknown[:_SHOWN])}{more}")
    must = os.environ.get("AUDIT") == "must"
    _say("NOT AUDITED: nobody said whether these packages have known vulnerabilities")
    for reason in reasons:
        _say(f"  {reason}")
    _say("  run it where an advisory service answers; AUDIT=must makes this a failure")
    return 1 if must else 0


def _say(words: str) -> None:
    sys.stderr.write(f"audit: {words}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
