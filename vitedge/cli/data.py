"""The command that looks at images: check-data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitedge.cli.command import Call, command
from vitedge.cli.flags import command_line
from vitedge.cli.output import Json, print_json, raise_first
from vitedge.measure import api

if TYPE_CHECKING:
    from vitedge.measure.data_check import DataCheck


@command(api.check_data)
def check_data(call: Call[DataCheck], as_json: Json = False) -> None:
    from msgspec.structs import replace

    from vitedge.show.terminal import data_check

    check = call()
    errors = check.errors
    findings = tuple(
        replace(f, what=command_line(f.what), fix=command_line(f.fix)) for f in check.findings
    )
    check = replace(check, findings=findings)
    if as_json:
        print_json(check)
    else:
        data_check.show(check)
    raise_first(errors)
