"""One of the equal parts that a set of images is cut into: `3/16`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vitedge.core.errors import InputError

MOST = 100_000
"""Parts."""


@dataclass(frozen=True, order=True)
class Share:
    """Part `index` of `count`, the first being 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def span(self, images: int, batch: int) -> range:
        """The places of its images, of a set of so many: whole batches, as even as these allow.

        Raises InputError where there are more parts than batches.
        """
        batches = -(-images // batch)
        if self.count > batches:
            raise InputError(
                f"`shard='{self}'`: {images:,} images are {batches:,} batches of {batch}, which "
                f"cannot be cut into {self.count:,}",
                fix=f"cut them into {batches:,} or fewer",
            )
        first, last = (batches * part // self.count for part in (self.index - 1, self.index))
        return range(first * batch, min(images, last * batch))


WHOLE = Share(1, 1)


def parse_share(text: str) -> Share:
    """The share `index/count`. Raises InputError where it is none, or out of range."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match:
        raise InputError(f"`shard={text!r}` is no share", fix="pass `shard='3/16'`, or the like")
    share = Share(int(match[1]), int(match[2]))
    if not 1 <= share.index <= share.count <= MOST:
        raise InputError(
            f"`shard={text!r}` is out of range",
            fix=f"number shards from 1 to their count, {MOST:,} at most",
        )
    return share
