"""What scripts of dev/ measure has its place in README.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PLACES = sorted(
    place
    for path in (ROOT / "dev").glob("*.py")
    for place in re.findall(r'replace_table\("(\w+)"', path.read_text(encoding="utf-8"))
)


@pytest.fixture
def readme_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "dev" / "readme_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_that_writes_one_has_its_marks() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- (\w+) -->\n.*?<!-- /\1 -->\n", text, re.DOTALL)
    assert len(PLACES) >= 6 and sorted(found) == PLACES


def test_only_what_stands_between_the_marks_is_replaced(
    readme_table: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    rest = "b\n<!-- two -->\nx\n<!-- /two -->\nc\n"
    readme.write_text(f"a\n<!-- one -->\nold\n<!-- /one -->\n{rest}")
    monkeypatch.setattr(readme_table, "README", readme)
    readme_table.replace_table("one", "| new \\1 |\n| row |")
    new = "a\n<!-- one -->\n| new \\1 |\n| row |\n<!-- /one -->\n"
    assert readme.read_text() == new + rest
    readme.write_text("a\n<!-- one -->\nno end\n")
    with pytest.raises(SystemExit, match=r"no marks <!-- one --> and <!-- /one -->"):
        readme_table.replace_table("one", "")
    assert readme.read_text() == "a\n<!-- one -->\nno end\n"
