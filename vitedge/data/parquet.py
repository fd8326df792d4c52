"""Parquet as `datasets` of Hugging Face writes it: a column of images, {bytes, path}, and a label.

A row group is read when an image of it is wanted, and the last two are kept.
"""

from __future__ import annotations

import hashlib
import os
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vitedge.core.bounded import open_regular
from vitedge.core.errors import InputError, error_line, missing
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip
from vitedge.data.imageset import UNLABELLED, ImageSet
from vitedge.data.records import IMAGE_BYTES, Records, open_records
from vitedge.data.role import Role

T = TypeVar("T")
SUFFIX = ".parquet"
GROUP_BYTES = 2**31
"""Of a row group, at most, by what the file says of it."""
ROWS = 10**8
"""Of a file, at most."""
_KEPT = 2
_FIX = "write it as datasets.Dataset.to_parquet does: a column of images, {bytes, path}, and label"


def parquet_files(path: str) -> list[str]:
    """Those that `path` means: a file, or a folder of them."""
    if os.path.isdir(path):
        return sorted(str(file) for file in Path(path).glob(f"*{SUFFIX}"))
    return [path] if path.lower().endswith(SUFFIX) else []


def open_parquet(
    path: str, files: Sequence[str], role: Role, preprocess: Preprocess, labels: Sequence[str]
) -> ImageSet:
    """The images of Parquet `files`. Raises InputError for what is none, or does not fit."""
    tables = [_Table(file) for file in files]
    if any(table.columns != tables[0].columns for table in tables):
        raise InputError(f"the files of '{path}' have other columns than each other", fix=_FIX)
    starts = [0]
    for table in tables:
        starts.append(starts[-1] + table.rows)
    classes = array("q")
    for table in tables:
        classes.extend(table.classes())

    def read(index: int) -> bytes:
        number = bisect_right(starts, index) - 1
        return tables[number].image(index - starts[number])

    def digest() -> str:
        lines = "".join(f"{os.path.basename(t.path)} {t.rows} {t.size_bytes}\n" for t in tables)
        return hashlib.sha256(lines.encode()).hexdigest()

    names = tables[0].names
    records = Records(path, classes, names, read, digest, "a label: a column of class indices")
    return open_records(records, role, preprocess, labels)


class _Table:
    """One file, open."""

    def __init__(self, path: str) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise missing("pyarrow", "parquet") from error
        self.path = path
        stream = open_regular(Path(path))
        try:
            self._file = parquet.ParquetFile(stream)
        except Exception as error:  # pyarrow's are of many kinds
            raise InputError(f"cannot read {path}: {error_line(error)}", fix=_FIX) from error
        metadata = self._file.metadata
        self.size_bytes = os.path.getsize(path)
        self.rows: int = metadata.num_rows
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        if any(group.total_byte_size > GROUP_BYTES for group in groups):
            raise InputError(
                f"a row group of {path} has more than {GROUP_BYTES // 2**20:,} MiB",
                fix="write it with row groups of 100 images: to_parquet(path, batch_size=100)",
            )
        counts = [group.num_rows for group in groups]
        if min(counts, default=0) < 0 or sum(counts) != self.rows or self.rows > ROWS:
            raise InputError(
                f"{path} says that it has {self.rows:,} rows, in groups of {sum(counts):,}",
                fix=f"write it again, with {ROWS:,} rows or fewer",
            )
        self._ends = array("Q", [0])
        for count in counts:
            self._ends.append(self._ends[-1] + count)
        self.columns = self._image, self._label = _columns(path, self._file.schema_arrow)
        self.names = _names(self._file.schema_arrow, self._label)
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Any] = OrderedDict()

    def classes(self) -> array[int]:
        """(rows,) -1 where there is none."""
        if not self._label:
            return array("q", [UNLABELLED]) * self.rows

        def read() -> array[int]:
            column = self._file.read(columns=[self._label]).column(0).to_pylist()
            return array("q", (UNLABELLED if value is None else value for value in column))

        return self._column(read)

    def image(self, row: int) -> bytes:
        """The encoded bytes. Raises Skip."""
        group = bisect_right(self._ends, row) - 1
        with self._lock:
            if group not in self._groups:
                self._groups[group] = self._column(
                    lambda: self._file.read_row_group(group, columns=[self._image]).column(0)
                )
                while len(self._groups) > _KEPT:
                    self._groups.popitem(last=False)
            value = self._groups[group][row - self._ends[group]].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise Skip("not in the file: it has a path alone")
        if len(content) > IMAGE_BYTES:
            raise Skip("too large")
        return content

    def _column(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except Exception as error:  # pyarrow's are of many kinds, and MemoryError
            raise InputError(f"cannot read {self.path}: {error_line(error)}", fix=_FIX) from error


def _columns(path: str, schema: Any) -> tuple[str, str]:
    """The names of the images' column and of the labels', empty without one."""
    import pyarrow.types as types

    def holds(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" and holds(field.type) for field in kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    images = [field.name for field in schema if holds(field.type)]
    if len(images) != 1:
        raise InputError(f"{path} has {len(images)} columns of images, not one", fix=_FIX)
    numbers = [field.name for field in schema if types.is_integer(field.type)]
    label = "label" if "label" in numbers else numbers[0] if len(numbers) == 1 else ""
    if numbers and not label:
        raise InputError(
            f"{path} has columns {', '.join(numbers[:5])}, and none is called label", fix=_FIX
        )
    return images[0], label


def _names(schema: Any, label: str) -> tuple[str, ...]:
    """The classes, as `datasets` notes them; empty where it did not."""
    try:
        noted = msgspec.json.decode((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = noted["info"]["features"][label]["names"]
        return tuple(map(str, names))
    except (msgspec.MsgspecError, KeyError, TypeError):
        return ()
