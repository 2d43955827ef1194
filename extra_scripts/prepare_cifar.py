"""Check, or fetch, CIFAR-10 and CIFAR-100 as dataset=torchvision reads them.

    python extra_scripts/prepare_cifar.py /data/cifar
    python extra_scripts/prepare_cifar.py /data/cifar --sets CIFAR10 --download

Nothing is fetched without --download, and then only a set that is missing:
cifar-10-python.tar.gz and cifar-100-python.tar.gz (0.2 GB each) from
https://www.cs.toronto.edu/~kriz. An archive that lies in the folder already is used, and none is
removed. Every file must have the checksum that torchvision knows. Exit status: 0 complete, 3
something is missing or damaged, 5 a server or the disk refuses.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from unlabeled.cli.preparing import Part, preparation, prepare
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.published import Published, as_they_are
from unlabeled.data.sources.torchvision import Torchvision

LAYOUT = """\
  cifar-10-batches-py/data_batch_1 ... data_batch_5  test_batch  batches.meta
  cifar-100-python/train  test  meta"""
SETS = ("CIFAR10", "CIFAR100")


def known_of(name: str) -> Any:
    """The class of torchvision, which knows address and checksums."""
    import torchvision.datasets  # takes seconds, and --help needs none of it

    return getattr(torchvision.datasets, name)


def check(expected: ExpectedFiles, name: str) -> None:
    """The files of a set, each with its checksum."""
    known = known_of(name)
    files = [*known.train_list, *known.test_list, [known.meta["filename"], known.meta["md5"]]]
    expected.checksums(name, {f"{known.base_folder}/{file}": md5 for file, md5 in files})


def published(name: str) -> tuple[Published, ...]:
    """The archive of a set."""
    known = known_of(name)
    return (Published(known.url, known.filename, as_they_are, f"md5:{known.tgz_md5}"),)


def main() -> None:
    """Check, fetch if asked, read it as the data set does, say how to use it."""
    parser = preparation(__doc__, "folder of cifar-10-batches-py/ ...", downloads=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="(both)")
    given = parser.parse_args()
    parts = [Part(partial(check, name=name), published(name)) for name in given.sets]
    prepare(given, LAYOUT, parts)
    for name in given.sets:
        config = Torchvision.Config(dataset=name, root=str(given.root))
        train, test = Torchvision(config, split="train"), Torchvision(config, split="test")
        print(f"complete: {len(train):,} and {len(test):,} images of {train.num_classes} classes")
        print(f"dataset=torchvision dataset.dataset={name} dataset.root={given.root}")


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command goes on")
