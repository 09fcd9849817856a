"""Strictness for continuous integration.

With DOPPEL_REQUIRE_ALL=1 in the environment a skipped test counts as failed, and a run of the whole suite
fails unless something of each folder of tests has passed, slow tests and those that download included.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest

REQUIRE_ALL = os.environ.get("DOPPEL_REQUIRE_ALL", "") not in ("", "0")
# Skips that tell of what the host permits, not of what is installed on it.
PERMITTED = re.compile(
    r"root may |needs root to mount|mounting is not allowed|no permission to set an interface up"
    r"|network interface|/dev/net/tun"
)
TESTS = Path(__file__).parent
SUITES = frozenset(path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py"))
MARKS = frozenset({"slow", "network"})

_passed: set[str] = set()


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not PERMITTED.search(reason):
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} did not run, and DOPPEL_REQUIRE_ALL is set. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report)
    if report.when == "call" and report.passed:
        _passed.add(item.path.parent.relative_to(TESTS).as_posix())
        _passed.update(mark.name for mark in item.iter_markers() if mark.name in MARKS)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report)
    return report


def _absent(config: pytest.Config) -> set[str]:
    """What a run of everything should have had."""
    partial = config.option.keyword or config.option.markexpr or config.option.collectonly
    if not REQUIRE_ALL or partial or config.args_source is config.ArgsSource.ARGS:
        return set()
    return (SUITES | MARKS) - _passed


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _absent(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if absent := _absent(config):
        terminalreporter.write_line(f"nothing has passed of: {', '.join(sorted(absent))}", red=True)
