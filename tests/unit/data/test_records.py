"""Images in tar files and in Parquet are those of the folder that they were packed from."""

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.image_list import write_list
from vitedge.data.open import has_labels, open_images

SPEC = Preprocess(height=8, width=8)
LABELS = ("cat", "dog", "emu")
COUNT = 12


def png(number):
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def packed(folder, files=2, **classes):
    """Tar files of COUNT images in all; `classes`: what lies beside an image, by its number."""
    for file in range(files):
        with tarfile.open(folder / f"x-{file:03}.tar", "w") as archive:
            for number in range(file, COUNT, files):
                add(archive, f"some/{number:04}.png", png(number))
                add(
                    archive,
                    f"some/{number:04}.cls",
                    classes.get(f"n{number}", b"%d\n" % (number % 3)),
                )
                add(archive, f"some/{number:04}.json", b"{}")
    return folder


def in_folder(folder):
    for number in range(COUNT):
        place = folder / LABELS[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04}.png").write_bytes(png(number))
    return folder


def seen(path, role="evaluation", labels=LABELS):
    images = open_images(str(path), role, SPEC, labels)
    batches = list(images.batches(5))
    digests = [digest for batch in batches for digest in batch.digests]
    return dict(zip(digests, np.concatenate([b.labels for b in batches]).tolist(), strict=True))


def test_tars_are_the_folder(tmp_path):
    want = seen(in_folder(tmp_path / "folder"))
    (tmp_path / "tars").mkdir()
    tars = packed(tmp_path / "tars")
    assert seen(tars) == seen(tars / "x-{000..001}.tar") == want
    assert len(seen(tars / "x-001.tar")) == COUNT // 2
    assert has_labels(str(tars), "classification")
    images = open_images(str(tars), "calibration", SPEC, LABELS)
    assert sorted(images.strata) == sorted(want.values())
    assert len(list(images.sample(3, seed=0))) == 3


def test_a_list_is_the_folder_until_an_image_changes(tmp_path):
    want, file = seen(in_folder(tmp_path / "folder")), tmp_path / "mine.images"
    write_list(str(tmp_path / "folder"), file)
    assert seen(file) == want
    digest = open_images(str(file), "evaluation", SPEC, LABELS).digest()
    (tmp_path / "folder/cat/0003.png").write_bytes(png(99))
    assert open_images(str(file), "evaluation", SPEC, LABELS).digest() == digest
    with pytest.raises(InputError, match=r"0003.png is not what .* lists"):
        seen(file)
    with pytest.raises(InputError, match="does not end in"):
        write_list(str(tmp_path / "folder"), tmp_path / "a.txt")


@pytest.mark.parametrize(
    "line",
    [
        b"x\n",
        b"0 0 0 a\n",
        b"0" * 64 + b" 1 7 a\n",
        b"0" * 64 + b" 1 " + b"9" * 40 + b" a\n",
        b"a" * 20_000,
        b"",
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, line):
    file = tmp_path / "a.images"
    write_list(str(in_folder(tmp_path / "folder")), file)
    head, *lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(head + line + b"".join(lines[1:]))
    with pytest.raises(InputError, match=r"a\.images"):
        seen(file)
    file.write_bytes(b"{}\n")
    with pytest.raises(InputError, match="a\\.images"):
        seen(file)


def test_a_set_that_changes_has_another_digest(tmp_path):
    def digest():
        return open_images(str(tmp_path), "evaluation", SPEC, LABELS).digest()

    before = packed(tmp_path) and digest()
    assert digest() == before
    packed(tmp_path, n3=b"1")
    assert digest() != before


@pytest.mark.parametrize("content", [b"x", b"-1", b"1" * 40, b"", b"7"])
def test_a_class_that_is_none_is_refused(tmp_path, content):
    with pytest.raises(InputError, match="class"):
        seen(packed(tmp_path, n3=content))


@pytest.mark.parametrize("damage", ["cut", "noise", "gzip", "empty"])
def test_what_is_no_tar_is_refused(tmp_path, damage):
    file = packed(tmp_path, files=1) / "x-000.tar"
    content = file.read_bytes()
    files = {"cut": content[:700], "noise": b"\1" * 4096, "empty": b""}
    if damage == "gzip":
        with tarfile.open(file, "w:gz") as archive:
            add(archive, "a.png", png(0))
    else:
        file.write_bytes(files[damage])
    with pytest.raises(InputError):
        seen(file)


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(InputError, match="too long"):
        seen(tmp_path / "a.tar")


def header(name, kind=tarfile.REGTYPE, size=b"0" * 11, extended=b"\0"):
    """512 bytes that say so much, their sum right."""
    member = tarfile.TarInfo(name)
    member.type = kind
    content = bytearray(member.tobuf(tarfile.USTAR_FORMAT)[:512])
    content[124 : 124 + len(size)], content[482:483] = size, extended
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


PAX = header("p", tarfile.XHDTYPE, b"%011o" % 11) + b"11 foo=bar\n".ljust(512, b"\0")
BELOW_ZERO = b"\xff" * 10 + b"\xfc\0"


@pytest.mark.parametrize(
    "content",
    [
        PAX * 3000,
        header("a.png", size=BELOW_ZERO),
        header("a", b"Z", BELOW_ZERO),
        header("a", tarfile.GNUTYPE_SPARSE, extended=b"\1"),
        header("a", b"Z", b"\x80" + b"\xff" * 11),
    ],
    ids=["chain", "negative", "negative and unknown", "sparse", "huge"],
)
def test_headers_that_lie_are_refused(tmp_path, content):
    file = packed(tmp_path, files=1) / "x-000.tar"
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot read"):
        seen(file)


def test_a_large_class_takes_no_memory(tmp_path):
    packed(tmp_path, n3=b"999999999")
    tracemalloc.start()
    images = open_images(str(tmp_path), "calibration", SPEC, ())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(images.strata) == 999999999
    assert peak_bytes < 2**24


def parquet(path, *, names=LABELS, group=5, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    rows = [{"bytes": png(number), "path": None} for number in range(COUNT)]
    noted = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"image": rows, "label": [number % 3 for number in range(COUNT)], **columns})
    table = table.replace_schema_metadata({"huggingface": json.dumps(noted)} if names else {})
    writer.write_table(table, path, row_group_size=group)
    return path


def test_parquet_is_the_folder(tmp_path):
    want = seen(in_folder(tmp_path / "folder"))
    assert seen(parquet(tmp_path / "a.parquet")) == want
    assert seen(parquet(tmp_path / "a.parquet", names=None)) == want
    swapped = seen(parquet(tmp_path / "a.parquet"), labels=LABELS[::-1])
    assert swapped == {digest: 2 - label for digest, label in want.items()}
    (tmp_path / "several").mkdir()
    parquet(tmp_path / "several/a.parquet")
    assert seen(tmp_path / "several") == want


def test_parquet_that_is_none_is_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", names=("a", "b", "c"))
    with pytest.raises(InputError, match="do not name a class"):
        seen(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot read"):
        seen(path)
    with pytest.raises(InputError, match="2 columns of images"):
        seen(parquet(path, other=[b"x"] * COUNT))
    with pytest.raises(InputError, match="cannot read"):
        seen(parquet(path, names=None, label=np.full(COUNT, 2**64 - 1, np.uint64)))


def test_parquet_of_too_many_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vitedge.data.parquet.ROWS", COUNT - 1)
    with pytest.raises(InputError, match="12 rows"):
        seen(parquet(tmp_path / "a.parquet"))
