"""A real Prometheus that scrapes real daemons, for tests."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import httpx

from tests.rtsp import free_port

Series: TypeAlias = list[dict[str, Any]]


class Prometheus:
    """Scrapes `targets` (instance → HOST:PORT) each second as the job `earwitness`, while the `with` block lasts."""

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        self._folder = folder
        self._url = f"127.0.0.1:{free_port()}"
        job = {
            "job_name": "earwitness",
            "static_configs": [
                {"targets": [address], "labels": {"instance": instance}} for instance, address in targets.items()
            ],
        }
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "900ms"}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'tsdb'}",
                f"--web.listen-address={self._url}",
                "--log.level=error",
            ]
        )
        end_s = time.monotonic() + 30.0
        while True:
            try:
                if httpx.get(f"http://{self._url}/-/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            assert time.monotonic() < end_s, "Prometheus does not start"
            time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)

    def query(self, expr: str) -> Series:
        """Results of an instant query: `metric` (labels) and `value` of each series. An invalid one fails the test."""
        answer = httpx.get(f"http://{self._url}/api/v1/query", params={"query": expr}).json()
        assert answer["status"] == "success", (expr, answer)
        found: Series = answer["data"]["result"]
        return found

    def until(self, expr: str, holds: Callable[[Series], object], seconds: float = 60.0) -> Series:
        """Repeats the query `expr` until `holds` is true of its result, and returns this."""
        end_s = time.monotonic() + seconds
        while not holds(found := self.query(expr)):
            assert time.monotonic() < end_s, f"not true within {seconds} s: {expr}: {found}"
            time.sleep(0.5)
        return found
