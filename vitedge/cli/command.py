"""A command is its API function: parameters, types, defaults and help are declared there alone."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, get_args, get_origin

import typer

from vitedge.cli.flags import command_line, flag
from vitedge.core.progress import steps
from vitedge.measure import api

if TYPE_CHECKING:
    from vitedge.measure.open_bundle import OpenBundle

T = TypeVar("T")

TYPED: dict[str, Any] = {
    **dict.fromkeys(("AnyModel", "Inspected", "Known", "Data", "Task", "Batch", "Rival"), str),
    **dict.fromkeys(("AnyPath", "AnyBundle", "Preprocess", "Training", "Classes"), Path),
    **dict.fromkeys(("AnyBundles", "AnyImages"), list[Path]),
    "Names": list[str],
}
"""What a user types for a parameter of the API, by the name of its type there."""
ARGUMENTS = (
    *("model", "artifact", "artifacts", "images", "path", "file"),
    *("source", "sources", "first", "second", "repository"),
)
"""Parameters that are typed without a flag, unless they are the API's keywords."""
OTHERWISE = ("precision", "progress")
"""Parameters that the command line has other ways for."""
PANELS = {
    name: panel
    for panel, names in {
        "Model": "weights arch random_weights task preprocess height width classes prompt "
        "model_output",
        "Precision": "int8 fp8 bf16 fp16 fp32 only calibration num_samples max_drop_pp min_sqnr_db "
        "min_token_sqnr_db",
        "Data": "train_data calib_data eval_data data allow_overlap",
        "Shards": "shard merge",
        "Training": "training epochs batch_size learning_rate seed resume tensorboard",
        "Measurement": "against scenarios sweeps duration_s threads streams end_to_end device "
        "fleet top",
        "Trust": "trust accepted allow_host_code",
        "Workers": "workers address limit",
        "Hub": "license private",
        "Output": "output cache force keep_going quick dry_run csv html junit write form as_json",
    }.items()
    for name in names.split()
}
"""Under which heading of `--help` an option stands, in this order; limits under their own."""
_ORDER = [None, *dict.fromkeys(PANELS.values())]


@dataclass(frozen=True)
class Call(Generic[T]):
    """An API function, and what was typed of its parameters."""

    function: Callable[..., T]
    arguments: dict[str, Any]
    trust: dict[str, Any] = field(default_factory=dict)
    """Of `vitedge.open`, and not of the function: what an artifact has to be to be opened, and may
    do then."""

    def opened(self, artifact: Any) -> OpenBundle:
        """The artifact, verified and, where that was typed, trusted. Raises InputError."""
        return api.open(artifact, **self.trust)

    def __call__(self, **others: Any) -> T:
        """Call it, with bars on a terminal; `others` go before what was typed."""
        if "progress" not in inspect.signature(self.function).parameters:
            return self.function(**{**self.arguments, **others})
        with steps(wording=command_line) as progress:
            return self.function(**{**self.arguments, **others, "progress": progress})

    def complete(self, *names: str) -> dict[str, Any]:
        """What the parameters are, defaults too, that are called for or, without `names`, all."""
        parameters = inspect.signature(self.function).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.name != "progress"}
        arguments = {**defaults, **self.arguments}
        return {name: arguments[name] for name in names or arguments}


