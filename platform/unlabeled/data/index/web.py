"""Files of web servers, as streams or by byte range; iopath's own handler copies without bounds."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from iopath.common.file_io import PathHandler

from unlabeled.data.index.fetching import Final, Stream

# A thread that was given up ends by this at the latest.
SOCKET_SECONDS = 600.0
_FOR_NOW = frozenset({408, 425, 429})
"""HTTP's client errors that may be over soon; all others stay."""
_BEHIND_THE_END = 416


class Web(PathHandler):
    """What opens http:// and https://."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Stream:
        return WebFile(path)


class WebFile:
    """A file on a server: one answer read from its beginning on, or after `seek` a range a read.

    A body that ends before its length is an OSError, an answer that will not change is Final.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._place: int | None = None
        self._answer: http.client.HTTPResponse | None = None

    def seek(self, place: int, /) -> int:
        """From here on every read asks for its bytes alone."""
        self._place = place
        return place

    def read(self, size: int, /) -> bytes:
        """The next bytes, fewer than `size` only where the file ends."""
        if self._place is None:
            if self._answer is None:
                self._answer = _asked(self._url, {})
            return _body(self._answer, size)
        data = self._range(self._place, size)
        self._place += len(data)
        return data

    def close(self) -> None:
        """Leave the connection."""
        if self._answer is not None:
            self._answer.close()

    def _range(self, start: int, size: int) -> bytes:
        wanted = {"Range": f"bytes={start}-{start + size - 1}"}
        try:
            answer = _asked(self._url, wanted)
        except _BehindTheEnd:
            return b""
        with contextlib.closing(answer):
            # A server that knows no ranges sends the whole file from its beginning.
            said = answer.getheader("Content-Range") or ""
            if answer.status != http.client.PARTIAL_CONTENT or not said.startswith(
                f"bytes {start}-"
            ):
                raise Final("the server gives no byte ranges; use dataset.remote=copy")
            return b"".join(_whole(answer, size))


class _BehindTheEnd(Final):
    """A range that begins where there are no more bytes."""


def _asked(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers=headers)
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=SOCKET_SECONDS)
        return answer
    except urllib.error.HTTPError as error:
        error.close()
        said = f"the server says {error.code} {error.reason}"
        if error.code == _BEHIND_THE_END:
            raise _BehindTheEnd(said) from error
        lasting = 400 <= error.code < 500 and error.code not in _FOR_NOW
        raise (Final if lasting else OSError)(said) from error
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"no proper answer: {error}") from error


def _whole(answer: http.client.HTTPResponse, size: int) -> Iterator[bytes]:
    while size > 0 and (data := _body(answer, size)):
        size -= len(data)
        yield data


def _body(answer: http.client.HTTPResponse, size: int) -> bytes:
    try:
        data = answer.read(size)
    except http.client.HTTPException as error:
        raise OSError(f"the connection broke: {error}") from error
    if not data and answer.length:
        raise OSError(f"the connection ended {answer.length} bytes too soon")
    return data
