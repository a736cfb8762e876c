"""Model files on disk: find the facts inside, put facts in, hash; nothing in them is ever run.

TorchScript is a zip; the facts are its entry `<archive>/extra/manyeyes.json`, and the same network as
ONNX, its twin, is the entry `manyeyes.onnx` beside them. ONNX is one protobuf message (ModelProto,
onnx.proto); the facts are an entry of `metadata_props`, its field 14. Both are read and written here
byte by byte, so that no stage imports torch or onnx for it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError, ModelError

ENTRY = "manyeyes.json"
TWIN = "manyeyes.onnx"
MAX_FACTS_BYTES = 1 << 20
_METADATA_PROPS = 14  # field of ModelProto: repeated StringStringEntryProto {1: key, 2: value}
_GRAPH = 7  # field of ModelProto: what makes it a model
_IMPORT = "`manyeyes model import` makes a bundle of a model"


def kind_of(path: str | Path) -> Literal["torchscript", "onnx"]:
    """What a model file is, by its content. Raises ModelError: missing, or neither of the two."""
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"{path}: no such model file; check the path of the model")
    try:
        with file.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise ModelError(f"{path}: the model file cannot be read: {error.strerror}") from None
    if head.startswith(b"PK\x03\x04"):
        with _zip(path) as archive:
            _archive_name(archive, path)
        return "torchscript"
    try:
        with _mapped(path) as data:
            is_onnx = _GRAPH in {number for number, _, _ in _fields(data)}  # to the end of the file
    except ValueError:  # no protobuf, or nothing to map
        is_onnx = False
    if not is_onnx and len(head) == 8 and head[4:] == b"TFL3":
        raise ModelError(
            f"{path}: a TFLite model, which no engine here runs; export it as ONNX, where it was trained"
        )
    if not is_onnx:
        raise ModelError(
            f"{path}: wanted a TorchScript archive (torch.jit.save) or an ONNX file, got neither; "
            "a checkpoint of weights has to be exported first: `manyeyes export`"
        )
    return "onnx"


def carries_facts(path: str | Path) -> bool:
    """Whether a model file is a bundle. Raises ModelError: it is no model."""
    kind = kind_of(path)
    return any(True for _ in (_zip_facts(path) if kind == "torchscript" else _onnx_facts(path)))


def read_text(path: str | Path) -> str:
    """The JSON text of the facts in a bundle; raises ModelError if it has none, or is no model."""
    kind = kind_of(path)
    found = list(_zip_facts(path) if kind == "torchscript" else _onnx_facts(path))
    if not found:
        raise ModelError(f"{path}: this {kind} file carries no facts ({ENTRY}); {_IMPORT}")
    if len(found) > 1:
        raise ModelError(f"{path}: wanted one {ENTRY}, got {len(found)}; {_IMPORT}")
    try:
        return found[0].decode()
    except UnicodeDecodeError:
        raise ModelError(f"{path}: {ENTRY} is not UTF-8; {_IMPORT}") from None


def read_twin(path: str | Path, digest: str) -> bytes:
    """The ONNX form in a TorchScript bundle. Raises ModelError: there is none, or not of this sha256."""
    with _zip(path) as archive:
        found = [info for info in archive.infolist() if _is_extra(info, TWIN)]
        if len(found) != 1:
            raise ModelError(f"{path}: wanted one {TWIN} in it, got {len(found)}; export it again")
        data = archive.read(found[0])
    got = hashlib.sha256(data).hexdigest()
    if got != digest:
        raise ModelError(
            f"{path}: its ONNX form must have the sha256 {digest}, got {got}: it is that of another "
            "model; export it again"
        )
    return data


def write_text(
    source: str | Path, output: str | Path, text: str, twin: str | Path | None = None
) -> None:
    """Copy a model with these facts inside, in place of any that it has. Appears whole or not at all.

    twin: an ONNX file that goes into a TorchScript archive, in place of any; None: that one stays.
    Raises ModelError (source is no model), ConfigError (output is not writable).
    """
    kind = kind_of(source)
    part = Path(f"{output}.part-{os.getpid()}")
    try:
        if kind == "torchscript":
            _write_zip(source, part, text.encode(), twin)
        else:
            _write_onnx(source, part, text.encode())
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(output)
    except OSError as error:
        raise ConfigError(
            f"{output}: the bundle cannot be written: {error.strerror}; choose another folder"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Hash of the file, 64 hex digits. Raises ModelError if it cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: the model file cannot be read: {error.strerror}") from None


def check_sums(path: str | Path) -> None:
    """Raise ModelError unless every entry of a TorchScript archive has the CRC-32 that it says.

    torch.jit.load does not look. Reads the whole file: 0.3 to 0.7 ms a MB, measured on 10 and 180 MB.
    """
    with _zip(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ModelError(
            f"{path}: the archive is damaged ('{damaged}' does not have its checksum); copy or export "
            "it again"
        )


@contextmanager
def _zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ModelError(
            f"{path}: the archive is damaged or cut short ({error}); copy or export it again"
        ) from None


def _archive_name(archive: zipfile.ZipFile, path: str | Path) -> str:
    """Every entry of a TorchScript archive lies below one folder, which holds constants.pkl."""
    names = archive.namelist()
    roots = [name.split("/")[0] for name in names if name.endswith("/constants.pkl")]
    if len(roots) != 1 or not any(name.startswith(f"{roots[0]}/code/") for name in names):
        raise ModelError(
            f"{path}: wanted a TorchScript archive (torch.jit.save), got another zip file; "
            "a checkpoint (torch.save) has to be exported first: `manyeyes export`, or, for one of "
            f"Ultralytics, yolo export model={Path(path).name} format=onnx"
        )
    return roots[0]


def _is_extra(info: zipfile.ZipInfo, *names: str) -> bool:
    return info.filename.partition("/")[2] in {f"extra/{name}" for name in names}


def _zip_facts(path: str | Path) -> Iterator[bytes]:
    with _zip(path) as archive:
        for info in archive.infolist():
            if _is_extra(info, ENTRY):
                _check_size(info.file_size, path)
                yield archive.read(info)


def _write_zip(source: str | Path, part: Path, text: bytes, twin: str | Path | None) -> None:
    with _zip(source) as archive:
        folder = f"{_archive_name(archive, source)}/extra"
        new = (ENTRY,) if twin is None else (ENTRY, TWIN)
        old = [info for info in archive.infolist() if _is_extra(info, *new)]
        if old:
            with zipfile.ZipFile(part, "w") as out:
                for info in archive.infolist():
                    if info not in old:
                        out.writestr(info, archive.read(info))
        else:
            shutil.copyfile(source, part)
    with zipfile.ZipFile(
        part, "a"
    ) as out:  # ZipInfo: a fixed date, so the same facts, the same bytes
        out.writestr(zipfile.ZipInfo(f"{folder}/{ENTRY}"), text)
        if twin is not None:
            entry = zipfile.ZipInfo(f"{folder}/{TWIN}")
            with Path(twin).open("rb") as stream, out.open(entry, "w", force_zip64=True) as into:
                shutil.copyfileobj(stream, into)


@contextmanager
def _mapped(path: str | Path) -> Iterator[mmap.mmap]:
    with Path(path).open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            yield data


def _onnx_facts(path: str | Path) -> Iterator[bytes]:
    with _mapped(path) as data:
        for number, start, end in _fields(data):
            if number == _METADATA_PROPS and end - start <= MAX_FACTS_BYTES + 64:
                entry = data[start:end]
                pair = {key: entry[low:high] for key, low, high in _fields(entry)}
                if pair.get(1) == ENTRY.encode():
                    _check_size(len(pair.get(2, b"")), path)
                    yield pair.get(2, b"")


def _write_onnx(source: str | Path, part: Path, text: bytes) -> None:
    """A repeated field may lie anywhere in a protobuf message: drop the old ones, append the new."""
    key = ENTRY.encode()
    pair = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(text)) + text
    with _mapped(source) as data, part.open("wb") as out:
        done = 0
        for number, start, end in _fields(data):
            head = data[start : min(end, start + 64)]
            if number != _METADATA_PROPS or not head.startswith(b"\x0a" + _varint(len(key)) + key):
                out.write(data[done:end])
            done = end
        out.write(_varint(_METADATA_PROPS << 3 | 2) + _varint(len(pair)) + pair)


def _fields(data: bytes | mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end of its value) of a protobuf message; ValueError if it is none."""
    at, size = 0, len(data)
    while at < size:
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        start = at
        if wire == 0:
            _, at = _read_varint(data, at)
        elif wire == 1:
            at += 8
        elif wire == 2:
            length, start = _read_varint(data, at)
            at = start + length
        elif wire == 5:
            at += 4
        else:
            raise ValueError(f"wire type {wire}")
        if number == 0 or at > size:
            raise ValueError("no protobuf message")
        yield number, start, at


def _read_varint(data: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("no varint")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _check_size(n_bytes: int, path: str | Path) -> None:
    if n_bytes > MAX_FACTS_BYTES:
        raise ModelError(f"{path}: {ENTRY} must be at most 1 MiB, got {n_bytes} bytes; {_IMPORT}")
