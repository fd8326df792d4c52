"""From a model to artifacts that are proven against it."""

from vitedge.core.api import callable_package
from vitedge.export.api import export

callable_package(__name__, export)
