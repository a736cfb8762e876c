"""Which file the model of a run is: a path, or a name of the list of models.

Where neither is said, real cameras get a small detector of the list, and rendered ones the carried demo
model, which knows rendered scenes alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ModelNotHere
from pipeline.plan.loading import load

BUNDLE_OF = "stages.detector.zoo:bundle_of"
IMPORTED = "stages.detector.zoo:imported"
DEFAULT = "stages.detector.zoo:DEFAULT"
DEMO = "demo"


def given(model: str | Path) -> dict[str, Any]:
    """What `--model` means as a table of `[model]`: a file, or what is none and can be a name."""
    is_path = Path(model).exists() or "/" in str(model) or Path(model).suffix
    return {"path": str(Path(model).absolute())} if is_path else {"name": str(model)}


def model_path(model: str | Path) -> Path:
    """The file of a path or a name. Raises ConfigError; ModelNotHere for a name that has to be fetched."""
    table = given(model)
    if "name" in table:
        return by_name(table["name"])
    path = Path(table["path"])
    return ready(path) if path.is_file() else path


def by_name(name: str) -> Path:
    """The bundle that a name stands for. Raises as `model_path`."""
    bundle: Path = load(BUNDLE_OF)(name)
    if not bundle.is_file():
        raise ModelNotHere(
            f"model {name!r} is not here yet; `manyeyes model get {name}` fetches it (the model 'demo' is "
            "here, and knows rendered scenes alone)",
            "get", name,
        )  # fmt: skip
    return bundle


def of(path: Path | None, name: str | None, rendered: bool, file: str, folder: Path) -> Path:
    """The model of a configuration; file and folder: where that is from. Raises ConfigError.

    rendered: all cameras are, so that the demo model is the one where none is named.
    """
    if path is not None and name is not None:
        raise ConfigError(f"{file}: [model]: path and name are both there; write one of them")
    if name is not None or path is None:
        return by_name(name or (DEMO if rendered else load(DEFAULT)))
    return _existing(folder / path, f"{file}: [model]: path")


def there(model: Path, where: str, folder: Path) -> Path:
    """The model of a camera, a path or a name. Raises ConfigError that begins with `where`."""
    if not (folder / model).exists() and "name" in given(model):
        return by_name(str(model))
    return _existing(folder / model, where)


def _existing(path: Path, where: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {str(path)!r}; correct the path")
    return ready(path)


def ready(path: Path) -> Path:
    """The bundle of a model file: itself, or what was made of a file without facts, kept by its hash.

    Raises ModelNotHere where the second was not made yet.
    """
    bundle: Path = load(IMPORTED)(path)
    if not bundle.is_file():
        raise ModelNotHere(
            f"{path}: it carries no facts; `manyeyes model import {path} -o NAME.bundle` makes it a bundle",
            "import", str(path), "-o", str(bundle),
        )  # fmt: skip
    return bundle


def demo_model() -> Path:
    """Where the model lies that manyeyes carries."""
    return by_name(DEMO)
