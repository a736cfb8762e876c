"""What no right model does is refused when it is imported."""

import pytest
import torch
from spots import SPOTS, Spots, constant_onnx, traced

from pipeline.errors import ModelError
from stages.detector.importing import import_model


def logits(boxes, scores):
    return torch.cat([boxes, 30 * scores - 15], dim=1)


def shares(boxes, scores):
    return torch.cat([boxes / 64, scores], dim=1)


def flooded(boxes, scores):
    return torch.cat([boxes, 0 * scores + 0.9], dim=1)


def rows(boxes, scores):
    """(B, N, 6) of centre and size."""
    best, labels = scores.max(dim=1, keepdim=True)
    return torch.cat([boxes, best, labels], dim=1).transpose(1, 2)


def one_class(boxes, scores):
    """(B, N, 6): centre, size, objectness, class."""
    return torch.cat([boxes, scores[:, :1], 0.5 * scores[:, 1:]], dim=1).transpose(1, 2)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (logits, r"scores must be within 0..1, got -15..[-\d.]+: they are logits"),
        (shares, "boxes must be in pixels of the input, got all within .*shares of the picture"),
        (flooded, "100% of all its predictions have a score above 0.35"),
        (rows, "got some with x2 < x1 or y2 < y1: they are centre and size"),
        (one_class, "labels are no whole numbers"),
    ],
)
def test_what_no_right_model_does_is_refused(spoil, says, tmp_path):
    path = traced(tmp_path / "m.pt", Spots(spoil))
    with pytest.raises(ModelError, match=says):
        import_model(path, str(tmp_path / "m.bundle"), **SPOTS)
    assert not (tmp_path / "m.bundle").exists()


def test_a_batch_counts_only_if_each_of_it_is_as_alone(tmp_path):
    def first_alone(boxes, scores):
        seen = torch.cat([boxes, scores], dim=1)
        return torch.cat([seen[:1], 0 * seen[1:]])

    path = traced(tmp_path / "m.pt", Spots(first_alone))
    facts = import_model(path, str(tmp_path / "m.bundle"), **SPOTS)
    assert facts.batch_sizes == (1,)


def test_how_a_model_takes_more_than_one_picture_is_said(tmp_path):
    told = []
    path = constant_onnx(
        tmp_path / "m.onnx", (torch.float32, [1, 3, 64, 64]), torch.rand(1, 84, 7) * 0.6
    )
    import_model(path, str(tmp_path / "m.bundle"), classes="a,b", tell=told.append)
    [line] = [line for line in told if line.startswith("it takes one picture at a time")]
    assert "dynamic=True" in line
