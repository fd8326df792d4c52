"""Figures are declared once: a new one is on every surface, and numbers look alike on all."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from tests.support.page_reports import measured, with_part
from tests.support.verdicts import check, judged, verdict
from vitedge.core.report import Report
from vitedge.gate.verdict import worst
from vitedge.show import report_tables
from vitedge.show.checks import NamedCheck
from vitedge.show.ci import markdown
from vitedge.show.csv import write
from vitedge.show.page import bench as page
from vitedge.show.table import Column
from vitedge.show.terminal import bench, gate, tables
from vitedge.show.text import number


def printed(table, width=200):
    shown = io.StringIO()
    Console(file=shown, width=width, markup=False, highlight=False).print(table)
    return shown.getvalue()


def test_a_figure_that_is_declared_is_on_every_surface(monkeypatch, tmp_path):
    votes = Column[Report](
        *("votes_per_s", "votes", "1/s", lambda r: r.accuracy.n / 10, ".4g"),
        ci=lambda r: (499.0, 501.0),
    )
    monkeypatch.setattr(report_tables, "SIZES", (votes, *report_tables.SIZES))
    report = measured("vit-int8", "int8", 1.2, 0.83)
    text = printed(tables.reports([report], "title"))
    assert "votes" in text and "1/s, 95% CI" in text and "499…501" in text
    html = page.render([report], "vitedge bench")
    assert "votes 1/s, 95% CI</th>" in html and ">500 (499 … 501)</td>" in html
    head, _, row = markdown.table(report_tables.proof([report], "title"))
    assert "|votes 1/s, 95% CI|" in head and "|500 (499 to 501)|" in row
    write([report], tmp_path / "numbers.csv")
    rows = list(csv.DictReader((tmp_path / "numbers.csv").open()))
    assert {row["votes_per_s"] for row in rows} == {"500.0"}
    assert {row["votes_per_s_low"] for row in rows} == {"499.0"}


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (150.0, ".2g", "150"),
        (-1234.5, ".3g", "-1,234"),
        (999.6, ".3g", "1,000"),
        (0.99951, ".3g", "1"),
        (1.2345, ".3g", "1.23"),
        (0.00001234, ".2g", "0.000012"),
        (1.2e-7, ".2g", "1.2e-07"),
        (12345678, ".4g", "12,345,678"),
        (0.0, ".3g", "0"),
        (12.0, "+.2g", "+12"),
        (-0.04, "+.2f", "-0.04"),
        (float("inf"), ".4g", "∞"),
        (None, ".2f", "–"),
    ],
)
def test_numbers_have_no_exponent(value, form, text):
    assert number(value, form) == text


def test_a_percentage_over_a_hundred_is_written_out():
    report = with_part(
        with_part(measured("a", "int8", 1.2, 0.83), "conditions", noise_percent=150.0),
        *("drift",),
        slope_percent_per_minute=1500.0,
    )
    html = page.render([report], "vitedge bench")
    assert "own noise: 150%" in html and "150% of a fixed job" in html
    assert "+1500.00" in html and "e+0" not in html
    facts = " ".join(bench.facts([report]))
    assert "took 150% more" in facts and "+1,500% a minute" in facts
    assert NamedCheck("a", check("p90_ms")).quantity(12345.6) == "12,346 ms"


def test_people_are_told_what_to_doubt():
    report = measured("vit-int8", "int8", 1.2, 0.83)
    for section, changes in {
        "drift": {
            **{"slower": True, "slope_percent_per_minute": 12.0, "slope_ci": (9.0, 15.0)},
            **{"throttled": True, "temperature_c": (50.0, 88.0)},
        },
        "energy": {"note": "not available: no meter"},
        "conditions": {"noise_percent": 8.0, "frequency_mhz": (1200.0, 2400.0)},
    }.items():
        report = with_part(report, section, **changes)
    slower, governor = bench.warnings([report, report])  # each is said once
    assert "slower" in slower and "powersave" in governor
    drift, energy, noise = bench.facts([report])
    assert "+12% a minute (+9 to +15)" in drift
    assert "throttled by heat" in drift and "50 to 88 °C" in drift
    assert energy == "energy: not available: no meter"
    assert "8%" in noise and "1200 to 2400 MHz" in noise and "host f1" in noise


def test_an_old_csv_is_replaced_and_a_link_stays_one(tmp_path):
    file, link = tmp_path / "numbers.csv", tmp_path / "latest.csv"
    file.write_text("old")
    link.symlink_to(file)
    write([], link)
    assert link.is_symlink()
    assert list(csv.DictReader(file.open())) == []


def test_names_from_elsewhere_are_no_markup_and_no_escape_sequences():
    hostile = "[red]x[/red]\x1b[2J"
    gated = printed(gate.verdict(verdict(judged(check(), artifact=hostile))))
    benched = printed(tables.reports([measured(hostile, "int8", 1.2, 0.83)], "title"))
    assert "[red]x[/red][2J" in gated and "[red]x[/red]�[2J" in benched
    assert "\x1b" not in gated + benched


def test_the_worst_answer_decides():
    assert worst(()) == worst(("passed", "passed")) == "passed"
    assert worst(("passed", "inconclusive")) == "inconclusive"
    assert worst(("inconclusive", "failed", "passed")) == "failed"
