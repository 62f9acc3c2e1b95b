"""docs/security.md names the test of each threat: they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)


def test_the_named_tests_exist() -> None:
    named = [(file, test) for file, test in NAMED if file != "tests/test_security.py"]
    assert len(named) >= 15
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert any(name.startswith("test_") for name in defined), file
        assert not test or test in defined, f"{file} has no {test}"


def test_each_threat_has_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")][2:]
    assert rows
    for row in rows:
        assert re.search(r"`tests/\S+\.py", row.split("|")[4]), row
