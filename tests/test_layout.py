"""The shape of the house: what lies where, who imports whom, and how long things may get."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "unlabeled"

TOP_LEVEL = {
    "LICENSE",
    "README.md",
    "configs",
    "dev",
    "extra_scripts",
    "platform",
    "pyproject.toml",
    "setup.cfg",
    "tests",
}

# Each row may import itself and the rows above it.
ROOMS = [
    {"errors", "printable", "activity", "process", "registry", "catalog", "config", "distributed"},
    {"data"},
    {"models", "clustering"},
    {"methods", "losses", "assigners"},
    {"optim"},
    {"meters"},
    {"engine"},
    {"evaluation", "transfer", "planning"},
    {"hooks"},
    {"launch", "studies"},
    {"cli", "__main__"},
]
# Contracts of a later room that an earlier one works with: the types that travel, and what the
# engine calls around its steps.
ANYWHERE = {"unlabeled.data.types", "unlabeled.hooks.base"}

# module: the only files (below the package) that import it
SINGLE_IMPORTERS = {
    "torch.distributed": "distributed/*",
    "submitit": "launch/slurm.py",
    "detectron2": "transfer/detectron2*.py",
    "pycocotools": "transfer/coco_tools.py",
    "transformers": "transfer/transformers_detr.py",
}

# import name: distribution, where the two differ
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "faiss": "faiss-cpu",
    "hydra": "hydra-core",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
# Not on PyPI, so no requirement can name it; `unlabeled doctor` says how to get it.
OUTSIDE_PYPI = {"detectron2"}
# Only measured, by scripts of dev/, where somebody has installed them.
PEERS = {"lightly", "solo"}

SHAPELESS = {"common", "helper", "helpers", "misc", "util", "utils"}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400


@cache
def files() -> list[Path]:
    """Everything that git tracks or would track, relative to the top."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in sorted(set(listed.splitlines())) if (ROOT / line).exists()]