def command(
    function: Callable[..., T],
    *,
    like: Callable[..., Any] | None = None,
    limits: Mapping[str, str] | None = None,
    opens: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of the API's `function`; what is decorated calls it and shows what came.

    That takes a Call and options of the command line alone. `like` is a function that explains
    parameters which `function` does not; `limits` are those of its `**limits`, and their help. With
    `opens`, the parameters of `vitedge.open` are options, too, and `Call.opened` has them.
    """

    def decorate(show: Callable[..., None]) -> Callable[..., None]:
        helps = (_helps(like) if like else {}) | _helps(function)
        own = list(inspect.signature(show).parameters.values())[1:]
        opening = list(_parameters(api.open, _helps(api.open), {}))[1:] if opens else []
        parameters = [*_parameters(function, helps, limits or {}), *(_own(p, show) for p in own)]

        def run(**typed: Any) -> None:
            options = {parameter.name: typed.pop(parameter.name) for parameter in own}
            given = {name: value for name, value in typed.items() if value is not None}
            trust = {p.name: given.pop(p.name) for p in opening if p.name in given}
            show(Call(function, given, trust), **options)

        run.__name__ = function.__name__
        run.__doc__ = (function.__doc__ or "").partition("Args:")[0].strip()
        parameters += opening
        parameters.sort(key=lambda parameter: _ORDER.index(PANELS.get(parameter.name)))
        vars(run)["__signature__"] = inspect.Signature(parameters)
        return run

    return decorate


def _parameters(
    function: Callable[..., Any], helps: Mapping[str, str], limits: Mapping[str, str]
) -> Iterator[Parameter]:
    """The function's parameters as typer takes them."""
    flags = [flag(name) for name in (*inspect.signature(function).parameters, *limits)]
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            for limit, text in limits.items():
                option = typer.Option(flag(limit), help=text, rich_help_panel="Limits")
                yield _keyword(limit, Annotated[float | None, option], None)
        elif name not in OTHERWISE:
            kind, least, most = _kind(_evaluated(parameter.annotation, function, TYPED))
            text = command_line(helps[name], flags).replace("[", r"\[")  # no markup of rich's
            many = get_origin(kind) is list
            info: Any
            if name in ARGUMENTS and parameter.kind is not Parameter.KEYWORD_ONLY:
                info = typer.Argument(help=text, show_default=False)
            else:
                info = typer.Option(
                    flag(name),
                    help=text,
                    min=least,
                    max=most,
                    show_default=not many and parameter.default is not None,
                    rich_help_panel=PANELS.get(name, "Limits" if limits else None),
                )
            info.autocompletion = _COMPLETIONS.get(name)
            required = parameter.default is Parameter.empty
            default = None if many and not required else parameter.default
            optional = kind | None if default is None else kind
            yield _keyword(name, Annotated[optional, info], default)


def _own(parameter: Parameter, show: Callable[..., None]) -> Parameter:
    """An option of the command line alone."""
    annotation = _evaluated(parameter.annotation, show, {})
    if annotation is typer.Context:
        return _keyword(parameter.name, annotation, Parameter.empty)
    (info,) = annotation.__metadata__
    info.rich_help_panel = PANELS.get(parameter.name)
    info.help = info.help.replace("[", r"\[")
    return _keyword(parameter.name, annotation, parameter.default)


def _keyword(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _evaluated(annotation: str, function: Callable[..., Any], names: dict[str, Any]) -> Any:
    """The type that `annotation` is, with `names` before those of the function's module."""
    return eval(annotation, {**vars(sys.modules[function.__module__]), **names})


def _kind(annotation: Any) -> tuple[Any, int | None, int | None]:
    """The one type beside None, and the bounds of a whole number."""
    if get_origin(annotation) is Annotated:
        kind, meta = get_args(annotation)
        return kind, meta.ge, meta.le
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is list or not kinds:
        return annotation, None, None
    return _kind(kinds[0])


def _helps(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each parameter."""
    _, _, arguments = (inspect.getdoc(function) or "").partition("Args:\n")
    entries = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in reversed(entries)}


def targets(incomplete: str) -> list[str]:
    """Names of targets that begin so, for shells that complete them."""
    from vitedge.core import catalog

    return [name for name in catalog.targets() if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Names of calibration recipes that begin so."""
    from vitedge.core import catalog

    return [name for name in catalog.calibrations() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Names of models that begin so."""
    from vitedge.models.zoo import ZOO

    return [name for name in ZOO if name.startswith(incomplete)]


_COMPLETIONS = {"targets": targets, "target": targets, "calibration": recipes, "model": models}
