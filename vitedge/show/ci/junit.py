"""JUnit XML: a suite for each artifact, a test case for each check.

Valid for Jenkins' junit-10.xsd, which is the strictest in use: no properties inside a test case.
"""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

from vitedge.gate.verdict import Check, Judged, Verdict
from vitedge.show import checks
from vitedge.show.text import one_line

ELEMENTS = {"failed": "failure", "inconclusive": "error"}
"""Both are red everywhere. An error is a test that could not tell, which is what JUnit means by it;
`skipped` would be green."""


def render(verdict: Verdict) -> str:
    """The document, without times: nothing in it changes unless a measurement does."""
    root = ElementTree.Element("testsuites", name="vitedge gate")
    _count(root, tuple(check for judged in verdict.judged for check in judged.checks))
    for name, judged in zip(checks.names(verdict), verdict.judged, strict=True):
        _suite(root, name, judged, verdict.confidence)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def _suite(root: ElementTree.Element, name: str, judged: Judged, confidence: float) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=name)
    _count(suite, judged.checks)
    suite.set("skipped", "0")
    about = {"model": judged.model, "target": judged.target, "precision": judged.precision}
    about |= {"against": judged.against, "confidence": f"{confidence:g}"}
    about["signature"] = checks.signature(judged)
    for check in judged.checks:
        about |= _figures(check)
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in about.items():
        ElementTree.SubElement(properties, "property", name=key, value=one_line(value))
    classname = f"vitedge.{name.replace('.', '_')}"  # Jenkins splits it at its last dot
    for check in judged.checks:
        _case(suite, classname, check)


def _case(suite: ElementTree.Element, classname: str, check: Check) -> None:
    about = {"name": _title(check), "classname": classname, "time": "0"}
    case, reason = ElementTree.SubElement(suite, "testcase", about), one_line(check.reason)
    if kind := ELEMENTS.get(check.answer):
        outcome = ElementTree.SubElement(case, kind, type=check.answer, message=reason)
        numbers = (f"{key}: {value}" for key, value in _figures(check).items())
        outcome.text = "\n".join((reason, *numbers))  # GitLab shows the text, Jenkins both
    else:
        ElementTree.SubElement(case, "system-out").text = reason


def _title(check: Check) -> str:
    """`max drop_pp`: what is checked, without its figures, so that it is the same next time."""
    return f"{check.bound} {one_line(check.metric)}"


def _figures(check: Check) -> dict[str, str]:
    """Exact, in the unit of the metric's name, for what reads properties."""
    title, value, ends = _title(check), checks.NamedCheck("", check).value, check.interval
    properties = {f"{title}.limit": f"{check.limit!r}"}
    properties[f"{title}.value"] = "not measured" if value is None else f"{value!r}"
    if ends:
        properties[f"{title}.interval"] = f"{ends[0]!r} to {ends[1]!r}"
    return properties


def _count(element: ElementTree.Element, checks: tuple[Check, ...]) -> None:
    answers = Counter(check.answer for check in checks)
    counts = {"failures": answers["failed"], "errors": answers["inconclusive"]}
    for key, count in ({"tests": len(checks)} | counts).items():
        element.set(key, str(count))
