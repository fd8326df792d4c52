"""How often the gate is wrong, and can tell: `python -m benchmarks.gate_simulation`.

Pairs of models are simulated by how many images each has right alone; the gate's own decision
judges each pair. First the errors at one commit, then what policies let through over many.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from functools import cache
from math import sqrt

import numpy as np
from scipy import stats

from benchmarks import peers
from vitedge.gate.drop import of_pairs
from vitedge.gate.limits import criterion

PAIRS = 4000
CONFIDENCE = 0.95
SIZES = (719, 1000, 5000, 20000)
DISCORDANCE = (0.001, 0.01, 0.02, 0.05, 0.1)
MARGINS_PP = (0.5, 1.0)
COMMITS, TRIALS, IMAGES, MARGIN_PP = 40, 200, 5000, 0.5


@cache
def answer(lost, gained, n, margin_pp):
    limit = criterion("max_drop_pp", margin_pp)
    return of_pairs(lost, gained, n, CONFIDENCE).check(limit, CONFIDENCE).answer


def shares(discordance, drop_pp):
    """Of images that FP32 alone has right, and the artifact alone."""
    return (discordance + drop_pp / 100) / 2, (discordance - drop_pp / 100) / 2


def simulated(rng, n, discordance, drop_pp, margin_pp):
    """What the gate says of PAIRS pairs whose true drop is `drop_pp`."""
    lost, gained = shares(discordance, drop_pp)
    counts = rng.multinomial(n, (lost, gained, 1 - discordance), size=PAIRS)
    return Counter(answer(int(b), int(c), n, margin_pp) for b, c, _ in counts)


def exact(n, discordance, margin_pp):
    """The chance that a pair at the margin passes, and that it fails: over every table."""
    lost, gained = shares(discordance, margin_pp)
    width = 7 * sqrt(n * discordance) + 12
    most = round(n * discordance + width)
    passed = failed = 0.0
    for b in range(max(0, int(n * lost - width)), int(n * lost + width)):
        chance = stats.binom.pmf(b, n, lost)
        left = stats.binom(n - b, gained / (1 - lost))
        passes = bisect_left(
            range(most), True, key=lambda c: answer(b, c, n, margin_pp) == "passed"
        )
        fails = bisect_left(range(most), True, key=lambda c: answer(b, c, n, margin_pp) != "failed")
        passed += chance * left.sf(passes - 1)
        failed += chance * left.cdf(fails - 1)
    return passed, failed


def theory(n, discordance, margin_pp):
    """Power of the normal approximation, for two models that differ in discordance alone."""
    z = stats.norm.ppf(CONFIDENCE)
    return float(stats.norm.cdf(margin_pp / 100 * sqrt(n / discordance) - z))


def one_commit():
    """Errors at the margin, simulated (exact), and power where nothing is lost (theory)."""
    rng = np.random.default_rng(0)
    columns = ["wrongly passed", "wrongly failed", "passed, if nothing is lost"]
    heads = [f"{margin:g} pp: {column}" for margin in MARGINS_PP for column in columns]
    peers.markdown(("images", "discordance", *heads))
    print("|" + "---|" * (2 + len(heads)))
    worst = []
    for n in SIZES:
        for discordance in DISCORDANCE:
            cells = []
            for margin in MARGINS_PP:
                if margin / 100 > discordance:
                    cells += ["–"] * 3
                    continue
                edge = simulated(rng, n, discordance, margin, margin)
                same = simulated(rng, n, discordance, 0.0, margin)["passed"] / PAIRS
                known = exact(n, discordance, margin)
                worst += known
                for kind, true in zip(("passed", "failed"), known, strict=True):
                    cells.append(f"{edge[kind] / PAIRS:.1%} ({true:.1%})")
                cells.append(f"{same:.0%} ({theory(n, discordance, margin):.0%})")
            if any(cell != "–" for cell in cells):
                peers.markdown((f"{n:,}", f"{100 * discordance:g}%", *cells))
    print(f"\nwrong at most, exactly: {max(worst):.2%}")


def images_needed():
    """Whether the number of images that an inconclusive answer names would have decided."""
    rng = np.random.default_rng(1)
    print("\n| images | discordance | drop | margin | images named, at the true rates | decided |")
    print("|---|---|---|---|---|---|")
    for n, discordance, drop, margin in (
        (719, 0.005, 0.0, 0.5),
        (719, 0.02, 0.0, 0.5),
        (1000, 0.05, 0.0, 1.0),
        (1000, 0.05, 2.0, 1.0),
        (5000, 0.02, 0.1, 0.3),
    ):
        lost, gained = (round(1000 * n * share) for share in shares(discordance, drop))
        named = of_pairs(lost, gained, 1000 * n, CONFIDENCE).images_needed(margin, CONFIDENCE)
        answers = simulated(rng, named, discordance, drop, margin)
        print(
            f"| {n:,} | {100 * discordance:g}% | {drop:g} pp | {margin:g} pp "
            f"| {named:,} | {1 - answers['inconclusive'] / PAIRS:.0%} |"
        )


def many_commits():
    """Models that lose a little at every commit, until the gate fails one."""
    print(
        f"\n{COMMITS} commits, each changing 1% of {IMAGES:,} images; {MARGIN_PP} pp allowed; "
        f"{TRIALS} times:\n"
    )
    print("| each commit loses | compared with | commits until one fails | true drop by then |")
    print("|---|---|---|---|")
    for step_pp in (0.0, 0.1, 0.3):
        for name, fp32, accepting in (
            ("the last that passed, alone", False, 1),
            ("FP32 alone", True, COMMITS + 1),
            ("FP32, and a baseline that every 10th commit replaces", True, 10),
        ):
            lasted = [
                walk(np.random.default_rng(t), step_pp, fp32, accepting) for t in range(TRIALS)
            ]
            never = sum(commits > COMMITS for commits in lasted) / TRIALS
            mean, most = (min(COMMITS, function(lasted)) for function in (np.mean, np.max))
            print(
                f"| {step_pp:g} pp | {name} | {mean:.1f} ({never:.0%} never) "
                f"| {step_pp * mean:.1f} pp on average, {step_pp * most:.1f} at most |"
            )


def walk(rng, step_pp, fp32, accepting):
    """The first commit that fails; COMMITS + 1 where none does."""
    original = baseline = now = rng.random(IMAGES) < 0.8
    lost, gained = shares(0.01, step_pp)
    for commit in range(1, COMMITS + 1):
        right = now.mean()
        now = now ^ (rng.random(IMAGES) < np.where(now, lost / right, gained / (1 - right)))
        answers = [said(baseline, now)] + [said(original, now)] * fp32
        if "failed" in answers:
            return commit
        if commit % accepting == 0 and set(answers) == {"passed"}:
            baseline = now
    return COMMITS + 1


def said(before, now):
    return answer(int((before & ~now).sum()), int((~before & now).sum()), IMAGES, MARGIN_PP)


if __name__ == "__main__":
    one_commit()
    images_needed()
    many_commits()
