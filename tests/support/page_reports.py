"""Reports as `bench` and `validate` write them, made up: what a page has to show."""

import msgspec
import numpy as np

from vitedge.core import measurements as m
from vitedge.core import report
from vitedge.core.cpu import Clocking
from vitedge.core.host import Host

HOSTILE = "a</title><script>alert('1')</script>\x1b[31m&\"b"
CPU = "Some CPU 8 @ 3.0 GHz"


def distribution(p50_ms, seed, points=120):
    """One with a tail, and a machine that slows down now and then."""
    shares, steps = np.arange(101) / 101, np.arange(points)
    medians = 1 + 0.05 * np.sin(steps / 9) ** 8 + 0.01 * np.cos(7 * steps + seed)
    return m.Distribution(
        quantiles_ms=tuple((p50_ms * (0.98 - 0.07 * np.log(1 - shares))).tolist()),
        series=tuple(
            (30 * i / points, p50_ms * median) for i, median in enumerate(medians.tolist())
        ),
    )


def timing(p50_ms, seed):
    """The fields of a `Timing`."""
    return {
        **{"p50_ms": p50_ms, "p90_ms": 1.3 * p50_ms, "p99_ms": 2.2 * p50_ms},
        **{"mean_ms": 1.1 * p50_ms, "n": 3000, "distribution": distribution(p50_ms, seed)},
    }


def host(cpu=CPU):
    """A machine."""
    return Host(
        **{"cpu": cpu, "isa": ("avx2", "avx512_vnni"), "accelerator": None, "os": "Linux"},
        **{"python": "3.12", "runtimes": {"onnxruntime": "1.31"}, "threads": 4, "cores": 4},
        **{"memory_bytes": 16_000_000_000, "governor": "powersave", "machine": "x86_64"},
        **{"gpus": (), "clocking": Clocking(), "container": None},
        **{"cpu_quota": None, "memory_limit_bytes": None},
    )


def measured(name, precision, p50_ms, accuracy, *, seed=0, scenarios=True, **changes):
    """A report of an artifact, with every section of `bench` or latency alone, and `changes`."""
    sections = {
        "latency": m.Latency(
            **timing(p50_ms, seed),
            batch=1,
            against="fp32",
            fp32=m.Timing(**timing(2.1, seed + 100)),
            other=None,
            speedup=2.1 / p50_ms,
            speedup_ci=(2.0 / p50_ms, 2.2 / p50_ms),
            rounds=20,
            speedup_log_se=0.02,
            p90_share_se=0.01,
        ),
        "accuracy": report.Accuracy(
            **{"metric": "top1", "fp32": 0.84, "artifact": accuracy, "confidence": 0.95},
            **{"drop_pp": 84 - 100 * accuracy, "agreement": 0.98, "also": {}, "n": 5000},
            drop_ci_pp=(84 - 100 * accuracy - 0.3, 84 - 100 * accuracy + 0.3),
            data="validation",
            skipped={},
            lost=None,
            gained=None,
        ),
        "size": report.Size(bytes=22_000_000, fp32_bytes=86_000_000),
        "memory": m.Memory(peak_rss_bytes=310_000_000, device_bytes=None),
        "host": host(),
    }
    if scenarios:
        sections |= _scenarios(p50_ms, seed)
    identity = {"artifact": name, "model": "vit_small_patch16_224", "target": "onnxruntime-cpu"}
    return report.Report(
        schema=report.SCHEMA,
        precision=precision,
        files={"model.onnx": "0" * 64},
        **{**identity, **sections, **changes},
    )


def with_part(measured, section, **changes):
    """The report, parts of one of its sections changed."""
    changed = msgspec.structs.replace(getattr(measured, section), **changes)
    return msgspec.structs.replace(measured, **{section: changed})


def _scenarios(p50_ms, seed):
    def point(batch, streams):
        rate = 1e3 / p50_ms * batch**0.3 * streams**0.7
        return m.Throughput(
            **{"batch": batch, "streams": streams, "threads": 4 // streams, "n": 400},
            images_per_s=rate,
            images_per_s_ci=(0.95 * rate, 1.04 * rate),
        )

    def swept(batch, threads):
        ms = p50_ms * batch**0.7 / threads**0.8
        return m.SweepPoint(
            **timing(ms, seed), batch=batch, threads=threads, images_per_s=1e3 * batch / ms
        )

    points = tuple(point(batch, streams) for streams in (1, 2) for batch in (1, 2, 4, 8, 16))
    return {
        "offline": m.Offline(points=points, best=points[-1], note=""),
        "sweep_batch": tuple(swept(batch, 4) for batch in (1, 2, 4, 8, 16)),
        "sweep_threads": tuple(swept(1, threads) for threads in (1, 2, 4)),
        "cold_start": m.ColdStart(
            load_ms=140.0, first_inference_ms=9.0, process_to_ready_ms=410.0, n=5
        ),
        "drift": m.Drift(
            **{"duration_s": 30.0, "slope_percent_per_minute": 0.4, "slope_ci": (-0.2, 1.0)},
            **{"confidence": 0.95, "slower": False, "throttled": None},
            temperature_c=(51.0, 63.0),
        ),
        "energy": m.Energy(
            **{"joules_per_inference": 0.031, "watts": 15.2, "idle_watts": 6.1, "batch": 1},
            source="RAPL package-0",
            note="",
        ),
        "conditions": m.Conditions(
            **{"measured_at": "2026-11-21T19:00:00Z", "fingerprint": "f1", "noise_percent": 2.3},
            **{"other_cores": 0.4, "steal_percent": 0.1, "frequency_mhz": (1200.0, 3000.0)},
            warnings=("the governor is 'powersave': clocks follow the load",),
        ),
    }


def field():
    """Six artifacts of one model."""
    return [
        measured("vit_small_patch16_224-onnxruntime-cpu-fp32", "fp32", 2.1, 0.84, seed=1),
        measured("vit_small_patch16_224-onnxruntime-cpu-int8", "int8", 1.2, 0.836, seed=2),
        measured("vit_small_patch16_224-openvino-cpu-fp32", "fp32", 1.9, 0.84, seed=3),
        measured("vit_small_patch16_224-openvino-cpu-int8", "int8", 0.74, 0.838, seed=4),
        measured("vit_small_patch16_224-tensorrt-fp16", "fp16", 0.8, 0.8395, seed=5),
        measured("vit_small_patch16_224-tensorrt-int8", "int8", 0.78, 0.82, seed=6),
    ]
