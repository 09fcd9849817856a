"""What was measured on what: the host and the versions, in words that go into a file."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import llvmlite

__all__ = ["describe_host"]


def describe_host() -> dict[str, str]:
    """Name and value of all that a figure depends on; nothing that says whose machine it is."""
    cpu_info = _read("/proc/cpuinfo")
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    system = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release"), re.MULTILINE)
    processor = re.search(r"model name\s*: (.*)", cpu_info)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{processor[1] if processor else platform.machine()}, {os.cpu_count()} processors"
        + (", virtual machine" if re.search(r"^flags\s*:.* hypervisor\b", cpu_info, re.MULTILINE) else ""),
        "memory": f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "unknown",
        "system": system[1] if system else platform.system(),
        "versions": ", ".join(
            f"{name} {number}"
            for name, number in (
                ("doppel", _version("doppel")),
                ("Python", platform.python_version()),
                ("llvmlite", llvmlite.__version__),
            )
        ),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
