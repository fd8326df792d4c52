"""The command line in this process: a process of its own spends most of its time importing torch.

What a user meets is what is returned: exit code, stdout and stderr, native code's output included.
What a process would take away with it, is put back: environment, folder, streams, signals, seeds.
"""

import logging
import os
import signal
import sys
import traceback
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from unittest.mock import patch

from vitedge.cli.main import run


def call(arguments, cwd, environment):
    """Exit code, stdout and stderr of `vitedge ARGUMENTS` where nobody watches and types."""
    with TemporaryFile() as out, TemporaryFile() as err, ExitStack() as state:
        state.enter_context(_streams(out, err))
        state.enter_context(_process(cwd or Path.cwd()))
        state.enter_context(_torch())
        state.enter_context(patch.dict(os.environ, environment))
        state.enter_context(patch.object(sys, "argv", ["vitedge", *arguments]))
        code = _exit_code()
        sys.stdout.flush()
        sys.stderr.flush()
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


def _exit_code():
    """Run it, and do what the interpreter does at the end of a process."""
    try:
        run()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def _streams(out, err):
    """File descriptors 0 to 2, and Python's streams upon them, of a process with no terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in range(3)]
    try:
        with open(os.devnull, "rb") as nothing:
            for number, file in enumerate((nothing, out, err)):
                os.dup2(file.fileno(), number)
        with (
            open(0, encoding="utf-8", closefd=False) as stdin,
            open(1, "w", encoding="utf-8", closefd=False) as stdout,
            open(2, "w", encoding="utf-8", closefd=False, buffering=1) as stderr,
            patch.multiple(sys, stdin=stdin, stdout=stdout, stderr=stderr),
        ):
            yield
    finally:
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
            os.close(copy)


@contextmanager
def _process(cwd):
    """Folder, signals, warnings and logs as of a new process, not as pytest has them."""
    before, handler = Path.cwd(), signal.getsignal(signal.SIGINT)
    handlers, level = logging.root.handlers[:], logging.root.level
    with warnings.catch_warnings(), patch.dict(os.environ):
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = _print_warning
        logging.root.handlers[:] = []
        logging.root.setLevel(logging.WARNING)
        os.chdir(cwd)
        try:
            yield
        finally:
            os.chdir(before)
            signal.signal(signal.SIGINT, handler)
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)


def _print_warning(message, category, filename, lineno, file=None, line=None):
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


@contextmanager
def _torch():
    """Seeds and threads of a torch that tests have imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
