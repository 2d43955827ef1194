"""`unlabeled index`: build an index of images, check it, count, merge and shuffle."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from unlabeled.data.index.building import Built, build
from unlabeled.data.index.checking import DAMAGE, check, statistics
from unlabeled.data.index.deep_checking import check_images
from unlabeled.data.index.inputs import plan
from unlabeled.data.index.layout import HEADER
from unlabeled.data.index.opening import Opener, Roots
from unlabeled.data.index.reader import Index
from unlabeled.data.index.records import Problem
from unlabeled.data.index.shuffling import shuffle
from unlabeled.errors import ConfigError, DataError
from unlabeled.printable import printable

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]

SHOWN = 20
DESCRIPTION = "An index of images: what `dataset=index dataset.root=INDEX` reads."


def main(argv: Sequence[str]) -> int:
    """Do one of the five things."""
    parser = argparse.ArgumentParser(prog="unlabeled index", description=DESCRIPTION)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for add in (_add_build, _add_check, _add_stats, _add_merge, _add_shuffle):
        add(actions)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _add_build(actions: Actions) -> None:
    text = (
        "Index images in folders, lists (.txt, .npy), tables (.csv, .tsv, .jsonl with path and, "
        "where there are, label and size), tar shards (WebDataset; also by https://) and other "
        "indexes, in parallel and in bounded memory. A build that was stopped goes on when it is "
        "started again."
    )
    parser = actions.add_parser("build", help="make an index", description=text)
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    parser.add_argument("--root", help="where relative paths of lists start; default: the list")
    parser.add_argument(
        "--labels",
        choices=("none", "folder"),
        default="none",
        help="of images in folders: none, or the first subfolder; lists and shards bring their own",
    )
    parser.add_argument("--sizes", action="store_true", help="look at every file for its size")
    parser.add_argument(
        "--max-broken-share",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="of unusable members, shards, rows and files; above it there is no index (0.01)",
    )
    _add_common(parser)
    parser.set_defaults(run=_build)


def _add_merge(actions: Actions) -> None:
    text = "One index of several; an image that two of them name is in it once."
    parser = actions.add_parser("merge", help="make one index of several", description=text)
    parser.add_argument("inputs", nargs="+", metavar="INDEX")
    _add_common(parser)
    parser.set_defaults(run=_merge, root=None, labels="none", sizes=False, max_broken_share=0.01)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="INDEX", help="folder to make")
    parser.add_argument("--workers", type=_count, default=_cores(), help="processes (all cores)")


def _add_shuffle(actions: Actions) -> None:
    text = "The same entries in a random order, for one pass with sampler=sequential."
    parser = actions.add_parser("shuffle", help="the same in a random order", description=text)
    parser.add_argument("index", metavar="INDEX")
    parser.add_argument("--out", type=Path, required=True, metavar="INDEX", help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="another one, another order (0)")
    parser.set_defaults(run=_shuffle)


def _add_check(actions: Actions) -> None:
    text = "Is the index whole, and are its shards and folders as they were?"
    parser = actions.add_parser("check", help="compare with what was indexed", description=text)
    parser.add_argument("index", metavar="INDEX")
    parser.add_argument("--files", action="store_true", help="look at every image file too")
    parser.add_argument(
        "--deep", action="store_true", help="read and decode every image, as training would"
    )
    parser.add_argument(
        "--roots",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="where --deep may open files, beside the folder that the index lies in",
    )
    parser.add_argument("--anywhere", action="store_true", help="--deep may open files anywhere")
    parser.add_argument("--workers", type=_count, default=_cores(), help="threads of --deep")
    parser.set_defaults(run=_check)


def _add_stats(actions: Actions) -> None:
    parser = actions.add_parser("stats", help="count", description="What is in an index.")
    parser.add_argument("index", metavar="INDEX")
    parser.add_argument("--json", action="store_true", help="for programs: one object")
    parser.set_defaults(run=_stats)


def _build(given: argparse.Namespace) -> int:
    units = plan(
        given.inputs, root=given.root, folder_labels=given.labels == "folder", sizes=given.sizes
    )
    built = build(
        units,
        given.out,
        workers=given.workers,
        max_broken_share=given.max_broken_share,
        progress=_progress if sys.stderr.isatty() else lambda done, of: None,
    )
    _print_problems(built)
    header = built.header
    print(
        f"{given.out}: {header.entries} images, {header.labelled} with a label, in "
        f"{header.containers} folders and shards{' (there already)' if built.was_there else ''}"
    )
    return 0


def _merge(given: argparse.Namespace) -> int:
    for path in given.inputs:
        if not (Path(path).expanduser() / HEADER).is_file():
            raise ConfigError(f"{path} is no index; `unlabeled index build` takes other inputs")
    return _build(given)


def _shuffle(given: argparse.Namespace) -> int:
    header = shuffle(Index(given.index), given.out, seed=given.seed)
    print(f"{given.out}: {header.entries} images in the order of seed {given.seed}")
    return 0


def _check(given: argparse.Namespace) -> int:
    index = Index(given.index)
    found = 0
    for problem in _problems(index, given):
        found += 1
        if found <= SHOWN:
            print(f"{problem.kind}: {printable(problem.name)} {printable(problem.reason)}")
    if found:
        more = f", {found - SHOWN} of them not shown" if found > SHOWN else ""
        raise DataError(f"{given.index}: {found} problems{more}; build the index again")
    print(f"{given.index}: {len(index)} entries, nothing wrong")
    return 0


def _problems(index: Index, given: argparse.Namespace) -> Iterator[Problem]:
    """Those of the index and, where it can be believed and --deep was given, of its images."""
    damaged = False
    for problem in check(index, files=given.files):
        damaged = damaged or problem.kind in DAMAGE
        yield problem
    if not given.deep or damaged:
        return
    folders = [os.fsencode(os.path.expanduser(folder)) for folder in given.roots]
    roots = Roots([index.base, *folders], anywhere=given.anywhere)
    yield from check_images(index, Opener(index.base, roots), workers=given.workers)


def _stats(given: argparse.Namespace) -> int:
    found = asdict(statistics(Index(given.index)))
    if given.json:
        print(json.dumps(found))
    else:
        width = max(map(len, found))
        for name, value in found.items():
            print(f"{name.replace('_', ' '):<{width}}  {value}")
    return 0


def _print_problems(built: Built) -> None:
    """What was left out, on stderr: the first of each kind by name, then how many there are."""
    for kind, count in built.notes.counts.items():
        named = [problem for problem in built.notes.named if problem.kind == kind][:SHOWN]
        _warn([f"{kind}: {printable(p.name)}: {printable(p.reason)}" for p in named])
        if count > len(named):
            _warn([f"{kind}: {count - len(named)} more"])


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _progress(done: int, of: int) -> None:
    end = "\n" if done == of else "\r"
    print(f"{done}/{of} pieces of the inputs read", end=end, file=sys.stderr, flush=True)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1]")
    return float(text)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)
