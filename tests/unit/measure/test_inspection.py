"""Hostile names and huge graphs: what is inspected is not ours to trust."""

import re
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from tests.support.page_artifacts import layer, manifest_of
from tests.support.page_reports import HOSTILE
from vitedge.core.errors import InputError
from vitedge.core.manifest import Figures, Finding
from vitedge.measure.inspection import Inspection, Row, Summary, inspect
from vitedge.models.sources import ModelRequest
from vitedge.show.page import inspection as page
from vitedge.show.page import shell
from vitedge.show.table import TERMINAL
from vitedge.show.terminal import inspection as table


def row(depth, own, so_far, node=""):
    return Row(
        depth=depth,
        node=node or f"layer{depth}",
        op="MatMul",
        role="linear",
        quantized=own is not None,
        why="constant weights",
        sqnr_db=own,
        accumulated_sqnr_db=so_far,
    )


def inspected(*rows, **changes):
    plain = {
        "name": "model",
        "kind": "artifact",
        "about": {"model": "digits"},
        "target": "onnxruntime-cpu",
        "notes": (),
        "summary": Summary(
            operators=len(rows),
            quantized=sum(r.quantized for r in rows),
            quantized_macs_share=0.9,
            worst=rows[0].node,
            worst_sqnr_db=rows[0].sqnr_db,
            accumulated_sqnr_db=rows[-1].accumulated_sqnr_db,
        ),
        "layers": rows,
        "quantizers": (),
        "lint": (),
    }
    return Inspection(**{**plain, **changes})


class Page(HTMLParser):
    """A page as a browser takes it: its tags, and the text of each."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


# -- the artifact -------------------------------------------------------------------------------


@pytest.fixture
def bundle(small_bundle, tmp_path):
    """An INT8 bundle with one layer and its `figures`."""

    def make(figures):
        record = replace(
            manifest_of("small").quantization, layers=(replace(layer(1, "head"), figures=figures),)
        )
        return small_bundle(tmp_path / "small", precision="int8", quantization=record)

    return make


def test_an_artifact_with_figures_shows_them(bundle):
    figures = Figures(
        activation_scales=(0.25,),
        weight_scales=(0.01, 0.02),
        clipped_share=0.125,
        sqnr_db=33.0,
        accumulated_sqnr_db=30.0,
        macs=10,
    )
    inspection = inspect.inspect(ModelRequest(str(bundle(figures))), "")
    assert inspection.notes == () and inspection.lint == ()
    cells = {c.key: c.cell(inspection.layers[0], TERMINAL) for c in table.LAYERS}
    assert cells["sqnr_db"] == "33.0" and cells["accumulated_sqnr_db"] == "30.0"
    assert cells["clipped_share"] == "12" and cells["activations"] == "0.25"
    assert cells["weight_scales"] == "0.01…0.02"
    assert inspection.summary.quantized_macs_share == 1.0


def test_the_worst_come_first_and_float_layers_last():
    inspection = inspected(row(1, None, None), row(2, 40.0, 39.0), row(3, 20.0, 19.0))
    assert [r.depth for r in inspection.worst_first()] == [3, 2, 1]
    assert [r.depth for r in inspection.layers] == [1, 2, 3]


# -- the page -----------------------------------------------------------------------------------


def test_a_hostile_name_is_shown_and_does_nothing(capsys):
    finding = Finding(
        rule="asymmetric", node=HOSTILE, consequence="slower", what=HOSTILE, fix="none"
    )
    html = page.render(
        inspected(row(1, 30.0, 30.0, HOSTILE), name=HOSTILE, notes=(HOSTILE,), lint=(finding,))
    )
    parsed = Page(html)
    assert "script" not in parsed.tags
    assert parsed.tags.count("title") == 2  # the page's, and one layer's
    table.show(inspected(row(1, 30.0, 30.0, HOSTILE)))
    assert "\x1b" not in capsys.readouterr().out
    assert "alert('1')" in "".join(parsed.texts)


def test_the_picture_has_a_mark_for_every_value_at_its_height():
    html = page.render(
        inspected(row(1, None, None), row(2, 20.0, 20.0), row(3, 40.0, 18.0), row(4, None, 19.0))
    )
    chart = html[html.index('role="img"') : html.rindex("</svg>")]
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)" r=', chart)]
    assert len(heights) == 3  # layer 1 is exact
    assert heights[0] < heights[2] < heights[1]  # higher is better: smaller y
    assert len(re.findall(r'class="own-dot"', chart)) == 2
    assert chart.count("<g><title>") == 4 and "exact so far" in chart
    assert "SQNR, dB" in chart and "layer, in graph order" in chart
    legend = html[html.index('class="legend"') : html.index('role="img"')]
    assert "own:" in legend and "so far:" in legend


def test_a_huge_graph_with_long_names_stays_under_two_megabytes():
    rows = [row(i, 30.0, 20.0, "n" * 4000) for i in range(1, 1501)]
    html = page.render(inspected(*rows))
    assert len(html.encode()) < 2_000_000
    assert "500 more are in JSON" in html


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    shell.write(page.render(inspected(row(1, 30.0, 29.0))), path)
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("name", ["missing/page.html", "model.onnx", "folder.html"])
def test_a_page_goes_only_where_a_page_can_go(tmp_path, name):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match=re.escape(name)):
        shell.check_writable(tmp_path / name)
