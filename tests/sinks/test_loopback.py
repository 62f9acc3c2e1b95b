"""Two ends that resolve a name differently must still connect."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import zmq
from prometheus_client import CollectorRegistry

from streamer.client import Subscriber
from streamer.runtime.health import Answer, HealthServer
from streamer.sinks.loopback import loopback_addresses
from streamer.sinks.wire import Message
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
from tests.listeners import ROOT, wait_for

HAS_IPV6 = "::1" in loopback_addresses("::1") and "::1" in loopback_addresses("localhost")
HOSTS = "::1 localhost both\n127.0.0.1 localhost both four\n::1 six\n192.0.2.1 far\n127.0.0.1 mixed\n192.0.2.1 mixed\n"
"""As on some machines, where another of the name's addresses comes first."""


def test_names_and_addresses() -> None:
    assert loopback_addresses("127.0.0.1") == ["127.0.0.1"]
    assert loopback_addresses("127.1.2.3") == ["127.1.2.3"]
    assert loopback_addresses("[::1]") == ["::1"]
    assert loopback_addresses("LOCALHOST.") == loopback_addresses("localhost")
    assert loopback_addresses("localhost")[0] == "127.0.0.1"
    for host in ("0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid", "*", "", "a b", "\udcff", "x" * 300):
        assert loopback_addresses(host) == []


@pytest.mark.parametrize("at", ["localhost", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("to", ["localhost", "127.0.0.1", "[::1]"])
def test_a_subscriber_connects_by_any_name_of_this_machine(at: str, to: str) -> None:
    if "[::1]" in (at, to) and not HAS_IPV6:
        pytest.skip("no IPv6 here")
    sink = ZmqSink(f"tcp://{at}:0")
    port = sink.endpoint.rpartition(":")[2]
    if "localhost" not in (at, to) and at != to:
        sink.close()
        return  # two addresses, said as such
    with Subscriber(f"tcp://{to}:{port}") as messages:
        numberer, got = make.numberer(), list[Message]()
        first = numberer.number(make.status())
        sink.send(first)

        def meanwhile() -> None:
            sink.poll(0.02)
            if (message := messages.receive(0.02)) is not None:
                got.append(message)

        wait_for(lambda: bool(got), meanwhile)
        for _ in range(50):
            sink.send(numberer.number(make.onset()))
        wait_for(lambda: len(got) == 51, meanwhile)
        assert messages.receive(0.3) is None  # each message once, over any number of connections
        assert not messages.missed
    sink.close()


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
def test_the_port_is_the_same_at_both_addresses_and_must_be_free_at_both() -> None:
    sink = ZmqSink("tcp://localhost:0")
    port = int(sink.endpoint.rpartition(":")[2])
    context = zmq.Context()
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), timeout=5):
            pass
    context.term()
    sink.close()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        taken = other.getsockname()[1]
        with pytest.raises(Exception, match="is in use"):
            ZmqSink(f"tcp://localhost:{taken}")


def test_metrics_answer_at_every_address_of_the_name() -> None:
    server = HealthServer("localhost:0", CollectorRegistry(), lambda: Answer(True, {}), lambda: Answer(True, {}))
    try:
        for host in loopback_addresses("localhost"):
            place = f"[{host}]" if ":" in host else host
            assert httpx.get(f"http://{place}:{server.port}/healthz").status_code == 200
    finally:
        server.close()


def _unshare() -> list[str]:
    """A command that gives a process a file system of its own; [] if this machine does not allow it."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        if (
            shutil.which("unshare")
            and not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
        ):
            return command
    return []


@pytest.mark.skipif(not _unshare(), reason="needs root or user namespaces")
def test_another_order_in_the_hosts_file(tmp_path: Path) -> None:
    """Where localhost is ::1 first and further names are defined, both ends use all addresses of a name."""
    (tmp_path / "hosts").write_text(HOSTS)
    code = """
import json, sys
from streamer.client import Subscriber
from streamer.errors import SinkError
from streamer.sinks.loopback import loopback_addresses
from streamer.sinks.zmq import ZmqSink
from tests import messages as make
names = {name: loopback_addresses(name) for name in ("localhost", "both", "four", "six", "far", "mixed")}
heard = {}
for at, to in (("localhost", "localhost"), ("127.0.0.1", "localhost"), ("both", "localhost"), ("four", "both")):
    sink = ZmqSink(f"tcp://{at}:0")
    with Subscriber(f"tcp://{to}:{sink.endpoint.rpartition(':')[2]}") as messages:
        sink.send(make.numberer().number(make.status()))
        for _ in range(200):
            sink.poll(0.02)
            if messages.receive(0.01) is not None:
                heard[f"{at} {to}"] = True
                break
    sink.close()
try:
    ZmqSink("tcp://mixed:0")
except SinkError as error:
    heard["mixed"] = str(error)
print(json.dumps([names, heard]))
"""
    script = 'mount --bind "$1" /etc/hosts && exec "$2" -c "$3"'
    command = [*_unshare(), "sh", "-c", script, "sh", str(tmp_path / "hosts"), sys.executable, code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    names, heard = json.loads(done.stdout)
    six = ["::1"] if HAS_IPV6 else []
    assert names == {
        "localhost": ["127.0.0.1", *six],
        "both": ["127.0.0.1", *six],
        "four": ["127.0.0.1"],
        "six": six,
        "far": [],
        "mixed": [],
    }
    assert {name for name, one in heard.items() if one is True} == {
        "localhost localhost",
        "127.0.0.1 localhost",
        "both localhost",
        "four both",
    }
    assert "need keys" in heard["mixed"]
