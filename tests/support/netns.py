"""A second host on this machine: a network namespace at the end of a cable that can be cut.

The cable is two pairs of virtual interfaces with a bridge between them, in a namespace of its own. Cutting takes one
end off the bridge: both hosts go on seeing a live link, and whatever they send is lost, silently and both ways, as in
a tunnel. (An interface set down is something else: the programs above it are told at once.)
"""

import ctypes
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

_ATTEMPTS = 10
_NOBODY = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")
"""A neighbour that no interface is: what is sent there is dropped where it arrives, and nobody is told."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
WIRE_ENDS = ("near", "far")
"""The interfaces between the two hosts: what comes out of one goes into the other."""


def namespaces_missing() -> str | None:
    """Say in one sentence why there can be no second host here; None where there can."""
    if shutil.which("ip") is None:
        return "no network namespaces: run `make setup`, or install iproute2"
    if os.geteuid() != 0:
        return "no network namespaces: only root can make them"
    probe = f"probe-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
        _ip("netns", "delete", probe)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.strip()}"
    return None


class SecondHost:
    """The namespace and the cable. Use it as a context manager; both are gone at the end."""

    def __init__(self) -> None:
        """Nothing is made before the context is entered."""
        self.address = ""
        """Of this machine, at its end of the cable: where servers for the second host listen."""
        self.second_address = ""
        """Of the second host."""
        self.interface = ""
        self._name = ""
        self._before: int | None = None
        self._there = -1

    def __enter__(self) -> Self:
        """Lay the cable, on a network that this machine does not have yet."""
        for attempt in range(_ATTEMPTS):
            try:
                self._lay(random.randint(0, 0xFFFF))
            except subprocess.CalledProcessError:
                self.__exit__()
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            break
        return self

    def _lay(self, number: int) -> None:
        network = f"10.213.{number >> 8}.{number & 0xFC}"
        if network in json.dumps(_json("address")):  # pragma: no cover -- one in 16,384
            raise subprocess.CalledProcessError(1, "ip", stderr=f"{network} is in use")
        prefix = network.rpartition(".")[0]
        self._name = f"ca{os.getpid()}-{number:04x}"
        self.interface = f"ca{number:04x}-host"
        self.address = f"{prefix}.{(number & 0xFC) + 1}"
        self.second_address = f"{prefix}.{(number & 0xFC) + 2}"
        for namespace in (self._name, self._wire):
            _ip("netns", "add", namespace)
        _ip("link", "add", self.interface, "type", "veth", "peer", "name", "near", "netns", self._wire)
        _ip("-n", self._wire, "link", "add", "far", "type", "veth", "peer", "name", "cable", "netns", self._name)
        _ip("-n", self._wire, "link", "add", "bridge", "type", "bridge")
        self.bridge()
        for interface in (*WIRE_ENDS, "bridge"):
            _ip("-n", self._wire, "link", "set", interface, "up")
        _ip("address", "add", f"{self.address}/30", "dev", self.interface)
        _ip("link", "set", self.interface, "up")
        _ip("-n", self._name, "address", "add", f"{self.second_address}/30", "dev", "cable")
        _ip("-n", self._name, "link", "set", "cable", "up")
        _ip("-n", self._name, "link", "set", "lo", "up")

    def __exit__(self, *_: object) -> None:
        """Take it all away."""
        for command in (
            ("link", "delete", self.interface), ("netns", "delete", self._wire), ("netns", "delete", self._name)
        ):  # fmt: skip
            with suppress(subprocess.CalledProcessError):
                _ip(*command)

    @property
    def _wire(self) -> str:
        return f"{self._name}-wire"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command to run it on the second host."""
        return ("ip", "netns", "exec", self._name)

    @property
    def wire_prefix(self) -> tuple[str, ...]:
        """What to put before a command to run it between the two hosts, where `WIRE_ENDS` are the cable's ends."""
        return ("ip", "netns", "exec", self._wire)

    def unbridge(self) -> None:
        """Lose every packet that no program carries between `WIRE_ENDS`, until `bridge`."""
        for end in WIRE_ENDS:
            _ip("-n", self._wire, "link", "set", end, "nomaster")

    def bridge(self) -> None:
        """Carry packets again without a program."""
        for end in WIRE_ENDS:
            _ip("-n", self._wire, "link", "set", end, "master", "bridge")

    def cut(self) -> None:
        """Lose every packet, both ways, from now on."""
        _ip("-n", self._wire, "link", "set", "far", "nomaster")

    def mute(self) -> None:
        """Lose what the second host sends, in silence, from now on."""
        _ip("-n", self._name, "neigh", "replace", self.address, *_NOBODY, "dev", "cable")

    def deafen(self) -> None:
        """Lose what is sent to the second host, in silence, from now on."""
        with self._left():
            _ip("neigh", "replace", self.second_address, *_NOBODY, "dev", self.interface)

    def misroute(self) -> None:
        """Have the second host know no way to this one: its programs are told."""
        _ip("-n", self._name, "route", "add", "blackhole", self.address)

    def mend(self) -> None:
        """Lose none any more."""
        _ip("-n", self._wire, "link", "set", "far", "master", "bridge")
        for command in (
            ("-n", self._name, "neigh", "delete", self.address, "dev", "cable"),
            ("neigh", "delete", self.second_address, "dev", self.interface),
            ("-n", self._name, "route", "delete", "blackhole", self.address),
        ):
            with suppress(subprocess.CalledProcessError), self._left():  # what was not lost
                _ip(*command)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the sockets that this thread makes be the second host's."""
        here = Path("/proc/thread-self/ns/net")
        with here.open("rb") as before, Path("/var/run/netns", self._name).open("rb") as there:
            self._before, self._there = before.fileno(), there.fileno()
            _enter(self._there)
            try:
                yield
            finally:
                _enter(self._before)
                self._before = None

    @contextmanager
    def _left(self) -> Iterator[None]:
        """Be on this host again for a moment, if this thread has entered the second one."""
        if self._before is None:
            yield
            return
        _enter(self._before)
        try:
            yield
        finally:
            _enter(self._there)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def _json(*arguments: str) -> Any:
    return json.loads(_ip("-json", *arguments))
