"""`python -m benchmarks.imagenet --dry-run`, cut to what CI has time for."""

from __future__ import annotations

import pytest

from benchmarks import imagenet, imagenet_standins
from tests.support.machine import ONNXRUNTIME
from vitedge import InputError

SHORT = ("--dry-run", "--targets", ONNXRUNTIME, "--models", "DINOv2-S", "CLIP-B/16")


def rows(printed):
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines()]
    return [line for line in lines if len(line) == 11 and line[0] in ("DINOv2-S", "CLIP-B/16")]


@pytest.mark.usefixtures("peers")
def test_rows_are_filled_from_local_files_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(imagenet.peers, "declare_torchvision_ops", lambda: None)  # `peers` has
    assert imagenet.main([*SHORT, "--output", str(tmp_path)]) == 0
    first = capsys.readouterr()
    assert len(first.err.split(" s\n")) > 2
    table = rows(first.out)
    assert [(row[0], row[2]) for row in table] == [
        (model, precision) for model in ("DINOv2-S", "CLIP-B/16") for precision in ("fp32", "int8")
    ]
    for row in table:
        assert row[9] == "40" and 0 <= float(row[3]) <= 100
        assert "to" in row[4], "drops have their paired intervals"
        assert float(row[7]) > 0
        assert (float(row[6]) > 10) if row[2] == "int8" else row[6] == "–"

    assert imagenet.main([*SHORT, "--output", str(tmp_path)]) == 0
    again = capsys.readouterr()
    assert rows(again.out) == table and ": " not in again.err

    (tmp_path / "standins" / "weights" / "clip-vit-base-patch16" / "config.json").write_text("{}")
    assert imagenet.main([*SHORT, "--output", str(tmp_path)]) == 1
    assert "failed: CLIP-B/16" in (said := capsys.readouterr().out)
    assert [row[0] for row in rows(said)] == ["DINOv2-S"] * 2, "one that fails costs no other"


@pytest.mark.usefixtures("peers")
def test_shards_are_merged_to_the_same_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(imagenet.peers, "declare_torchvision_ops", lambda: None)
    words = [*SHORT[:-1], "--output", str(tmp_path)]
    assert imagenet.main([*words, "--shard", "1/1"]) == 0
    assert not rows(capsys.readouterr().out) and list(tmp_path.glob("shards/*/*/shard-*.npz"))
    assert imagenet.main([*words, "--merge"]) == 0
    table = rows(capsys.readouterr().out)
    assert [row[2] for row in table] == ["fp32", "int8"]
    assert all(row[9] == "40" and "to" in row[4] for row in table)


def test_weights_are_read_by_the_layout_of_their_folder(tmp_path):
    by_name = {model.name: model for model in imagenet.MODELS}
    swin, deit = by_name["Swin-v2-S"], by_name["DeiT-S"]
    folder = tmp_path / "swin"
    folder.mkdir()
    for model in (swin, deit):
        with pytest.raises(InputError, match="holds no weights"):
            imagenet.source(model, folder)
    (folder / "swin_v2_s-637d8ceb.pth").touch()
    assert imagenet.source(swin, folder)["model"] == "torchvision:swin_v2_s"
    (folder / "config.json").write_text('{"model_type": "swinv2"}')
    assert imagenet.source(swin, folder) == {"model": f"hf:{folder}"}
    (folder / "config.json").write_text('{"architecture": "swinv2_small_window8_256"}')
    assert imagenet.source(swin, folder) == {"model": f"timm:local-dir:{folder}"}


def test_every_model_has_a_stand_in():
    made = {*imagenet_standins.TIMM, *imagenet_standins.OTHERS}
    assert {model.folder for model in imagenet.MODELS} == made


@pytest.mark.heavy
@pytest.mark.usefixtures("peers")
def test_every_row_of_a_dry_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(imagenet.peers, "declare_torchvision_ops", lambda: None)
    assert imagenet.main(["--dry-run", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for model in imagenet.MODELS:
        assert printed.count(f"| {model.name} |") >= 2
