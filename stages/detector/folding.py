"""ONNX files whose weights lie in a second file beside them become one file, so that a bundle is whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError, ModelError
from stages.detector.engine import first_line

BESIDE = (".data", "_data")  # model.onnx.data of torch, model.onnx_data of optimum


@contextmanager
def whole(path: str) -> Iterator[str]:
    """The path of a file with everything inside: this one, or a copy that lives as long as the context.

    Raises ConfigError (the package onnx is not installed), ModelError (the weights are damaged).
    """
    if not any(Path(f"{path}{suffix}").is_file() for suffix in BESIDE):
        yield path
        return
    try:
        import onnx
    except ImportError:
        raise ConfigError(
            f"{path}: its weights lie in a file beside it, and to put both into one needs onnx, which is "
            "not installed; pip install 'manyeyes[onnx]'"
        ) from None
    with tempfile.TemporaryDirectory(prefix="manyeyes-import-") as folder:
        copy = Path(folder) / Path(path).name
        try:
            onnx.save(onnx.load(path), copy)
        except Exception as error:  # of protobuf, of onnx and of the file system
            raise ModelError(
                f"{path}: it can't be joined with the weights beside it: {first_line(error)}; export it "
                "again"
            ) from None
        yield str(copy)
