"""What the offline commands have in common: options, data sets that are loaded, packages that lack."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from pipeline.errors import ConfigError
from stages.training import terminal

if TYPE_CHECKING:
    from stages.training.datasets import DataSet

Data = Annotated[Path, typer.Argument(metavar="DATA", help="a data set: its folder or its file")]
Output = Annotated[Path, typer.Option("-o", "--output", help="a new folder")]
Split = Annotated[str | None, typer.Option(help="train, val, test, …; none: everything")]
Format = Annotated[
    str | None,
    typer.Option(help="coco, voc, cvat, openimages, csv, labelme or yolo; none: found by looking"),
]
Strict = Annotated[bool, typer.Option(help="any problem of the data is an error")]
Classes = Annotated[str | None, typer.Option(help="only these, a,b,c; none: all of the data set")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
Size = Annotated[
    str | None, typer.Option(help="of the model's input, 320 or 320x192; none: chosen")
]
Tiles = Annotated[
    str | None,
    typer.Option(help="columns and rows of parts that a picture is looked at in, too: 3x2"),
]

_EXTRAS = {
    **dict.fromkeys(("defusedxml", "faster_coco_eval", "matplotlib", "PIL", "yaml"), "train"),
    **dict.fromkeys(("transformers", "scipy"), "detr"),
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
}
_F = TypeVar("_F", bound=Callable[..., None])


def command(group: typer.Typer, name: str, path: str = "") -> Callable[[_F], _F]:
    """As `group.command`; a package that is not installed becomes one sentence.

    Threads of PyTorch that wait for one another sleep: on cores that others use, too, spinning takes the
    time of those they wait for. Beside two busy processes a step of fcos_tiny takes 0.5 to 1.3 s, not 0.7
    to 9 s.
    """

    def add(function: _F) -> _F:
        @functools.wraps(function)
        def checked(*args: Any, **options: Any) -> None:
            os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when PyTorch is imported
            try:
                function(*args, **options)
            except ModuleNotFoundError as error:
                extra = _EXTRAS.get((error.name or "").partition(".")[0])
                if extra is None:
                    raise
                raise ConfigError(
                    f"{path or name} needs {error.name}, which is not installed; "
                    f"pip install 'manyeyes[{extra}]'"
                ) from error

        group.command(name)(checked)
        return function

    return add


def given(context: typer.Context) -> dict[str, Any]:
    """The options and arguments that the user wrote, without those that are left to their defaults."""
    return {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def load_data(
    path: Path,
    split: str | None,
    format: str | None,
    strict: bool,
    classes: str | None = None,
    *,
    quiet: bool = False,
) -> DataSet:
    """A data set; what is wrong with it is told, unless `quiet`."""
    how = {"path": str(path), "split": split, "format": format, "strict": strict}
    return load_part(how, None if classes is None else classes.split(","), quiet=quiet)


def load_part(
    how: dict[str, Any], classes: Any = None, *, lenient: bool = False, quiet: bool = False
) -> DataSet:
    """The data set that a plan names, with the classes of its model."""
    from stages.training import datasets, labels
    from stages.training.formats import summary

    split = None if how["split"] == "all" else how["split"]
    with Console(stderr=True, quiet=terminal.silent()).status(f"reading {how['path']}"):
        dataset = datasets.load(
            how["path"], split=split, format=how["format"], strict=how["strict"]
        )
    if not (quiet or terminal.silent()):
        for line in summary(dataset.problems):
            terminal.note(line)
    return dataset if classes is None else labels.only(dataset, classes, lenient=lenient)
