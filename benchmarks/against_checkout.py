"""What vitedge prints, writes and takes in time, against another checkout of it.

A restructuring changes none of the three. OTHER is a checkout with an installed .venv.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from shutil import copytree

import numpy as np

from benchmarks import peers
from tests.e2e.test_max_drop import write_fragile
from tests.unit.gate.conftest import per_image, write_report
from vitedge.measure.statistics import ratio_of_medians

LIMIT = 1.03
IMAGES = 50_000
"""Of the report that `gate` is timed on."""
TINY = "--random-weights --target onnxruntime-cpu --int8 --calib-data random --num-samples 8"
COMMANDS = [
    line
    for line in Path(__file__).with_suffix(".txt").read_text().splitlines()
    if line and not line.startswith("#")
]
CHANCE_VALUES = re.compile(
    r"recommendation\.(precision|reason)$|p99_ms$|offline\.best\.|tools\.vitedge$"
)
"""What can happen to be the same twice: what timing led to, and our own version."""
CHANCE_KEYS = re.compile(r"\.warnings|\.drift")
"""What is there, or not, as timing went."""
PASSING = re.compile(r"waiting for another vitedge|^warning: .*(busy|noisy|load|clock)")
"""Lines of the log that tell of the machine, not of vitedge."""

JOBS = {
    "help": "--help",
    "demo": "demo",
    "digits": "export --target onnxruntime-cpu --target openvino-cpu --int8 --duration 0",
    "vit_tiny": f"export vit_tiny_patch16_224 {TINY} --duration 0",
    "gate": "gate {inputs}/report.json --max-drop 1 --baseline {inputs}/accepted.npz",
    "validate": "validate {inputs}/out/digits-onnxruntime-cpu-int8 --data digits",
}

ABSENT = object()


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("other", type=Path, help="a checkout with an installed .venv")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each, 3 or more")
    parser.add_argument("--only", choices=JOBS, help="time this alone")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--values", action="store_true", help="compare values only")
    what.add_argument("--times", action="store_true", help="compare times only")
    options = parser.parse_args()
    ours = Path(sys.executable).with_name("vitedge")
    theirs = options.other.resolve() / ".venv" / "bin" / "vitedge"
    same = options.times or compare_values(theirs, ours)
    if not options.values:
        compare_times(theirs, ours, [options.only] if options.only else list(JOBS), options.runs)
    sys.exit(not same)


# -- values -------------------------------------------------------------------------------------


def compare_values(theirs, ours):
    """Print every difference between what both do; false where there is one."""
    checkouts = {"before": theirs, "again": theirs, "after": ours}
    results = {}
    with tempfile.TemporaryDirectory() as name:
        write_inputs(Path(name) / "inputs")
        for run in checkouts:
            copytree(Path(name) / "inputs", Path(name) / run)
        for command in COMMANDS:
            print(f"vitedge {command}", file=sys.stderr)
            results[command] = [
                outcome(vitedge, command, Path(name) / run) for run, vitedge in checkouts.items()
            ]
    volatile = {
        pooled(place)
        for before, again, _ in results.values()
        for place in before.keys() | again.keys()
        if place != ("exit",) and before.get(place, ABSENT) != again.get(place, ABSENT)
    }
    print(f"{len(volatile)} values that differ between two runs of the other checkout:")
    print("\n".join(f"  {place}" for place in sorted(volatile)))
    count = 0
    for command, runs in results.items():
        print(f"exit code {runs[0]['exit',]}  vitedge {command}")
        for line in differences(*runs, volatile):
            count += 1
            print(f"DIFFERS      {line}")
    compared = sum(pooled(place) not in volatile for *_, run in results.values() for place in run)
    peers.verdict(f"{compared} values of {len(results)} commands: {count} differences", not count)
    return not count


def write_inputs(folder):
    """What the commands read: unlabelled pictures, an ONNX file that INT8 ruins, bad input."""
    (folder / "empty").mkdir(parents=True)
    (folder / "broken.onnx").write_bytes(b"no model")
    peers.save_npz(folder / "pictures.npz", peers.photographs(96, 32, 32, seed=0))
    write_fragile(folder / "fragile.onnx", {4, 9})
    (folder / "plain.toml").write_text(
        'name = "plain"\ndescription = "no equalisation"\nnum_samples = 32\n'
        'activations = "minmax"\nweights = "minmax"\nequalize = "off"\n'
    )


def outcome(vitedge, command, folder):
    """A command's exit code, output, log and files, by place: keys and indices down to a value."""
    earlier = modified(folder)
    run = subprocess.run([vitedge, *command.split()], cwd=folder, capture_output=True, text=True)
    out, log = (
        text.replace(str(folder), "FOLDER").replace(str(vitedge.parents[2]), "CHECKOUT")
        for text in (run.stdout, run.stderr)
    )
    try:
        printed = json.loads(out)
    except ValueError:
        printed = lines(out)
    files = {
        str(path.relative_to(folder)): content(path)
        for path, changed_at in modified(folder).items()
        if earlier.get(path) != changed_at
    }
    document = {"exit": run.returncode, "out": printed, "log": lines(log), "files": files}
    return dict(leaves(document))


