"""All roles of one side, as its settings call for them: started, kept up, ended in order."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from facerelay.commands.exits import Exit
from facerelay.commands.supervise import Role, mosquitto, ours, stopped_by_signals
from facerelay.config import Config
from facerelay.sections.base import is_loopback
from facerelay.sections.wire import Broker
from facerelay.settings import ConfigError
from facerelay.stamp import stamp

log = logging.getLogger(__name__)

_END_ORDER: Final = ("capture", "forward", "store", "gallery", "broker")
_LOOK_S: Final = 0.25
_FIRST_AGAIN_S: Final = 0.5
_LAST_AGAIN_S: Final = 30.0
_STEADY_S: Final = 60.0
_START_S: Final = 20.0
_ASK_S: Final = 2.0

Clock = Callable[[], float]


class Kept:
    """A role that is started again when it falls; later each time, until it has stood for a minute.

    Args:
        role: how to start it.
        reload: files by which it goes, and what it is told when one has changed.
        clock: monotonic seconds.
    """

    def __init__(self, role: Role, reload: Sequence[Reload] = (), *, clock: Clock = time.monotonic) -> None:
        self.role = role
        self._reload = reload
        self._clock = clock
        self._began = self._again = clock()
        self._falls = 0

    def look(self) -> None:
        """Start it if it is time to; hand on what changed.

        Raises:
            ConfigError: its settings are wrong, and it said so.
        """
        process = self.role.process
        if process is None:
            if self._clock() >= self._again:
                self._start()
            return
        if process.poll() is None:
            self._falls = 0 if self._clock() - self._began > _STEADY_S else self._falls
            self._see_files()
            return
        if process.returncode == Exit.WRONG:
            raise ConfigError(f"{self.role.name} cannot run with these settings: {self.role.last_words()}")
        wait = min(_LAST_AGAIN_S, _FIRST_AGAIN_S * 2**self._falls)
        self._falls += 1
        log.warning(
            "%s ended with code %s: started again in %.3g s", self.role.name, process.returncode, wait
        )
        self.role.process, self._again = None, self._clock() + wait

    def _start(self) -> None:
        for each in self._reload:
            each.changed()
        self._began = self._clock()
        self.role.start()

    def _see_files(self) -> None:
        asked = [each for each in self._reload if each.changed()]
        if any(each.anew for each in asked):
            log.info(
                "certificates were revoked: %s starts anew, so that no connection of theirs stands",
                self.role.name,
            )
            self.role.end()
            self._start()
        elif asked and self.role.process is not None:
            log.info("%s reads its access list anew", self.role.name)
            self.role.process.send_signal(signal.SIGHUP)


class Reload:
    """A file that a role should see when it changes.

    Args:
        path: of the file.
        anew: whether the role is to start anew; else it is sent SIGHUP.
    """

    def __init__(self, path: Path, *, anew: bool) -> None:
        self.anew = anew
        self._path = path
        self._seen = stamp(path)

    def changed(self) -> bool:
        """Whether it is another one than at the last call."""
        seen = stamp(self._path)
        changed, self._seen = seen != self._seen, seen
        return changed


def run(config: Config, words: Sequence[str], *, without: Sequence[str] = (), verbose: bool = False) -> int:
    """Run the roles of one side until SIGINT, SIGTERM or SIGHUP, and return the exit code.

    Args:
        config: this machine's settings.
        words: `-c FILE`, `--set …`: the same settings, for each role.
        without: roles that somebody else runs.
        verbose: whether the roles log more.

    Raises:
        ConfigError: the settings call for no role, or a role says that they are wrong.
    """
    names = [name for name in roles_of(config) if name not in without]
    if not names:
        raise ConfigError("no role is left to run")
    kept = [_kept(config, name, words, verbose=verbose) for name in names]
    stop = threading.Event()
    log.info("runs %s; Ctrl-C ends them", ", ".join(names))
    try:
        with stopped_by_signals(stop):
            if names[0] == "broker":
                _begin(kept[0], config.broker, stop)
            while not stop.is_set():
                for each in kept:
                    each.look()
                stop.wait(_LOOK_S)
    finally:
        for each in sorted(kept, key=lambda one: _END_ORDER.index(one.role.name)):
            each.role.end()
    return Exit.FINE


def roles_of(config: Config) -> list[str]:
    """Return the roles that a file calls for, in the order of their start.

    Raises:
        ConfigError: neither an edge's file nor a cloud's.
    """
    broker = ["broker"] if _is_here(config) else []
    if config.cloud is not None or config.camera:
        edge = [] if config.direct or config.cloud is None else ["forward"]
        if config.cloud is None and not config.direct:
            raise ConfigError("no cloud broker: add a [cloud] section with its url, or set direct = true")
        return [*([] if config.direct else broker), *edge, *(["capture"] if config.camera else [])]
    if "bucket" in config.model_fields_set:
        return [*broker, "store", "gallery"]
    raise ConfigError("neither a camera nor a bucket is set: name an edge.toml or a cloud.toml with -c")


def _is_here(config: Config) -> bool:
    """Whether this side's broker is this machine's to run."""
    broker = config.broker
    told = broker.listen or broker.mosquitto or broker.server_cert
    return bool(told) or (is_loopback(broker.host) and not broker.tls)


def _kept(config: Config, name: str, words: Sequence[str], *, verbose: bool) -> Kept:
    conf = config.broker.mosquitto
    if name != "broker" or conf is None:
        return Kept(Role(name, ours(*(["-v"] if verbose else []), name, *words)))
    from facerelay.link.mosquitto import acl_of  # noqa: PLC0415 - it brings cryptography

    command = mosquitto(conf, instead="unset broker.mosquitto")
    if not conf.is_file():
        raise ConfigError(f"broker.mosquitto: {conf}: no such file")
    reload = [Reload(acl_of(conf), anew=False)]
    if config.trust.devices is not None:
        reload.append(Reload(config.trust.devices.parent / "crl.pem", anew=True))
    return Kept(Role(name, command), reload)


def _begin(kept: Kept, broker: Broker, stop: threading.Event) -> None:
    """Start the broker, and give it a moment, so that the others find it."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until and not stop.is_set():
        kept.look()
        if _answers(broker):
            return
        stop.wait(_FIRST_AGAIN_S / 10)


def _answers(broker: Broker) -> bool:
    """Whether the broker is there; asked as its clients ask: it would log a handshake that was broken off."""
    from facerelay.link.tls import TlsFileError, tls_context  # noqa: PLC0415 - needed at the start alone

    try:
        with socket.create_connection((broker.host, broker.port), _ASK_S) as plain:
            if broker.tls:
                tls_context(broker).wrap_socket(plain, server_hostname=broker.host).close()
    except (ssl.SSLError, TlsFileError):
        return True  # those who follow say why
    except OSError:
        return False
    return True
