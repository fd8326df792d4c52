"""Parts of a validation add up to the whole, to the bit, and only to the whole."""

import itertools
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

import vitedge as ve
from vitedge.core.errors import InputError
from vitedge.core.spec import Detection, Preprocess
from vitedge.data.imageset import Batch, Objects
from vitedge.data.placement import placement
from vitedge.measure.accuracy.share import Share, parse_share
from vitedge.measure.accuracy.tally import Tally

N = 61
SHAPES = {
    "classification": [(7,)],
    "segmentation": [(3, 8, 8)],
    "dense": [(1, 9, 9), (5, 6)],
    "features": [(20, 12), (12,)],
    "detection": [(10, 4), (10, 4)],
}


def seen(task):
    """Images, labels and outputs of both models, of so many images."""
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (N, 16, 16, 3), np.uint8)
    fp32 = [random.normal(size=(N, *shape)).astype(np.float32) for shape in SHAPES[task]]
    if task == "detection":
        fp32[1] = random.uniform(0.2, 0.6, fp32[1].shape).astype(np.float32)
    artifact = [x + random.normal(0, 0.1, x.shape).astype(np.float32) for x in fp32]
    labels = random.integers(0, 7, N)
    if task == "classification":  # ties, which a lot decides by the place of the image
        fp32[0][::3] = artifact[0][::3] = 1
    elif task == "segmentation":
        labels = random.integers(-1, 3, (N, 16, 16)).astype(np.int16)
    elif task == "detection":
        labels = np.array([objects(random, count) for count in random.integers(0, 5, N)])
    return images, labels, artifact, fp32


def objects(random, count):
    low = random.uniform(0, 20, (count, 2))
    boxes = np.hstack([low, low + random.uniform(3, 20, (count, 2))]).astype(np.float32)
    place = placement((40, 40), Preprocess(height=16, width=16))
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    classes = random.integers(0, 3, count)
    return Objects(boxes, classes, areas, np.zeros(count, bool), place)


def tallied(task, data, cuts):
    """One tally of the images between `cuts`, in batches that differ with them."""
    images, labels, artifact, fp32 = data
    names = [f"output{place}" for place in range(len(artifact))]
    rule = Detection(scores="softmax") if task == "detection" else None
    tally = Tally(task, names, detection=rule)
    for start, stop in itertools.pairwise(cuts):
        part = slice(start, stop)
        digests = tuple(f"{place % 50:016x}" for place in range(start, stop))
        batch = Batch(images[part], labels[part], digests)
        tally.add(batch, [x[part] for x in artifact], [x[part] for x in fp32])
    return tally, Tally(task, names, detection=rule)


@pytest.mark.parametrize("task", SHAPES)
def test_parts_are_the_whole_to_the_bit(task):
    if task == "detection":
        pytest.importorskip("faster_coco_eval")
    data = seen(task)
    whole, joined = tallied(task, data, [*range(0, N, 8), N])
    for cuts in ([0, 1, 2, 16], [16, 30, 31], [31, N]):
        joined.join(tallied(task, data, cuts)[0].arrays())
    joined.join({})  # a share of which no image was usable
    want, got = (tally.result("data", {"corrupt": 1}) for tally in (whole, joined))
    assert msgspec.json.encode(got[:2]) == msgspec.json.encode(want[:2])
    for name, array in vars(want.per_image).items():
        np.testing.assert_array_equal(vars(got.per_image)[name], array, err_msg=name)
        assert vars(got.per_image)[name].dtype == array.dtype, name


@pytest.mark.parametrize("images, batch, count", [(61, 8, 8), (1000, 1, 64), (5, 8, 1), (17, 4, 3)])
def test_shares_are_the_set_in_whole_batches(images, batch, count):
    spans = [Share(index, count).span(images, batch) for index in range(1, count + 1)]
    assert [place for span in spans for place in span] == list(range(images))
    assert all(span.start % batch == 0 and len(span) for span in spans)
    assert max(map(len, spans)) <= batch * (images // batch // count + 1)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/1000000", "-1/3"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="`shard="):
        parse_share(text)


def report_of(path):
    return Path(path, "report.json").read_bytes()


@pytest.fixture
def shards(bundles, tmp_path):
    """An artifact, validated whole, and three shards of the same."""
    art = tmp_path / "art"
    shutil.copytree(bundles["onnxruntime", "int8"].parent, art)
    bundle = art / bundles["onnxruntime", "int8"].name
    ve.validate(bundle)
    for index in (3, 1, 2):
        ve.validate(bundle, shard=f"{index}/3", output=tmp_path / f"{index}")
    return bundle, tmp_path


def test_merged_shards_write_the_report_of_one_process(shards):
    bundle, folder = shards
    report, evidence = report_of(bundle), (bundle / "evidence.npz").read_bytes()
    (bundle / "report.json").unlink()
    merged = ve.validate(bundle, merge=[folder / name for name in "123"])
    want = msgspec.json.decode(report)
    got = msgspec.json.decode(msgspec.json.encode(merged))
    assert (got["accuracy"], got["numerics"]) == (want["accuracy"], want["numerics"])
    assert (bundle / "evidence.npz").stat().st_size == len(evidence)
    with pytest.raises(InputError, match=r"1 of 3 shards are missing: 2/3"):
        ve.validate(bundle, merge=[folder / "1", folder / "3"])
    shutil.copytree(folder / "1", folder / "again")
    with pytest.raises(InputError, match="twice: 1/3"):
        ve.validate(bundle, merge=[folder / name for name in ("1", "2", "3", "again")])
    with pytest.raises(InputError, match="do not go together"):
        ve.validate(bundle, "digits", shard="1/3", merge=folder / "1")
    _refuses_what_differs(bundle, folder)


def _refuses_what_differs(bundle, folder):
    from vitedge.measure.accuracy import evidence, shards

    path = next((folder / "2").iterdir())
    header, arrays = evidence.load(path, shards.SCHEMA, "")
    shard = msgspec.convert(header, shards.Shard)
    host = msgspec.structs.replace(shard.host, isa=("avx2",), cpu="another")
    for changes, said in (
        ({"data_digest": "0"}, "other data"),
        ({"versions": {"vitedge": "0"}}, "another version"),
        ({"host": host}, "another kind of CPU"),
        ({"fp32_files": {}}, "another bundle"),
        ({"count": 4}, "another number of shards"),
    ):
        evidence.save(path, msgspec.structs.replace(shard, **changes), arrays)
        with pytest.raises(InputError, match=said):
            ve.validate(bundle, merge=[folder / name for name in "123"])
    for lacking in ("digests", "score/labels", "error/queries", "worst/seen"):
        some = {name: array for name, array in arrays.items() if name != lacking}
        evidence.save(path, shard, some)
        with pytest.raises(InputError, match="is not whole"):
            ve.validate(bundle, merge=[folder / name for name in "123"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot"):
        ve.validate(bundle, merge=[folder / name for name in "123"])


@pytest.mark.heavy
def test_workers_write_the_report_of_one_process(shards):
    bundle, _ = shards
    want = ve.validate(bundle)
    got = ve.validate(bundle, workers=1)
    assert (got.accuracy, got.numerics) == (want.accuracy, want.numerics)
