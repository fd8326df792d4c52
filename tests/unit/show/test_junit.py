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
    root = parse(mixed)  # the approved file has the texts
    for element in (root, root[0]):
        counts = {key: element.get(key) for key in ("tests", "failures", "errors")}
        assert counts == {"tests": "6", "failures": "2", "errors": "1"}
    outcomes = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert outcomes == {
        **{"max drop_pp": ["system-out"], "min speedup": ["error"], "max p90_ms": ["system-out"]},
        **{"max size_bytes": ["system-out"], "min sqnr_db": ["failure"]},
        "min agreement": ["failure"],
    }


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
