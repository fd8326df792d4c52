"""Verdicts as a gate gives them, of any checks."""

import msgspec

from vitedge.gate.verdict import SCHEMA, Check, Judged, Verdict, worst

HOSTILE = (
    "a|b `c` <script>alert('x')</script> [d](http://e.evil) www.evil.com @you\n# \"q\" \\ $x$ "
    "__i__ 50% \x00\x1b[31m\u202ereversed\ufffe ]]> &amp; é"
)
"""A name as a bundle from elsewhere may have it."""


def check(metric="drop_pp", **changes):
    plain = Check(
        metric=metric,
        bound="max",
        limit=0.5,
        value=0.14,
        interval=(-0.2, 0.4),
        answer="passed",
        reason="at most 0.4 points lost",
    )
    return msgspec.structs.replace(plain, **changes)


def judged(*checks, artifact="vit-int8", **changes):
    plain = Judged(
        artifact=artifact,
        path=f"artifacts/{artifact}",
        model="vit",
        target="onnxruntime-cpu",
        precision="int8",
        against="fp32",
        checks=checks,
        answer=worst(tuple(check.answer for check in checks)),
    )
    return msgspec.structs.replace(plain, **changes)


def verdict(*judgements):
    answer = worst(tuple(judgement.answer for judgement in judgements))
    return Verdict(schema=SCHEMA, answer=answer, confidence=0.95, judged=judgements)
