"""What one target cannot do: told as its failure, so that it costs the others nothing."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

from vitedge.core.errors import InputError, SharedError, VitedgeError, error_line
from vitedge.core.spec import Precision, Target
from vitedge.export.request import Job
from vitedge.export.result import ExportFailure
from vitedge.export.stage import bundle_name


class Failures(list[ExportFailure]):
    """The failures of one export, in the order of its work."""

    def __init__(self, job: Job, *, raised: bool) -> None:
        """Where `raised`, none is taken in: the first ends the export."""
        super().__init__()
        self._job, self._raised = job, raised

    @contextmanager
    def of(self, *targets: Target, precision: Precision) -> Iterator[None]:
        """Take in what goes wrong with this precision of `targets`.

        What is of no use to any target (the images, the model, the disk) is raised, and Ctrl-C.
        """
        try:
            yield
        except Exception as error:
            shared = isinstance(error, (SharedError, OSError))
            if self._raised or shared or isinstance(error.__cause__, OSError):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold graphs and sessions
            for target in targets:
                name = bundle_name(self._job.model, target, precision)
                told = self._told(error, name, target)
                failure = ExportFailure(name, self._job.model.name, target.name, precision, told)
                self.append(failure)

    def _told(self, error: Exception, name: str, target: Target) -> VitedgeError:
        """`error`, which says of which bundle it is where there are several targets."""
        told: VitedgeError
        if isinstance(error, VitedgeError):
            told = copy(error).with_traceback(error.__traceback__)
            told.__cause__ = error.__cause__
        else:
            what = f"{type(error).__name__}: {error_line(error)}"
            told = InputError(what, fix="this was not foreseen: report it with the model")
            told.__cause__ = error
        told.what = told.what.replace(f"{self._job.work}/", "")
        if len(self._job.plan.targets) > 1 and target.name not in told.what:
            told.what = f"{name}: {told.what}"
        told.args = (told.what,)
        return told
