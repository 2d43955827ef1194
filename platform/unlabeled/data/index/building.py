"""Builds an index in parallel; a build that was stopped goes on where it was.

Every unit of the inputs becomes sorted runs in a folder beside the index, and a small file that
says so when they are complete. When all units are done, the runs are merged into the index, which
takes its name as the last thing that happens. The order of an index is that of its paths, whatever
the number of processes: files by path, members by their shard's path and their place in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unlabeled.data.index.layout import HEADER, Header, read_header
from unlabeled.data.index.listings import Unit
from unlabeled.data.index.records import Problem, RunWriter, merged, unique
from unlabeled.data.index.workers import in_processes
from unlabeled.data.index.writer import write_index
from unlabeled.data.sources.labels import class_names
from unlabeled.data.whole_files import write_file
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem

PLAN, LOCK = "plan.json", "lock"
NAMED_PER_UNIT = 20
MAX_CLASSES = 1_000_000
# Not of the images' making: a path that two lists name is one image, and no harm is done.
HARMLESS = frozenset({"duplicate"})


@dataclass
class Notes:
    """Problems, counted by kind; the first ones by name."""

    counts: Counter[str] = field(default_factory=Counter)
    named: list[Problem] = field(default_factory=list)

    def __call__(self, problem: Problem) -> None:
        self.counts[problem.kind] += 1
        if self.counts[problem.kind] <= NAMED_PER_UNIT:
            self.named.append(problem)

    def add(self, other: Notes) -> None:
        """Take in what another process noted."""
        self.counts.update(other.counts)
        self.named += other.named

    @property
    def harmful(self) -> int:
        """How many images, or pieces of inputs, cannot be used."""
        return sum(count for kind, count in self.counts.items() if kind not in HARMLESS)


@dataclass(frozen=True)
class Done:
    """What a finished unit left behind."""

    runs: list[str]
    count: int
    labels: list[str]
    notes: Notes


@dataclass(frozen=True)
class Built:
    """A finished index; `notes` names what was left out (empty where it was there before)."""

    header: Header
    notes: Notes
    was_there: bool


def build(
    units: Sequence[Unit],
    out: Path,
    *,
    workers: int,
    max_broken_share: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Built:
    """The index of all units at `out`, deduplicated by path, complete or not there.

    progress(units done, units) is called as they are. DataError if more than `max_broken_share` of
    what was found cannot be used, or if nothing was found; ConfigError if `out` is something else,
    or if a build of other inputs was begun there.
    """
    out = out.expanduser()
    text = _plan_text(units)
    digest = hashlib.sha256(text.encode()).hexdigest()
    work = out.with_name(f".{out.name}.part")
    if out.exists():
        header = _same(out, digest)
        shutil.rmtree(work, ignore_errors=True)  # of a build that was killed just before its end
        return Built(header, Notes(), was_there=True)
    with _held(work):
        _begin(work, text)
        missing = [n for n in range(len(units)) if not (work / _done_name(n)).exists()]
        tasks = [(work, number, units[number]) for number in missing]
        for done in in_processes(run_unit, tasks, workers):
            progress(len(units) - len(missing) + done, len(units))
        built = _join(work, len(units), out, digest, max_broken_share)
        shutil.rmtree(work)
    return built


def run_unit(work: Path, number: int, unit: Unit) -> None:
    """Sort the records of one unit into runs, and say that they are complete."""
    writer, notes, labels = RunWriter(work, f"unit-{number}"), Notes(), set[bytes]()
    try:
        for record in unit.records(notes):
            writer.add(record)
            if record.label:
                labels.add(record.label)
                if len(labels) > MAX_CLASSES:
                    raise DataError(f"{unit.source}: over {MAX_CLASSES} labels are no classes")
    except OSError as error:
        raise DataError(f"cannot read {error.filename or unit.source}: {error.strerror}") from error
    writer.flush()
    names = sorted(label.decode("utf-8", "surrogateescape") for label in labels)
    done = {
        "runs": writer.runs,
        "count": writer.count,
        "labels": names,
        "notes": {"counts": notes.counts, "named": notes.named},
    }
    _write_json(work / _done_name(number), done)


def _join(work: Path, units: int, out: Path, digest: str, max_broken_share: float) -> Built:
    """Merge what all units left into the index."""
    notes, runs, labels, found = Notes(), list[str](), set[str](), 0
    for number in range(units):
        done = _read_done(work / _done_name(number))
        notes.add(done.notes)
        runs += done.runs
        labels.update(done.labels)
        found += done.count
    if len(labels) > MAX_CLASSES:
        raise DataError(f"{len(labels)} different labels are no classes; leave them out")
    if not found:
        raise DataError(f"no images were found in what was given{_some(notes)}")
    _check_share(notes, found, max_broken_share)
    folder = work / "index"
    header = write_index(
        folder,
        unique(merged(work, runs), notes),
        base=os.path.dirname(os.path.realpath(os.fsencode(out))),
        classes=class_names(labels),
        built_from=digest,
        problems=notes.counts,
    )
    folder.rename(out)
    return Built(header, notes, was_there=False)


def _check_share(notes: Notes, found: int, allowed: float) -> None:
    if notes.harmful > allowed * (notes.harmful + found):
        raise DataError(
            f"{notes.harmful} problems beside {found} images, more than --max-broken-share="
            f"{allowed:g} allows{_some(notes)}. Mend them or raise the share; what is read already "
            "is kept"
        )


def _some(notes: Notes) -> str:
    listed = "; ".join(f"{p.kind}: {p.name} ({p.reason})" for p in notes.named[:3])
    return f": {listed}" if listed else ""


def _same(out: Path, digest: str) -> Header:
    """The header of what is there already, if it was built from the same."""
    if not (out / HEADER).is_file():
        raise ConfigError(f"{out} is there and is no index; give another name")
    header = read_header(out)
    if header.built_from != digest:
        raise ConfigError(
            f"{out} is an index of other inputs, or they have changed; give another name or "
            "remove it"
        )
    return header


def _begin(work: Path, text: str) -> None:
    """Keep the plan, or find that the one begun before was the same."""
    plan = work / PLAN
    if not plan.exists():
        write_file(plan, lambda file: file.write(text.encode()))
    elif plan.read_bytes() != text.encode():
        raise ConfigError(
            f"{work} was begun with other inputs or settings, or they have changed since; remove "
            "that folder to start afresh"
        )


@contextlib.contextmanager
def _held(work: Path) -> Iterator[None]:
    """One build at a time."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = (work / LOCK).open("wb")
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {work}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EnvironmentProblem(f"another process is building {work}") from error
        yield


def _plan_text(units: Sequence[Unit]) -> str:
    """The units, and the files they read as they are now."""
    files = {unit.source for unit in units} | {item for unit in units for item in _shards(unit)}
    stamps = {name: _stamp(name) for name in sorted(files) if os.path.isfile(name)}
    return json.dumps({"units": [asdict(unit) for unit in units], "files": stamps}, sort_keys=True)


def _shards(unit: Unit) -> tuple[str, ...]:
    return unit.items if unit.kind == "shards" else ()


def _stamp(name: str) -> list[int]:
    status = os.stat(name)
    return [status.st_size, status.st_mtime_ns]


def _done_name(number: int) -> str:
    return f"unit-{number}.json"


def _read_done(path: Path) -> Done:
    data = json.loads(path.read_bytes())
    notes = data.pop("notes")
    named = [Problem(*each) for each in notes["named"]]
    return Done(**data, notes=Notes(Counter(notes["counts"]), named))


def _write_json(path: Path, data: Any) -> None:
    text = json.dumps(data)
    write_file(path, lambda file: file.write(text.encode()))
