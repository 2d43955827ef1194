"""What a run was trained on, in a line: checkpoints keep it, for whoever goes on from them."""

from __future__ import annotations

from dataclasses import dataclass

from unlabeled.data.sources.base import Source
from unlabeled.distributed import comm


@dataclass(frozen=True)
class DataIdentity:
    """With the config, all that the order of the images follows from."""

    extent: str
    """How much there is, in words."""
    fingerprint: str
    """`Source.fingerprint`."""

    def __str__(self) -> str:
        return f"{self.extent} (fingerprint {self.fingerprint})"


def identity_of(source: Source) -> DataIdentity:
    """That of the images as rank 0 finds them; all ranks must call this together."""
    own = DataIdentity(source.extent(), source.fingerprint()) if comm.rank() == 0 else None
    found = comm.all_gather_objects(own)[0]
    assert found is not None
    return found