def sources(*folders: str) -> Iterator[Path]:
    """Python files below top-level folders (all of them by default)."""
    for path in files():
        if path.suffix == ".py" and (not folders or path.parts[0] in folders):
            yield path


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The whole tree of a file, flat."""
    return list(ast.walk(tree(path)))


def package_sources() -> dict[str, Path]:
    """Python files of the package: place below the package -> place below the top."""
    below = Path("platform/unlabeled")
    return {
        path.relative_to(below).as_posix(): path
        for path in sources("platform")
        if path.is_relative_to(below)
    }


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of all that a file imports, at any depth; `from a import b` is `a.b`.

    Imports for annotations alone (`if TYPE_CHECKING:`) never run and do not count.
    """
    skipped = {
        inner
        for node in nodes(path)
        if isinstance(node, ast.If) and is_name(node.test, "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: list[tuple[int, str]] = []
    for node in nodes(path):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
    return found


def is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def report(problems: list[str]) -> str:
    return "\n" + "\n".join(problems)


def test_top_level_is_exactly_this() -> None:
    visible = {path.parts[0] for path in files() if not path.parts[0].startswith(".")}
    assert visible == TOP_LEVEL


def test_source_root_is_no_package_and_shadows_nothing() -> None:
    """A package called platform would hide the standard library's, and so would a types.py."""
    beside = {path.parts[1] for path in files() if path.parts[0] == "platform"}
    assert beside == {"unlabeled"}
    tops = {Path(place).parts[0].removesuffix(".py") for place in package_sources()}
    assert not tops & set(sys.stdlib_module_names)


def test_no_file_without_a_subject() -> None:
    shapeless = [str(path) for path in files() if SHAPELESS & {Path(p).stem for p in path.parts}]
    assert not shapeless, report(shapeless)


def test_single_importers() -> None:
    problems = [
        f"{path}:{line}: only {allowed} imports {module}"
        for place, path in package_sources().items()
        for line, name in imports(path)
        for module, allowed in SINGLE_IMPORTERS.items()
        if within(name, module) and not fnmatch(place, allowed)
    ]
    for place, path in package_sources().items():
        if not place.startswith("distributed/"):
            problems += [
                f"{path}:{node.lineno}: torch.distributed used without an import of its own"
                for node in nodes(path)
                if isinstance(node, ast.Attribute)
                and node.attr == "distributed"
                and is_name(node.value, "torch")
            ]
    assert not problems, report(problems)


def room_rank(name: str) -> int | None:
    """The row of ROOMS of a dotted module name below the package."""
    room = f"{name}.".split(".")[1]
    return next((rank for rank, row in enumerate(ROOMS) if room in row), None)


def test_every_room_has_its_place() -> None:
    placed = set().union(*ROOMS)
    rooms = {Path(place).parts[0].removesuffix(".py") for place in package_sources()}
    unplaced = rooms - placed - {"__init__"}
    assert not unplaced, f"give {sorted(unplaced)} a row in ROOMS"


def test_rooms_import_only_rooms_before_them() -> None:
    problems = []
    for place, path in package_sources().items():
        own = "unlabeled." + place.removesuffix(".py").replace("/", ".")
        for line, name in imports(path):
            if name.startswith("."):
                problems.append(f"{path}:{line}: relative import; spell out unlabeled.<room>")
            free = not within(name, "unlabeled") or any(within(name, each) for each in ANYWHERE)
            if not free and (room_rank(name) or 0) > (room_rank(own) or 0):
                problems.append(f"{path}:{line}: imports the later {name}")
    assert not problems, report(problems)


def test_nothing_in_the_package_imports_scripts_or_tests() -> None:
    outside = {path.stem for path in sources("extra_scripts", "dev", "tests")} | {"tests_support"}
    problems = [
        f"{path}:{line}: imports {name}"
        for path in package_sources().values()
        for line, name in imports(path)
        if name.split(".")[0] in outside - {"conftest"}
    ]
    assert not problems, report(problems)


@cache
def declared() -> set[str]:
    """Distributions that setup.cfg requires, extras included."""
    options = configparser.ConfigParser(interpolation=None)
    options.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [options["options"]["install_requires"], *options["options.extras_require"].values()]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return {re.split(r"[<>=!~\[ ;]", line)[0].lower() for line in lines}


def test_every_third_party_import_is_a_requirement() -> None:
    problems = []
    for path in sources("platform", "extra_scripts", "dev"):
        for line, name in imports(path):
            top = name.split(".")[0]
            known = sys.stdlib_module_names | OUTSIDE_PYPI | {"unlabeled", ""}
            if path.parts[0] == "dev":  # a script may import those beside it
                known |= PEERS | {file.stem for file in (ROOT / "dev").glob("*.py")}
            if top not in known and DISTRIBUTIONS.get(top, top).lower() not in declared():
                problems.append(f"{path}:{line}: {top} is not in setup.cfg")
    assert not problems, report(problems)


def test_prints_only_where_a_person_reads() -> None:
    problems = [
        f"{path}:{node.lineno}: print"
        for place, path in package_sources().items()
        if not place.startswith("cli/")
        for node in nodes(path)
        if isinstance(node, ast.Call) and is_name(node.func, "print")
    ]
    assert not problems, report(problems)


def test_functions_fit_a_screen_and_files_one_subject() -> None:
    problems = []
    for path in sources():
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            problems.append(f"{path}: {lines} lines, at most {MAX_FILE_LINES}")
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    problems.append(
                        f"{path}:{node.lineno}: {node.name} has {length} lines, "
                        f"at most {MAX_FUNCTION_LINES}"
                    )
    assert not problems, report(problems)


def test_every_module_says_what_it_is_for() -> None:
    folders = ("platform", "extra_scripts", "dev")
    problems = [str(path) for path in sources(*folders) if not ast.get_docstring(tree(path))]
    assert not problems, report(problems)


def test_sources_are_ascii() -> None:
    problems = []
    for path in files():
        if path.suffix in {".py", ".yaml", ".sh", ".cfg", ".toml"} and (ROOT / path).is_file():
            text = (ROOT / path).read_text(encoding="utf-8")
            problems += [
                f"{path}:{number}: {line.strip()}"
                for number, line in enumerate(text.splitlines(), start=1)
                if not line.isascii()
            ]
    assert not problems, report(problems)


def test_tests_mirror_the_package() -> None:
    rooms = {Path(place).parent for place in package_sources()}
    problems = []
    for path in sources("tests"):
        folder = Path(*path.parts[1:-1])
        if path.name.startswith("test_") and folder != Path() and folder not in rooms:
            problems.append(f"{path}: the package has no folder {folder}")
    assert not problems, report(problems)


def test_links_of_the_documents_lead_somewhere() -> None:
    problems = []
    for path in files():
        if path.suffix == ".md":
            text = (ROOT / path).read_text(encoding="utf-8")
            for target in re.findall(r"\]\(([^)\s]+)\)", text):
                place = target.split("#")[0]
                if place and ":" not in place and not (ROOT / path.parent / place).exists():
                    problems.append(f"{path}: {target}")
    assert not problems, report(problems)
