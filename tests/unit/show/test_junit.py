"""JUnit XML, read back as CI systems do."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.support.verdicts import HOSTILE, check, judged, verdict
from vitedge.gate.verdict import Verdict
from vitedge.show.ci import junit

# of Jenkins' junit-10.xsd: what an element may hold, and what it may and must say
SHAPE: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id"},
        {"name", "tests", "failures", "errors"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, {"name", "value"}),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"},
        {"name", "time", "classname", "group"},
        {"name"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}


def parse(verdict: Verdict) -> ElementTree.Element:
    root = ElementTree.fromstring(junit.render(verdict).encode())
    for element in root.iter():
        children, may, must = SHAPE[element.tag]
        assert {child.tag for child in element} <= children
        assert must <= set(element.keys()) <= may
    return root


def test_a_passed_check_passes_a_failed_one_fails_and_an_inconclusive_one_is_an_error(
    mixed: Verdict,
) -> None:
    root = parse(mixed)
    (suite,) = root
    assert suite.get("name") == "vit-int8"
    for element in (root, suite):
        counts = {key: element.get(key) for key in ("tests", "failures", "errors")}
        assert counts == {"tests": "6", "failures": "2", "errors": "1"}
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert [*cases] == [
        *("max drop_pp", "min speedup", "max p90_ms", "max size_bytes"),
        *("min sqnr_db", "min agreement"),
    ]
    assert {child.tag for child in cases["max drop_pp"]} == {"system-out"}
    error = cases["min speedup"].find("error")
    assert error is not None and error.get("type") == "inconclusive"
    assert error.get("message") == "too close to 1.1: 430 rounds would tell"
    assert "min speedup.interval: 0.95 to 1.24" in (error.text or "")
    failure = cases["min sqnr_db"].find("failure")
    assert failure is not None and failure.get("message") == "no SQNR in the report"


def test_value_limit_and_interval_are_properties(mixed: Verdict) -> None:
    said = {p.get("name"): p.get("value") for p in parse(mixed).iter("property")}
    assert said["max drop_pp.value"] == "0.14"
    assert said["max drop_pp.limit"] == "0.5"
    assert said["max drop_pp.interval"] == "-0.2 to 0.4"
    assert said["min sqnr_db.value"] == said["min agreement.value"] == "not measured"
    assert "max size_bytes.interval" not in said
    assert said["against"] == "fp32"


def test_names_stay_the_same_when_the_figures_change() -> None:
    def identity(value: float, limit: float) -> list[tuple[str | None, str | None]]:
        root = parse(verdict(judged(check(value=value, limit=limit, reason=f"{value}"))))
        return [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]

    assert identity(0.1, 0.5) == identity(0.3, 1.0) == [("vitedge.vit-int8", "max drop_pp")]


def test_a_comparison_with_a_baseline_and_another_folder_have_names_of_their_own() -> None:
    several = verdict(
        judged(check()),
        judged(check(), against="last.baseline"),
        judged(check(), artifact="b", path="here/b"),
        judged(check(), artifact="b", path="there/b"),
    )
    assert [suite.get("name") for suite in parse(several)] == [
        *("vit-int8", "vit-int8 against last.baseline", "b (here/b)", "b (there/b)"),
    ]


def test_an_sqnr_without_noise_passes_and_is_infinite() -> None:
    equal = check("sqnr_db", bound="min", limit=30.0, value=float("inf"), interval=None)
    root = parse(verdict(judged(equal)))
    said = {p.get("name"): p.get("value") for p in root.iter("property")}
    assert said["min sqnr_db.value"] == "inf"
    assert root.get("failures") == "0"


def test_a_hostile_name_makes_no_markup_and_no_character_that_xml_forbids() -> None:
    hostile = verdict(
        judged(check(answer="failed", reason=HOSTILE), artifact=HOSTILE, model=HOSTILE)
    )
    (suite,) = parse(hostile)
    name = suite.get("name") or ""
    assert name.startswith("a|b `c` <script>alert('x')</script>")
    assert name.endswith("]]> &amp; é")
    assert not {"\n", "\x00", "\x1b", "\u202e", "\ufffe"} & set(name)


def test_an_artifact_without_checks_is_an_empty_suite() -> None:
    (suite,) = parse(verdict(judged()))
    assert suite.get("tests") == "0"
