"""What a page's numbers belong to: the machine, the artifact, and the commands to repeat them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vitedge.data.open import EMBEDDED
from vitedge.measure.inspection import notes
from vitedge.show.page.report import Report, look, names, number
from vitedge.show.page.shell import definitions, safe, scroll
from vitedge.show.terminal import tables

if TYPE_CHECKING:
    from vitedge.core.manifest import Manifest


def machines(reports: Sequence[Report]) -> Iterable[str]:
    """Each machine once, and under which conditions it timed what."""
    hosts: dict[str, dict[str, str]] = {}
    for report, name in zip(reports, names(reports), strict=True):
        if not (host := look(report, "host")):
            continue
        where = {"device": str(report["device"])} if report.get("device") else {}
        facts = where | _host(host) | _conditions(look(report, "conditions") or {})
        key = "; ".join(facts.values())
        hosts.setdefault(key, {**facts, "artifacts": ""})
        hosts[key]["artifacts"] += (", " if hosts[key]["artifacts"] else "") + name
    if hosts:
        yield f"<section><h2>Machine{'s' * (len(hosts) > 1)}</h2>"
        for i, facts in enumerate(hosts.values(), 1):
            yield f"<h3>{i} of {len(hosts)}</h3>" if len(hosts) > 1 else ""
            yield from definitions(facts)
        yield "</section>"


def _host(host: Mapping[str, Any]) -> dict[str, str]:
    memory = host.get("memory_bytes")
    facts = {
        "processor": host.get("cpu"),
        "INT8 and vector instructions": ", ".join(host.get("isa") or ()),
        "accelerator": host.get("accelerator"),
        "cores, threads used": f"{host.get('cores')}, {host.get('threads')}",
        "memory": f"{number(memory, unit=1e9)} GB" if memory else None,
        "frequency governor": host.get("governor"),
        "container": host.get("container"),
        "limits": _limits(host),
        "system": host.get("os"),
        "Python": host.get("python"),
        "runtimes": tables.plain(host.get("runtimes") or {}),
    }
    return {key: tables.plain(value) for key, value in facts.items() if value}


def _limits(host: Mapping[str, Any]) -> str:
    cores, memory = host.get("cpu_quota"), host.get("memory_limit_bytes")
    parts = [
        f"{cores:g} cores" if cores else "",
        f"{number(memory, unit=1e9)} GB" if memory else "",
    ]
    return ", ".join(filter(None, parts))


def _conditions(conditions: Mapping[str, Any]) -> dict[str, str]:
    noise, busy = conditions.get("noise_percent"), conditions.get("other_cores")
    clocks, steal = conditions.get("frequency_mhz"), conditions.get("steal_percent")
    facts = {
        "measured noise": None if noise is None else f"{noise:.2g}% of a fixed piece of work",
        "busy with other work": None if busy is None else f"{busy:.2g} cores",
        "stolen by other machines": None if steal is None else f"{steal:.2g}% of CPU time",
        "clocks seen": clocks and f"{clocks[0]:,.0f} … {clocks[1]:,.0f} MHz",
        "fingerprint": conditions.get("fingerprint"),
    }
    return {key: value for key, value in facts.items() if value}


def manifest(manifest: Manifest) -> Mapping[str, str]:
    """What an artifact is and where it came from."""
    host, record = manifest.preprocessing.host, manifest.quantization
    facts = {
        "model": f"{manifest.model.name} ({manifest.model.source}), {manifest.model.task}",
        "weights": f"SHA-256 {manifest.model.weights_sha256}",
        "target": f"{manifest.target.name}: {manifest.target.description}",
        "precision": manifest.precision,
        "input": "; ".join(f"{t.name} {tables.plain(t.shape)} {t.dtype}" for t in manifest.inputs),
        "preprocessing outside": f"{host.resize} resize, {host.interpolation}",
        "preprocessing inside": ", ".join(manifest.preprocessing.graph),
        "parity": f"FP32 graph against its source: {manifest.parity.max_rel_error:.1e} relative",
    }
    if record:
        calibration = record.calibration
        facts["scheme"] = record.scheme
        facts["in INT8"] = (
            f"{sum(layer.quantized for layer in record.layers)} of {len(record.layers)} operators"
        )
        facts["calibration"] = (
            f"{calibration.recipe.name}, {calibration.images} images of {calibration.source}"
        )
        facts["calibration images"] = f"SHA-256 {calibration.digest}"
    if manifest.half:
        facts["floats"] = f"float16, {len(manifest.half.kept)} operators in float32"
    facts |= dict(zip(("decided", "decided also", "compiled"), notes.facts(manifest), strict=False))
    facts["tools"] = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
    facts |= {f"file {name}": f"SHA-256 {sha}" for name, sha in manifest.files.items()}
    return facts


def commands(manifest: Manifest, path: str, data: str) -> list[str]:
    """What makes and proves this artifact again, as far as its manifest knows.

    `data` is the images it was evaluated on; empty where it was not.
    """
    record, source = manifest.quantization, manifest.model.source
    words = ["vitedge", "export", source]
    if ":" not in source and not source.endswith(".onnx"):
        embedded = source in EMBEDDED and source == manifest.model.name
        words += [] if embedded else ["--weights", "FILE"]
    words += ["--target", manifest.target.name]
    if record and record.training:
        words[1:2] = ["qat"]
        words += ["--train-data", record.training.source]
    else:
        words.append(f"--{manifest.precision}")
    if record:
        calibration = record.calibration
        words += ["--calib-data", calibration.source, "--calibration", calibration.recipe.name]
        words += ["--num-samples", str(calibration.images)]
    validate = ["vitedge", "validate", path, *(["--data", data] if data else [])]
    return [shlex.join(line) for line in (words, validate, ["vitedge", "bench", path])]


def typed() -> str:
    """The command line of this process."""
    return shlex.join(["vitedge", *sys.argv[1:]])


def listing(lines: Sequence[str]) -> Iterable[str]:
    """Commands to copy."""
    yield scroll("Commands")
    yield f"<pre>{chr(10).join(safe(line, 4000) for line in lines)}</pre></div>"


def warnings(reports: Sequence[Report]) -> Iterable[str]:
    """Why not to trust the numbers, each reason once."""
    lines = [line for r in reports for line in look(r, "conditions", "warnings") or ()]
    yield from (f'<p class="note">{safe(line, 1000)}</p>' for line in dict.fromkeys(lines))
