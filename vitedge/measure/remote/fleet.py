"""A fleet: many devices of one kind, and what a figure is over them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from vitedge.core import bounded, files
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.json_document import parse
from vitedge.core.report import Report
from vitedge.core.spec import Spec
from vitedge.core.toml import load_toml
from vitedge.measure.remote.address import parse_address
from vitedge.measure.statistics import share_limits

SCHEMA = "vitedge.fleet/1"
AT_A_TIME = 8
"""Devices that are measured together; a run that ends early has lost no more than these."""
FENCE = 1.5
"""Interquartile ranges above the upper quartile, beyond which a unit is an outlier (Tukey 1977)."""
FEW = 5
"""Units below which none is called an outlier."""
CONFIDENCE = 0.95


class FleetDevice(Spec, frozen=True, kw_only=True):
    """One unit."""

    address: str
    """ssh://[user@]host[:port]."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Whatever tells units apart: `rack = "3"`."""


class Fleet(Spec, frozen=True, kw_only=True):
    """FILE.toml."""

    devices: Annotated[tuple[FleetDevice, ...], Meta(min_length=1, max_length=10_000)]
    max_p50_ms: Annotated[float, Meta(gt=0)] | None = None
    """A limit, of which the share of units that keep it is told."""


class Units(msgspec.Struct, frozen=True, kw_only=True):
    """The p50 latency of one artifact over the units of a fleet, milliseconds."""

    artifact: str
    units: int
    median_ms: float
    worst_ms: float
    worst: str
    """Its address."""
    within: int | None
    """Units that keep the limit; None without one."""
    within_ci: tuple[float, float] | None
    """The share of all such units, 0-1, at 95% (Wilson)."""
    outliers: dict[str, float]
    """Address -> p50 of units that are far slower than the others."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """FILE.done.json: what a run that ended early need not do again."""

    schema: str = SCHEMA
    key: str
    addresses: tuple[str, ...]


def read_fleet(path: Path) -> Fleet:
    """Raises InputError for what is no fleet, or names a device twice."""
    fleet = load_toml(path, Fleet)
    addresses = [device.address for device in fleet.devices]
    for address in addresses:
        parse_address(address)
    twice = sorted({address for address in addresses if addresses.count(address) > 1})
    if twice:
        raise InputError(f"{path} names {twice[0]} twice", fix="name each device once")
    return fleet


def key_of(words: Sequence[str], against: str, bundles: Sequence[Bundle]) -> str:
    """Of what is measured: other options or other bytes are another measurement."""
    content = (list(words), against, [bundle.model_files for bundle in bundles])
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def read_done(fleet: Path, key: str) -> tuple[str, ...]:
    """The devices that were measured so before. Raises InputError for a file that is no such."""
    path = _done(fleet)
    if not path.exists():
        return ()
    fix = "delete it: the fleet is measured anew"
    try:
        done = msgspec.convert(parse(bounded.read(path), path, fix), Done)
    except msgspec.ValidationError as error:
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error
    return done.addresses if (done.schema, done.key) == (SCHEMA, key) else ()


def write_done(fleet: Path, key: str, addresses: Sequence[str]) -> None:
    """Note which devices are measured. Raises InputError."""
    content = msgspec.json.encode(Done(key=key, addresses=tuple(addresses)))
    files.replace(_done(fleet), content, fix="put the fleet's file into a folder of your own")


def forget(fleet: Path) -> None:
    """The whole fleet is measured: the next run measures it anew."""
    _done(fleet).unlink(missing_ok=True)


def units(
    reports: Sequence[Report], max_p50_ms: float | None, names: Mapping[str, str]
) -> list[Units]:
    """Of each artifact that was timed; `names` are what devices are called, by address."""
    by_artifact: dict[str, dict[str, float]] = {}
    for report in reports:
        if report.latency and report.device:
            name = names.get(report.device, report.device)
            by_artifact.setdefault(report.artifact, {})[name] = report.latency.p50_ms
    return [_units(artifact, p50, max_p50_ms) for artifact, p50 in by_artifact.items()]


def _units(artifact: str, p50_ms: Mapping[str, float], limit_ms: float | None) -> Units:
    values = np.array(list(p50_ms.values()))
    low, high = np.quantile(values, [0.25, 0.75])
    fence = high + FENCE * (high - low) if len(values) >= FEW else np.inf
    within = None if limit_ms is None else int((values <= limit_ms).sum())
    worst = max(p50_ms, key=lambda name: p50_ms[name])
    return Units(
        artifact=artifact,
        units=len(values),
        median_ms=float(np.median(values)),
        worst_ms=p50_ms[worst],
        worst=worst,
        within=within,
        within_ci=None if within is None else share_limits(within, len(values), CONFIDENCE),
        outliers={name: value for name, value in p50_ms.items() if value > fence},
    )


def _done(fleet: Path) -> Path:
    return fleet.with_suffix(".done.json")
