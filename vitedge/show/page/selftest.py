"""A selftest as one page: every step, what was measured, what could not run, and the machine."""

from __future__ import annotations

from vitedge.export.selftest.record import Selftest
from vitedge.show import columns, report_tables, selftest
from vitedge.show.columns import HOST
from vitedge.show.page import provenance
from vitedge.show.page.shell import render as render_template
from vitedge.show.table import facts
from vitedge.show.text import number


def render(record: Selftest, command: str) -> str:
    """The whole page, by the `command` that was typed."""
    reports = columns.named(record.reports)
    took_s = sum(step.took_s or 0 for step in record.steps)
    where = f" on {record.device}" if record.device else ""
    host = record.device_host or record.host
    device = {"device": record.device} if record.device else {}
    return render_template(
        "selftest.html",
        title=f"vitedge selftest: {record.target}{where}",
        answer=selftest.answer(record),
        counts=selftest.counts(record),
        when=f"Began {record.started_at}; its steps took {number(took_s)} s. "
        f"vitedge {record.version}.",
        failures=record.having("failed"),
        steps=selftest.ran(record),
        missing=selftest.missing(record),
        proof=report_tables.proof(reports, "Accuracy and latency"),
        machines=provenance.machines(reports) or [{**device, **facts(HOST, host)}],
        command=command,
    )
