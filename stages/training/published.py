"""The bundle of a published model: fetched, or given as a file, then built or imported, and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from stages.detector import archive, download, importing
from stages.detector.bundle import Facts, ResizeFacts
from stages.detector.zoo import Entry

log = logging.getLogger(__name__)

PICTURES = 6  # rendered scenes, for the parity gate


def get(
    entry: Entry,
    given: Path | None = None,
    *,
    progress: download.Progress = lambda *_: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Facts:
    """Make `entry.bundle`. Takes seconds to minutes; runs the model.

    given: its file; None: the one in the cache's folder of downloads, or else from the network.
    Raises ConfigError in one sentence: no network and no file, a file that is no such model.
    """
    file = given or entry.download
    if not file.is_file():
        if given is not None:
            raise ConfigError(f"--from {given}: there is no such file")
        _fetch(entry, progress)
    digest = archive.sha256(file)
    is_published = bool(entry.sha256) and digest.startswith(entry.sha256)
    about: dict[str, Any] = {"zoo": entry.name, "source": file.name, "source_sha256": digest}
    if is_published or not entry.sha256:
        about |= {"licence": entry.licence, "url": entry.url}
        if entry.ap is not None:
            about["coco_ap"] = entry.ap
    else:
        tell(
            f"{file}: its sha256 does not begin with {entry.sha256}, as that of the published file does: "
            "it is taken as yours, without a licence and an AP"
        )
    entry.bundle.parent.mkdir(parents=True, exist_ok=True)
    recipe = dict(entry.recipe)
    tell(f"making {entry.bundle} of it, and comparing both …")
    if "torchvision" in recipe:
        return _of_torchvision(entry, file, about)
    return importing.import_model(
        str(file), str(entry.bundle), name=entry.name, provenance=about, **recipe
    )


def _fetch(entry: Entry, progress: download.Progress) -> None:
    try:
        download.fetch(entry.url, entry.download, entry.sha256, progress)
    except download.Unreachable as error:
        raise ConfigError(
            f"model '{entry.name}': {entry.url} can't be fetched ({error}); fetch it elsewhere "
            f"({entry.size_mb}) and put it at {entry.download}, or name it: "
            f"manyeyes model get {entry.name} --from FILE (--model demo runs without, and knows rendered "
            "scenes alone)"
        ) from None


def _of_torchvision(entry: Entry, file: Path, about: dict[str, Any]) -> Facts:
    from stages.imaging.scenes import still
    from stages.training import export, models, weights

    width, height = importing.parse_size(entry.recipe["size"])
    config = models.ModelConfig(
        architecture=entry.recipe["torchvision"],
        classes=importing.COCO80,
        width=width,
        height=height,
    )
    model = models.build(config)
    weights.load(model, config.architecture, models.names(config), file, published=True)
    return export.export(
        model,
        config,
        output=entry.bundle,
        pictures=[still(5, i, (640, 360))[0] for i in range(PICTURES)],
        name=entry.name,
        resize=ResizeFacts(mode=entry.recipe["resize"]),
        provenance=about,
    )
