"""How long the engine takes to build from nothing, and to load from the cache, each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.measure import DOPPEL, Benchmark, BenchmarkError, Measured, Metric, Settings

__all__ = ["ENGINE"]

CHILD = """
import json, time
began = time.perf_counter()
from doppel.translate.build import load_engine
imported, processor = time.perf_counter(), time.process_time()
built = load_engine().built
took = {"load": time.perf_counter() - imported, "cpu": time.process_time() - processor}
print(json.dumps(took | {"import": imported - began, "built": built}))
"""


@dataclass(frozen=True)
class _Engine:
    settings: Settings
    name: str = DOPPEL

    def measure(self) -> Measured:
        with tempfile.TemporaryDirectory(dir=self.settings.folder) as cache:
            first, second = self._load(cache), self._load(cache)
        if not first["built"] or second["built"]:
            raise BenchmarkError("the engine did not come from where it should: its cache does not work")
        return {
            "build": first["load"],
            "cpu": first["cpu"],
            "load": second["load"],
            "import": second["import"],
        }

    def _load(self, cache: str) -> dict[str, float]:
        environment = dict(self.settings.environment) | {"XDG_CACHE_HOME": cache}
        child = subprocess.run(
            [sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, timeout=600
        )
        if child.returncode:
            raise BenchmarkError(f"the engine cannot be built: {child.stderr.strip()[-600:]}")
        loaded: dict[str, float] = json.loads(child.stdout)
        return loaded


@contextmanager
def _subjects(settings: Settings) -> Iterator[Sequence[_Engine]]:
    yield [_Engine(settings)]


ENGINE = Benchmark(
    "engine",
    "making the engine ready, in a fresh process",
    (
        Metric("build", "build it from nothing", "s", "lower", promise=5.0),
        Metric("cpu", "processor time for that", "s", "lower"),
        Metric("load", "load it from the cache", "s", "lower", promise=0.3),
        Metric("import", "import the modules for either", "s", "lower"),
    ),
    _subjects,
)
