"""The documents: their examples run, their links lead somewhere, the files they name exist."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"\b((?:[\w.-]+/)*[\w.-]+\.(?:py|md|svg|toml))\b")


def run_examples(page: str) -> None:
    """Run a page's Python one block after the other; a block of text right behind one is what it prints."""
    text = (ROOT / page).read_text("utf-8")
    blocks = list(FENCE.finditer(text))
    names: dict[str, object] = {"__name__": "example"}
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] != "python":
            continue
        line = text.count("\n", 0, block.start()) + 1
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * line + block[2], page, "exec"), names)
        if (
            following is not None
            and following[1] == "text"
            and not text[block.end() : following.start()].strip()
        ):
            checker = doctest.OutputChecker()
            assert checker.check_output(following[2], output.getvalue(), doctest.ELLIPSIS), (
                f"{page}:{line} prints:\n{output.getvalue()}"
            )


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("page", ["README.md", "docs/howto/boot-from-python.md"])
def test_examples_that_boot_linux(page: str) -> None:
    run_examples(page)


@pytest.mark.parametrize("page", ["write-an-instruction", "write-a-device"])
def test_examples(page: str) -> None:
    run_examples(f"docs/howto/{page}.md")


@pytest.mark.parametrize("page", NAMES)
def test_links(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", path.read_text("utf-8")))
    assert [target for target in targets if "://" not in target and not (path.parent / target).exists()] == []


@pytest.mark.parametrize("page", [name for name in NAMES if "reference" not in name])
def test_files_exist(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text("utf-8"))
    named = {name for code in re.findall(r"`([^`\n]+)`", text) for name in FILE.findall(code)}
    places = [ROOT, ROOT / "docs", ROOT / "src" / "doppel", (ROOT / page).parent]
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()


def test_the_picture_is_current() -> None:
    drawn = subprocess.run([sys.executable, ROOT / "docs" / "picture.py"], capture_output=True, check=True)
    picture = ROOT / "docs" / "architecture.svg"
    assert picture.read_bytes() == drawn.stdout, "run: python docs/picture.py > docs/architecture.svg"
    for name in re.findall(r">([\w/]+\.py)<", picture.read_text("utf-8")):
        assert (ROOT / "src" / "doppel" / name).exists(), name
