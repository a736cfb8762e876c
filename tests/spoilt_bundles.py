"""Fifty ways to spoil a bundle. Each takes a path and changes the file."""

import io
import json
import zipfile

import torch
from torch import nn

from stages.detector import archive


def facts_with(**changes):
    """Change values by their path, "input.color"; a callable gets the old value."""

    def spoil(path):
        table = json.loads(archive.read_text(path))
        for key, value in changes.items():
            *parents, last = key.split("__")
            inner = table
            for parent in parents:
                inner = inner[parent]
            inner[last] = value(inner[last]) if callable(value) else value
        archive.write_text(path, path, json.dumps(table))

    return spoil


def facts_without(key):
    def spoil(path):
        table = json.loads(archive.read_text(path))
        del table[key]
        archive.write_text(path, path, json.dumps(table))

    return spoil


def weights(change):
    """`change` gets the scripted module; the facts stay."""

    def spoil(path):
        text = archive.read_text(path)
        module = torch.jit.load(str(path))
        with torch.no_grad():
            change(module)
        save(module, path, text)

    return spoil


def save(module, path, text):
    buffer = io.BytesIO()
    torch.jit.save(module, buffer, _extra_files={"manyeyes.json": text})
    path.write_bytes(buffer.getvalue())


class Around(nn.Module):
    """The model with its outputs changed."""

    def __init__(self, inner: nn.Module, how: str) -> None:
        super().__init__()
        self.inner = inner
        self.how = how

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        boxes, scores, labels = self.inner(x)
        if self.how == "order":
            return scores, boxes, labels
        if self.how == "xywh":
            boxes = torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)
        if self.how == "yxyx":
            boxes = torch.stack([boxes[..., i] for i in (1, 0, 3, 2)], dim=-1)
        if self.how == "shares":
            boxes = boxes / 96
        if self.how == "from 1":
            labels = labels + 1
        if self.how == "logits":
            scores = torch.logit(scores)
        if self.how == "nan":
            scores = scores * float("nan")
        if self.how == "one picture":
            return boxes[:1], scores[:1], labels[:1]
        if self.how == "flat":
            boxes = boxes.flatten(1)
        if self.how == "cuda":
            scores = scores + torch.ones(1, device=torch.device("cuda:0"))
        if self.how == "first of batch":
            scores = scores[:1].expand_as(scores)
        return boxes, scores, labels


def outputs(how):
    def spoil(path):
        text = archive.read_text(path)
        save(torch.jit.script(Around(torch.jit.load(str(path)), how)), path, text)

    return spoil


def file(change):
    """`change` maps the bytes of the file to others."""

    def spoil(path):
        path.write_bytes(change(path.read_bytes()))

    return spoil


def flip_an_exponent(module):
    parameter(FIRST)(module).view(torch.int32).view(-1)[0] ^= 1 << 30


def parameter(part):
    def find(module):
        found = [p for n, p in module.named_parameters() if part in n]
        return found[0]

    return find


def scale(part, factor):
    return weights(lambda m: parameter(part)(m).mul_(factor))


def swap_class_rows(module):
    for name, p in module.named_parameters():
        if "classification_head" in name and len(p) % 4 == 0 and ".1." in name:
            rows = p.view(-1, 4, *p.shape[1:])
            rows[:, [1, 2]] = rows[:, [2, 1]].clone()


def shift(buffer, by):
    return weights(lambda m: dict(m.named_buffers())[buffer].add_(by))


def noise(module):
    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.mul_(1 + 0.02 * torch.randn(p.shape, generator=generator))


