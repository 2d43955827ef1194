"""What the source files say about the components, read without importing them or torch."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path


@dataclass(frozen=True)
class Field:
    """One config field of a component."""

    name: str
    type: str
    default: str | None
    doc: str


@dataclass(frozen=True)
class Entry:
    """A registered component as its source file describes it."""

    kind: str
    name: str
    doc: str
    fields: tuple[Field, ...]
    path: str
    line: int

    @property
    def summary(self) -> str:
        """The first sentence of the docstring, on one line."""
        paragraph = " ".join(self.doc.split("\n\n", 1)[0].split())
        return re.split(r"(?<=[.!?])\s+(?=[A-Z\[(])", paragraph, maxsplit=1)[0]


@cache
def registrations(path: str) -> tuple[Entry, ...]:
    """The components that a file registers with `@register(kind, name)`; none if it is missing."""
    if not Path(path).is_file():
        return ()
    source = Path(path).read_text(encoding="utf-8")
    if "register(" not in source:
        return ()
    found = []
    for node in ast.parse(source, filename=path).body:
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                named = _registered_as(decorator)
                if named:
                    doc = ast.get_docstring(node) or ""
                    found.append(Entry(*named, doc, tuple(_fields(node)), path, node.lineno))
    return tuple(found)


def described(kind: str, name: str, cls: type) -> Entry:
    """The entry of a class that is already imported, for components of other packages.

    Read from its source like any other; a class without one (made at run time, or registered by a
    call instead of a decorator) is described by what Python knows of it, without field docs.
    """
    path = inspect.getsourcefile(cls) if cls.__module__ != "__main__" else None
    for entry in registrations(path or ""):
        if (entry.kind, entry.name) == (kind, name):
            return entry
    config = getattr(cls, "Config", None)
    fields = dataclasses.fields(config) if dataclasses.is_dataclass(config) else ()
    known = (Field(f.name, _spelled(f.type), _default(f), "") for f in fields)
    return Entry(kind, name, inspect.getdoc(cls) or "", tuple(known), path or cls.__module__, 0)


def _spelled(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(field: dataclasses.Field[object]) -> str | None:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return None


def _registered_as(decorator: ast.expr) -> tuple[str, str] | None:
    if not isinstance(decorator, ast.Call) or len(decorator.args) != 2:
        return None
    function = decorator.func
    called = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if called != "register" or not all(isinstance(arg, ast.Constant) for arg in decorator.args):
        return None
    kind, name = (ast.literal_eval(arg) for arg in decorator.args)
    return kind, name


def _fields(component: ast.ClassDef) -> list[Field]:
    nested = (node for node in component.body if isinstance(node, ast.ClassDef))
    config = next((node for node in nested if node.name == "Config"), None)
    body = config.body if config else []
    fields: list[Field] = []
    for node, following in zip_longest(body, body[1:]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            doc = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                doc = " ".join(str(following.value.value).split())
            fields.append(
                Field(node.target.id, ast.unparse(node.annotation), _written(node.value), doc)
            )
    return fields


def _written(default: ast.expr | None) -> str | None:
    """A default as a reader would write it: the value inside `field(default_factory=lambda: x)`."""
    if isinstance(default, ast.Call) and isinstance(default.func, ast.Name):
        given = {keyword.arg: keyword.value for keyword in default.keywords}
        if default.func.id == "field" and "default" in given:
            return ast.unparse(given["default"])
        factory = given.get("default_factory")
        if default.func.id == "field" and isinstance(factory, ast.Lambda):
            return ast.unparse(factory.body)
        if default.func.id == "field" and factory is not None:
            return f"{ast.unparse(factory)}()"
    return ast.unparse(default) if default else None
