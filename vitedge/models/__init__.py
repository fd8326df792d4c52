"""Models: where they come from (sources), and our own architectures (zoo)."""

from vitedge.core.api import callable_package
from vitedge.models.api import models

callable_package(__name__, models)