def a_stored_bit(path):
    """On the disk, behind torch's back: too little for any golden test."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archived:
        largest = max(archived.infolist(), key=lambda info: info.file_size)
    name = largest.filename.encode()
    start = data.index(name, largest.header_offset) + len(name)
    start += int.from_bytes(data[largest.header_offset + 28 :][:2], "little")  # the extra field
    data[start + 4 * 10] ^= 1  # little-endian: the last bit of the eleventh float
    path.write_bytes(data)


def twice(path):
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("other/extra/manyeyes.json", "{}")


def other_text(text):
    return lambda path: archive.write_text(path, path, text)


FIRST = "net.backbone.stages.0"
SPOILT = {
    "classes swapped": facts_with(classes=lambda c: [c[1], c[0], c[2]]),
    "classes reversed": facts_with(classes=lambda c: c[::-1]),
    "classes rotated": facts_with(classes=lambda c: c[1:] + c[:1]),
    "a class renamed": facts_with(classes=lambda c: [*c[:2], "dog"]),
    "a class too few": facts_with(classes=lambda c: c[:2]),
    "a class in front": facts_with(classes=lambda c: ["background", *c]),
    "a class twice": facts_with(classes=lambda c: [c[0], c[0], c[2]]),
    "no classes": facts_with(classes=[]),
    "colours swapped": facts_with(input__color="bgr"),
    "colours unknown": facts_with(input__color="hsv"),
    "scaled to 1": facts_with(input__dtype="float32", input__scale=1 / 255),
    "mean taken off": facts_with(input__dtype="float32", input__mean=[123.0, 116.0, 103.0]),
    "divided by std": facts_with(input__dtype="float32", input__std=[58.0, 57.0, 57.0]),
    "scale with uint8": facts_with(input__scale=0.5),
    "sides swapped": facts_with(input__width=64, input__height=96),
    "half the size": facts_with(input__width=48, input__height=32),
    "wider": facts_with(input__width=128),
    "no size": facts_with(input__width=0),
    "stretched": facts_with(resize__mode="stretch"),
    "top left": facts_with(resize__align="top-left"),
    "black bars": facts_with(resize__pad=0),
    "white bars": facts_with(resize__pad=255),
    "no grey": facts_with(resize__pad=300),
    "nearest": facts_with(resize__interpolation="nearest"),
    "area": facts_with(resize__interpolation="area"),
    "cubic": facts_with(resize__interpolation="cubic"),
    "layout yolox": facts_with(layout="yolox"),
    "layout yolox-raw": facts_with(layout="yolox-raw"),
    "layout ultralytics": facts_with(layout="ultralytics"),
    "layout torchvision": facts_with(layout="torchvision"),
    "layout unknown": facts_with(layout="detr"),
    "labels from 1 in the facts": facts_with(label_offset=1),
    "later format": facts_with(format=2),
    "unknown key": facts_with(colour="rgb"),
    "no batch size": facts_with(batch_sizes=[]),
    "threshold in percent": facts_with(defaults__score_threshold=35),
    "no input": facts_without("input"),
    "golden of a later build": facts_with(golden__generator="v2"),
    "golden empty": facts_with(golden__picture=[]),
    "golden damaged": facts_with(golden__pattern=[[{"label": "car"}], []]),
    "not JSON": other_text("hello"),
    "facts twice": twice,
    "facts of 2 MiB": other_text(" " * (2 << 20) + "{}"),
    "a kernel doubled": scale(FIRST, 2.0),
    "a kernel negated": scale(FIRST, -1.0),
    "a kernel lost": scale("regression_head", 0.0),
    "class rows swapped": weights(swap_class_rows),
    "a bit of a weight flipped": weights(flip_an_exponent),
    "all weights noisy": weights(noise),
    "anchors moved": shift("anchors", 2.0),
    "mean changed": shift("normalise.mean", 0.05),
    "std changed": shift("normalise.std", 0.05),
    "outputs in another order": outputs("order"),
    "boxes as xywh": outputs("xywh"),
    "boxes as yxyx": outputs("yxyx"),
    "boxes as shares": outputs("shares"),
    "labels from 1": outputs("from 1"),
    "scores as logits": outputs("logits"),
    "scores not a number": outputs("nan"),
    "batch of one baked in": outputs("one picture"),
    "batch mates mixed up": outputs("first of batch"),
    "boxes flat": outputs("flat"),
    "device baked in": outputs("cuda"),
    "golden taken out": facts_without("golden"),
    "the last bit of a stored weight flipped": a_stored_bit,
    "cut in half": file(lambda data: data[: len(data) // 2]),
    "cut at the end": file(lambda data: data[:-100]),
    "an index damaged": file(lambda data: data[:-2000] + b"?" * 1000 + data[-1000:]),
    "empty": file(lambda data: b""),
    "text": file(lambda data: b"hello"),
}
