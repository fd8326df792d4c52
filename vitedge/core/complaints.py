"""What a runtime complains of, as one line for people: which operator, and why.

Runtimes wrap that into codes, source files and checks of their own C++.
"""

from __future__ import annotations

import re

from vitedge.core.errors import InputError

LONGEST = 300
_NOISE = re.compile(
    r"""Fatal\ error:\s|\[ONNXRuntimeError\]\ :\ \d+\ :\ \w+\ :\ |Load\ model\ from\ \S+\ failed:\s?
    |This\ is\ an\ invalid\ model\.\s|Status\ Message:\s
    |/onnxruntime_src/\S+:\d+\ (?:.*?\ was\ false\.\s)?|Exception\ from\ \S+:\d+:
    |(?:Check|Assertion)\ '[^\n]*?'\ failed\ at\ \S+:\d+:|\bat\ src/\S+:\d+:
    |FrontEnd\ API\ failed\ with\ \w+:|Model\ wasn't\ fully\ converted\.
    |Failed\ operations\ detailed\ log:|--\ \S+\ with\ a\ message:
    |Summary:|--\ Conversion\ is\ failed\ for:[^\n]*|--\ (?=No\ conversion\ rule)""",
    re.VERBOSE | re.DOTALL,
)
_NODES = tuple(
    re.compile(pattern)
    for pattern in (
        r"Non-zero status code returned while running (?P<op>\w+) node\. Name:'(?P<name>[^']*)'",
        r"Node \((?P<name>[^)]+)\) Op \((?P<op>\w+)\)",
        r'In Node, \("(?P<name>[^"]*)", (?P<op>\w+),.*?Error',
        r"of operator \((?P<op>\w+)\) in node \((?P<name>[^)]*)\)",
        r"for (?P<op>\w+)\(\d+\) node with name '(?P<name>[^']*)'",
        r"\[CPU\] (?P<op>\w+) node with name '(?P<name>[^']*)'",
        r"END: node: \w+::(?P<op>\w+) (?P<name>\S+) \([^)]*\)(?: -> \([^)]*\))?",
        r"While validating ONNX node '<Node\((?P<op>\w+)\): (?P<name>[^>]*)>':",
        r"While validating node '\w+::(?P<op>\w+) .*?' with friendly_name '(?P<name>[^']*)':",
    )
)


class RuntimeFailure(InputError):
    """A runtime does not take a graph, or fails in it."""


def complaint(error: BaseException) -> str:
    """What `error`, of any runtime, says: "at 'NODE' (OP): why", as far as it does."""
    text, where = _NOISE.sub(" ", str(error)), ""
    for pattern in _NODES:
        if match := pattern.search(text):
            op, name = match["op"], match["name"]
            where = where or (f"at '{name}' ({op})" if name else f"at a {op}")
            text = f"{text[: match.start()]} {text[match.end() :]}"
    why = " ".join(text.split()).strip(" :,;")
    why = why if len(why) <= LONGEST else f"{why[:LONGEST]}…"
    return ": ".join(filter(None, (where, why))) or type(error).__name__
