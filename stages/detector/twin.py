"""The twin: the same network as ONNX, which a TorchScript bundle carries for hosts where that is faster.

It is made when a bundle is made, and goes in only if it finds what the TorchScript form finds. What can't
have one is still a bundle; the reason is said once, and kept in `provenance["twin"]`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError, ModelError
from stages.detector import archive, engines, golden
from stages.detector.bundle import Facts
from stages.detector.engine import Engine, first_line

log = logging.getLogger(__name__)

Check = Callable[[Facts, Engine], None]


def add(bundle: Path, facts: Facts, write: Callable[[Path], None], check: Check) -> Facts:
    """Put a twin into the bundle, in place; returns the facts that are in it then.

    write: writes the ONNX file; check: raises where the loaded twin differs. What these two raise (of
    ManyeyesError) becomes a reason, and the bundle has no twin.
    """
    twin, whole = (bundle.with_name(f"{bundle.name}.{part}") for part in ("twin", "with-twin"))
    try:
        write(twin)
        paired = dataclasses.replace(facts, twin=archive.sha256(twin))
        archive.write_text(bundle, whole, paired.to_json(), twin)
        engine = engines.load(
            str(whole), paired, engine="onnx", device="cpu", precision="fp32", threads=0
        )
        check(paired, engine)
        whole.replace(bundle)
        return paired
    except ConfigError as error:
        log.warning("%s gets no ONNX form, TorchScript alone will run it: %s", facts.name, error)
        without = dataclasses.replace(
            facts, provenance={**facts.provenance, "twin": f"none: {error}"}
        )
        archive.write_text(bundle, whole, without.to_json())
        whole.replace(bundle)
        return without
    finally:
        for part in (twin, whole):
            part.unlink(missing_ok=True)


def of_script(path: str, facts: Facts) -> Callable[[Path], None]:
    """What `add` needs as `write`, for a traced model: torch has no other way from its file to ONNX."""

    def write(output: Path) -> None:
        import torch

        size = facts.input
        picture = (3, size.height, size.width)
        shape = {"nchw": (1, *picture), "nhwc": (1, *picture[1:], 3), "chw": picture}[size.order]
        example = torch.zeros(shape, dtype=getattr(torch, size.dtype))
        axes = {"images": {0: "batch"}} if max(facts.batch_sizes) > 1 else None
        try:
            with quiet():
                torch.onnx.export(
                    torch.jit.load(path, map_location="cpu").eval(),  # type: ignore[no-untyped-call]
                    (example,),
                    str(output),
                    dynamo=False,  # the one that takes scripts and traces
                    input_names=["images"],
                    dynamic_axes=axes,
                )
        except (
            Exception
        ) as error:  # of many classes, all with the text of a graph behind the first line
            raise ModelError(f"torch can't write it as ONNX: {first_line(error)}") from None

    return write


def finds_the_same(facts: Facts, engine: Engine) -> None:
    """What `add` needs as `check`: the golden record, and the same in batches of each size as alone."""
    if facts.golden is None:
        raise ModelError("it finds nothing in the golden picture, so nothing shows that both agree")
    golden.check(facts, engine)
    size = facts.input
    pixels = golden.pattern(max(facts.batch_sizes), size.height, size.width)
    alone = [tuple(a.copy() for a in engine.infer(picture[None])[0]) for picture in pixels]
    for batch in facts.batch_sizes[1:]:
        for i, arrays in enumerate(engine.infer(pixels[:batch])):
            for got, wanted in zip(arrays, alone[i], strict=True):
                if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=1e-3, atol=1e-2):
                    raise ModelError(f"picture {i} of a batch of {batch} differs from it alone")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch's exporters print, log and warn about their own steps and dependencies: nothing of ours."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
