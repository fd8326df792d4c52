"""Quantization-aware training: one loop, for one process or many, that can be killed anywhere."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vitedge.core.bounds import asked, breaches, shortfalls, within_reach
from vitedge.core.errors import InputError, LimitError
from vitedge.core.progress import Steps
from vitedge.core.spec import Training
from vitedge.data.imageset import Batch
from vitedge.quant.qat import checkpoint, team
from vitedge.quant.qat.checkpoint import BEST, LAST, LOG, LogListener, Place, TrainingLog
from vitedge.quant.qat.images import deal
from vitedge.quant.qat.job import Look, TrainingJob, measure, on_device
from vitedge.quant.qat.loss import Mixed, loss, mix
from vitedge.quant.qat.network import Network


@dataclass(frozen=True)
class TrainingRun:
    """How a run went; the student holds the best weights it has found."""

    steps: int
    best_step: int
    """0: as PTQ left it."""
    log: list[dict[str, Any]]
    """A line for every step (`loss`, `learning_rate`) and look at held-out images (`held_out`)."""


def train(
    job: TrainingJob, accelerator: Accelerator, steps: Steps, listener: LogListener
) -> TrainingRun:
    """Train `job.student`, and leave it as it was where the held-out loss was least.

    With `job.bounds`, as it was where it first met them, and no further. Goes on from the
    checkpoint in `job.folder` where there is one. Raises InputError where a checkpoint is not of
    this run or cannot be written, and where the loss is not finite; LimitError where the bounds
    are never met.
    """
    return _Run(job, accelerator, steps).train(listener)


class _Run:
    def __init__(self, job: TrainingJob, accelerator: Accelerator, steps: Steps) -> None:
        settings = job.settings
        self._job, self._settings, self._folder = job, settings, job.folder
        self._accelerator, self._steps = accelerator, steps
        self._per_epoch = len(job.training) // settings.batch_size
        self._total = settings.epochs * self._per_epoch
        job.student.to(accelerator.device)
        job.teacher.to(accelerator.device).requires_grad_(False)
        self._student = accelerator.prepare_model(job.student)
        self._tensors = {n: p for n, p in job.student.named_parameters() if p.requires_grad}
        self._optimizer = _optimizer(job.student, settings)
        self._average = (
            {n: p.detach().clone() for n, p in self._tensors.items()} if settings.ema else {}
        )
        self._place = Place(step=0, best_step=0, best_loss=math.inf, of=job.fingerprint)
        self._accuracy: float | None = None
        self._bf16 = team.bf16(settings, accelerator.device)

    def train(self, listener: LogListener) -> TrainingRun:
        resumed = (self._folder / LAST).exists()
        self._accelerator.wait_for_everyone()  # before one of them writes it
        if resumed:
            self._restore(*checkpoint.read(self._folder / LAST, self._job.fingerprint))
        log = TrainingLog(self._folder / LOG, self._place.step, listener) if self._main else None
        bounds = self._job.bounds
        if not resumed or (asked(bounds) and self._place.best_kept is None):
            self._look(log)
        while self._place.step < self._total and not self._met:
            epoch, first = divmod(self._place.step, self._per_epoch)
            batches = deal(
                self._job.images,
                self._job.training,
                self._settings,
                epoch=epoch,
                first_step=first,
                process=self._accelerator.process_index,
                processes=self._accelerator.num_processes,
            )
            for batch in batches:
                self._step(batch, log)
                if self._place.step % self._settings.checkpoint_steps == 0:
                    self._save(LAST)
            self._look(log)
        if asked(bounds) and not self._met:
            raise self._unmet()
        self._best()
        return TrainingRun(self._place.step, self._place.best_step, log.lines if log else [])

    @property
    def _met(self) -> bool:
        """Whether the best weights meet bounds that were asked for."""
        bounds, kept = self._job.bounds, self._place.best_kept
        return bool(asked(bounds)) and kept is not None and not shortfalls(bounds, kept)

    def _unmet(self) -> LimitError:
        bounds, place = self._job.bounds, self._place
        assert place.best_kept is not None
        within = within_reach(bounds, place.best_kept)
        allow = f"allow {within} with `resume=True`, or " if within else ""
        return LimitError(
            f"after {place.step} steps the model {breaches(bounds, place.best_kept)}, on the "
            f"held-out images; that is its best, of step {place.best_step}",
            fix=f"{allow}train longer, with more `epochs` and `force=True`",
        )

    @property
    def _main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    def _step(self, batch: Batch, log: TrainingLog | None) -> None:
        """One update of the weights."""
        settings, step = self._settings, self._place.step
        share = rate(step, self._total, settings.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["highest"] * share
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._accelerator.device)
        parts = self._parts(batch, step)
        for index, mixed in enumerate(parts):
            # processes exchange gradients once a step
            last = index + 1 == len(parts)
            sync = contextlib.nullcontext() if last else self._accelerator.no_sync(self._student)
            with sync:
                with torch.autocast(total.device.type, torch.bfloat16, enabled=self._bf16):
                    part = self._loss(mixed) / len(parts)
                self._accelerator.backward(part)
            total += part.detach()
        value = float(self._accelerator.reduce(total, "mean"))
        self._check(value, f"at step {step + 1}")
        norm = nn.utils.clip_grad_norm_(self._tensors.values(), settings.clip_norm)
        self._optimizer.step()
        for name, average in self._average.items():
            average.lerp_(self._tensors[name].detach(), 1 - settings.ema)
        self._place = msgspec.structs.replace(self._place, step=step + 1)
        if log is not None:
            lr = settings.learning_rate * share
            log.add(step=step + 1, loss=value, learning_rate=lr, gradient_norm=float(norm))
        note = f"loss {value:.4g}, learning rate {settings.learning_rate * share:.1e}"
        if self._accuracy is not None:
            note += f", {self._accuracy:.1%} of held-out images right"
        self._steps("training", step + 1, self._total, note)

    def _parts(self, batch: Batch, step: int) -> list[Mixed]:
        """The batch in as many parts as gradients are accumulated over."""
        process = self._accelerator.process_index
        (seed,) = np.random.SeedSequence([self._settings.seed, step, process]).generate_state(1)
        random = torch.Generator().manual_seed(int(seed))
        images, labels = (
            values.chunk(self._settings.accumulate)
            for values in on_device(batch, self._accelerator.device)
        )
        pairs = zip(images, labels, strict=True)
        return [mix(some, of, self._settings, random) for some, of in pairs]

    def _loss(self, batch: Mixed) -> Tensor:
        with torch.no_grad():
            teacher = self._job.teacher(batch.images)
        return loss(self._student(batch.images), teacher, batch, self._job.task, self._settings)

    @torch.no_grad()
    def _look(self, log: TrainingLog | None) -> None:
        """Measure on the held-out images, remember the best, and save both."""
        with _holding(self._tensors, self._average):  # the moving average, where there is one
            look = measure(self._job, self._accelerator.device)
            # processes may differ in a last bit, and are to end together
            look = look._replace(kept=team.share(self._accelerator, look.kept))
            value, self._accuracy = look.loss, look.accuracy
            if not self._place.step and not math.isfinite(value):
                raise InputError(
                    f"the loss on the held-out images is {value} at step 0, before any training",
                    fix="export it with `precision='int8'`, to see what it makes of such images",
                )
            self._check(value, f"on the held-out images after step {self._place.step}")
            if self._better(look):
                self._place = msgspec.structs.replace(
                    self._place,
                    best_step=self._place.step,
                    best_loss=value,
                    best_kept=look.kept,
                )
                self._save(BEST)
        if log is not None:
            held_out = {"loss": value, "accuracy": self._accuracy}
            if look.kept:
                held_out |= {
                    "sqnr_db": look.kept.sqnr_db,
                    "token_sqnr_db": look.kept.token_sqnr_db,
                }
            log.add(step=self._place.step, held_out=held_out)
        self._save(LAST)

    def _better(self, look: Look) -> bool:
        """Whether it is the best so far: nearest to the bounds or, without any, of least loss."""
        best = self._place.best_kept
        if look.kept is None:
            return look.loss < self._place.best_loss
        if best is None:
            return True
        now, before = (
            max(shortfalls(self._job.bounds, kept).values(), default=0.0)
            for kept in (look.kept, best)
        )
        return now < before

    def _check(self, value: float, where: str) -> None:
        """Raises InputError where a loss is not finite."""
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} {where}: training has stopped",
                fix="go on from the last good checkpoint, at most "
                f"{self._settings.checkpoint_steps} steps before, with `resume=True` and a lower "
                "`learning_rate`",
            )

    def _save(self, name: str) -> None:
        if self._main:
            tensors: dict[str, Tensor] = dict(self._tensors)
            if name == LAST:
                tensors |= {f"average/{n}": t for n, t in self._average.items()}
                for key, parameter in self._tensors.items():
                    for part, value in self._optimizer.state.get(parameter, {}).items():
                        tensors[f"{part}/{key}"] = value
            checkpoint.write(self._folder / name, tensors, self._place)

    @torch.no_grad()
    def _restore(self, place: Place, saved: dict[str, Tensor]) -> None:
        self._place = place
        for name, parameter in self._tensors.items():
            parameter.copy_(saved[name])
            if f"step/{name}" in saved:
                self._optimizer.state[parameter] = {
                    part: saved[f"{part}/{name}"].to(parameter.device if part != "step" else "cpu")
                    for part in ("step", "exp_avg", "exp_avg_sq")
                }
            if self._average:
                self._average[name].copy_(saved[f"average/{name}"])

    @torch.no_grad()
    def _best(self) -> None:
        """Put the best weights into the student, in every process."""
        self._accelerator.wait_for_everyone()
        _, best = checkpoint.read(self._folder / BEST, self._job.fingerprint)
        for name, parameter in self._tensors.items():
            parameter.copy_(best[name])


@contextlib.contextmanager
def _holding(parameters: dict[str, nn.Parameter], others: dict[str, Tensor]) -> Iterator[None]:
    """Parameters that hold other values while the block runs; none where there are no others."""
    kept = {name: parameters[name].detach().clone() for name in others}
    for name, other in others.items():
        parameters[name].data.copy_(other)
    yield
    for name, value in kept.items():
        parameters[name].data.copy_(value)


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at `step` of `steps`.

    A linear rise, then half a cosine to 0: a function of the step alone, nothing of it to be saved.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _optimizer(student: Network, settings: Training) -> torch.optim.AdamW:
    """Matrices decay; biases, norms and scales do not, and scales have a rate of their own."""
    weights, scales = list(student.weights), list(student.scale_parameters())
    groups = [
        ([p for p in weights if p.ndim > 1], settings.learning_rate, settings.weight_decay),
        ([p for p in weights if p.ndim <= 1], settings.learning_rate, 0.0),
        ([p for p in scales if p.requires_grad], settings.scale_learning_rate, 0.0),
    ]
    return torch.optim.AdamW(
        [{"params": params, "highest": lr, "weight_decay": decay} for params, lr, decay in groups]
    )
