"""Whether an artifact may ship: limits against evidence, with three answers."""

from vitedge.core.api import callable_package
from vitedge.gate.api import gate

callable_package(__name__, gate)