def modified(folder):
    """When each file was last written, ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def content(path):
    """A JSON file's document, any other file's hash."""
    data = path.read_bytes()
    return json.loads(data) if path.suffix == ".json" else hashlib.sha256(data).hexdigest()


def lines(text):
    """How often each line occurs, its numbers masked and its spaces made one."""
    masked = [re.sub(r"\d+(\.\d+)?", "#", " ".join(line.split())) for line in text.splitlines()]
    return {line: masked.count(line) for line in masked if line and not PASSING.search(line)}


def leaves(value, place=()):
    """Every value of a document that holds no other, with its place."""
    items = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(items, dict) or not items:
        yield place, value
        return
    for key, item in items.items():
        yield from leaves(item, (*place, key))


def pooled(place):
    """The key alone: the same for all items of a list, and for a file in all folders."""
    keys = ["*" if isinstance(key, int) else key for key in place]
    if keys[0] == "files" and len(keys) > 1:
        keys[1] = Path(keys[1]).name
    return ".".join(keys)


def differences(before, again, after, volatile):
    """Keys that came or went, then values that are not the same but should be."""
    old, old_again, new = ({pooled(place) for place in run} for run in (before, again, after))
    for keys, what in (((old & old_again) - new, "gone"), (new - old - old_again, "new")):
        yield from (f"{key}: {what}" for key in sorted(keys) if not CHANCE_KEYS.search(key))
    for place in sorted(before.keys() | after.keys(), key=str):
        key, value, now = pooled(place), before.get(place, ABSENT), after.get(place, ABSENT)
        if CHANCE_KEYS.search(key) or CHANCE_VALUES.search(key):
            continue
        if key in old & new and key not in volatile:
            if value is ABSENT or now is ABSENT:
                yield f"{'.'.join(map(str, place))}: {'new' if value is ABSENT else 'gone'}"
            elif value != now:
                yield f"{'.'.join(map(str, place))}: {value!r} -> {now!r}"


# -- times --------------------------------------------------------------------------------------


def compare_times(theirs, ours, jobs, runs):
    """Time both in turn, and print ours over theirs for each job: wall clock and CPU."""
    rows, verdicts = [], []
    with tempfile.TemporaryDirectory() as name:
        checkouts = {theirs: Path(name) / "other", ours: Path(name) / "this"}
        for vitedge, inputs in checkouts.items():  # a file of the one need not be read by the other
            inputs.mkdir()
            report = write_report(inputs, kept=per_image(lost=900, gained=700, n=IMAGES))
            baseline = ["--baseline", str(inputs / "accepted.npz")]
            timed(vitedge, ["gate", str(report), "--max-drop", "1", "--accept", *baseline])
            if "validate" in jobs:
                timed(vitedge, [*JOBS["digits"].split(), "--output", str(inputs / "out")])
        for job in jobs:
            lines = {v: JOBS[job].format(inputs=inputs).split() for v, inputs in checkouts.items()}
            rounds = np.array(  # (runs, 2 checkouts, wall and CPU seconds)
                [[timed(*line) for line in lines.items()] for _ in range(runs + 1)]
            )[1:]  # the first fills the file cache
            for clock, seconds in zip(("wall", "CPU"), rounds.transpose(2, 1, 0), strict=True):
                before, after = (float(np.median(values)) for values in seconds)
                low, high = ratio_of_medians(seconds[1][:, None], seconds[0][:, None])
                ratio, interval = f"{after / before:.3f}", f"{low:.3f} to {high:.3f}"
                rows.append((job, clock, f"{before:.3f}", f"{after:.3f}", ratio, interval))
                verdicts.append((f"{job}, {clock}: the interval reaches {LIMIT}×", low <= LIMIT))
            print(f"{job}: done", file=sys.stderr)
    print(f"{runs} runs of each in turn; gate is on {IMAGES:,} images")
    peers.table(("", "clock", "other, s", "this, s", "this / other", "95% CI"), rows)
    for text, met in verdicts:
        peers.verdict(text, met)


def cpu_s():
    """CPU time of all processes that have ended: what a wall clock shows on an idle machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(vitedge, arguments):
    """Wall and CPU seconds of one run in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        start, used_s = time.perf_counter(), cpu_s()
        run = subprocess.run([vitedge, *arguments], cwd=folder, capture_output=True, text=True)
        seconds = time.perf_counter() - start, cpu_s() - used_s
    if run.returncode:
        sys.exit(f"vitedge {' '.join(arguments)}: exit code {run.returncode}\n{run.stderr}")
    return seconds


if __name__ == "__main__":
    main()
