"""Fetching a published file: as a whole or not at all, and only if it is what was published."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import unlabeled
from unlabeled.data.expected_files import Tell, digest, untold
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem

SCHEMES = ("http", "https", "ftp")
_SILENCE_SECONDS = 60
_PIECE = 1 << 20


def fetch(url: str, target: Path, *, checksum: str | None = None, tell: Tell = untold) -> None:
    """The file at `url` as `target`; one that is there already is kept if it is the published one.

    checksum: `sha256:<hex>` or `md5:<hex>`; None where nobody publishes one.
    DataError: the server has no such file, it ended too soon, or it is not the one that the
    checksum means. EnvironmentProblem: the server is not reached, or the disk refuses.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise ConfigError(f"{url} is no address to fetch from; give one of {', '.join(SCHEMES)}")
    if target.exists():
        _check(target, checksum, "remove it, and give the same command again")
        return
    beside = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(url, beside, tell)
        _check(beside, checksum, f"what {url} holds now is something else")
        beside.replace(target)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the server says {error.code} {error.reason}") from error
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as e:
        raise EnvironmentProblem(f"cannot reach {url}: {getattr(e, 'reason', None) or e}") from e
    except OSError as error:
        raise EnvironmentProblem(f"cannot fetch {url} to {target}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _write(url: str, target: Path, tell: Tell) -> None:
    agent = {"User-Agent": f"unlabeled/{unlabeled.__version__}"}
    request = urllib.request.Request(url, headers=agent)
    with urllib.request.urlopen(request, timeout=_SILENCE_SECONDS) as answer:
        length = answer.headers.get("Content-Length")
        total = int(length) if length else None
        done = 0
        with target.open("wb") as file:
            while piece := answer.read(_PIECE):
                file.write(piece)
                done += len(piece)
                tell(f"{url}: MB", done // 10**6, total // 10**6 if total else None)
    if total is not None and done < total:
        raise DataError(f"{url} ended after {done:,} of {total:,} bytes; try again")


def _check(path: Path, checksum: str | None, way_out: str) -> None:
    if checksum is None:
        return
    kind, _, wanted = checksum.partition(":")
    assert kind in hashlib.algorithms_guaranteed
    found = digest(path, kind)
    if found != wanted:
        raise DataError(
            f"{path} is not the published file or only a part of it ({kind} {found}, published is "
            f"{wanted}): {way_out}"
        )
