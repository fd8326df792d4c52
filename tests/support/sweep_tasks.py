"""Tasks for workers to do that are not exports: they compute, die, and say where they ran."""

import os
import time
from pathlib import Path

from vitedge.core.errors import InputError


def square(number, folder):
    """Of a number; kills its worker at the first try of 3, at each of 5, and refuses 7."""
    tries = Path(folder, str(number))
    with tries.open("a") as file:
        file.write("x")
    if number == 5 or (number == 3 and len(tries.read_text()) == 1):
        os._exit(1)
    if number == 7:
        raise InputError("7 is refused", fix="take another")
    return number * number


def alone(folder):
    """How many others are in the folder of this host while it is there."""
    mine = Path(folder, f"{os.getpid()}-{time.monotonic_ns()}")
    mine.touch()
    time.sleep(0.3)
    others = len(list(Path(folder).iterdir())) - 1
    mine.unlink()
    return others


def slow(number):
    """A number, after a while."""
    time.sleep(4)
    return number
