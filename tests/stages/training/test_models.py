"""Detectors are built, filled and frozen as asked, and what can't be is said in one sentence."""

import json

import pytest
import torch
import torchvision
from torch import nn

from pipeline.errors import ConfigError
from stages.training import models, weights
from stages.training.models import ModelConfig

SMALL = ModelConfig(
    architecture="ssdlite",
    classes=("person", "car"),
    width=128,
    height=64,
    backbone="mobilenet_v2[:14]",
    width_mult=0.25,
    levels=3,
)


def with_classes(*classes):
    return ModelConfig.from_json({**SMALL.to_json(), "classes": list(classes)})


def targets(count):
    return [
        {"boxes": torch.tensor([[8.0, 8, 60, 40]]), "labels": torch.tensor([1])}
        for _ in range(count)
    ]


def test_config_survives_json():
    again = ModelConfig.from_json(json.loads(json.dumps(SMALL.to_json())))
    assert again == SMALL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "ssdlight"}, "did you mean 'ssdlite'"),
        ({"architecture": "yolov9"}, "wanted one of"),
        ({"backbone": None}, "needs a backbone"),
        ({"architecture": "fcos_resnet50_fpn"}, "has its own"),
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"width": 8}, "32..4096"),
        ({"colour": "rgb"}, "unexpected keyword"),
    ],
)
def test_bad_config_is_one_sentence(changes, words):
    with pytest.raises(ConfigError, match=words):
        ModelConfig.from_json({**SMALL.to_json(), **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "mobilnet_v2"}, "did you mean 'mobilenet_v2'"),
        ({"backbone": "mobilenet_v2[:99]"}, "within 1..19"),
        ({"backbone": "mobilenet_v2[:2]"}, "finer than first_stride 16"),
        ({"backbone": "resnet18", "width_mult": 0.5}, "width_mult"),
        ({"backbone": "vit_b_16", "width_mult": 1.0}, "backbone"),
        ({"architecture": "ssd300_vgg16", "backbone": None}, "take a larger one"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(changes, words):
    with pytest.raises(ConfigError, match=words):
        models.build(ModelConfig.from_json({**SMALL.to_json(), **changes}))


@pytest.mark.parametrize("architecture", ["ssd", "ssdlite", "fasterrcnn"])
@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5"])
def test_any_backbone_trains_at_any_size(architecture, backbone):
    config = ModelConfig(
        architecture=architecture, classes=("a",), width=96, height=128, backbone=backbone
    )
    torch.manual_seed(0)
    model = models.build(config)
    losses = model([torch.rand(3, 128, 96) for _ in range(2)], targets(2))
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_pictures_without_objects_train():
    model = models.build(SMALL)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model([torch.rand(3, 64, 128)], [nothing])
    assert torch.isfinite(sum(losses.values()))


@pytest.mark.parametrize("architecture", ["fcos_tiny", "fcos_resnet50_fpn"])
def test_every_seed_begins_with_boxes_that_learn(architecture):
    config = ModelConfig(architecture=architecture, classes=("person",), width=96, height=64)
    for seed in range(8 if architecture == "fcos_tiny" else 2):
        torch.manual_seed(seed)
        model = models.build(config)
        features = list(model.backbone(torch.randn(1, 3, 64, 96)).values())
        distances, _ = model.head.regression_head(features)  # (1, places, 4), after a ReLU
        assert (distances > 0).float().mean(dim=(0, 1)).min() > 0.9  # of each of the four sides


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ConfigError, match="128x64 px, got 100x100"):
        models.build(SMALL).eval()([torch.rand(3, 100, 100)])


def test_square_boxes_are_square_on_any_canvas():
    from stages.training.candidates import candidates

    anchors = candidates(models.build(SMALL), SMALL).anchors
    sides = anchors[:, 2:] - anchors[:, :2]
    assert torch.allclose(sides[0, 0], sides[0, 1], rtol=1e-4)


def test_labels_count_a_background_where_the_architecture_has_one():
    assert models.label_offset(SMALL) == 1
    named = ModelConfig(architecture="retinanet_resnet50_fpn", classes=("a",), width=64, height=64)
    assert models.label_offset(named) == 0


def test_frozen_norms_keep_their_statistics():
    model = models.build(ModelConfig.from_json({**SMALL.to_json(), "frozen_norms": True}))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.backbone.modules())


def test_stages_train_from_the_end():
    def trained(layers):
        model = models.build(SMALL, trainable_layers=layers)
        return [p.requires_grad for p in model.backbone.parameters()]

    some = trained(2)
    assert not some[0]
    assert some[-1]
    assert sum(trained(1)) < sum(some) < sum(trained(None))
    with pytest.raises(ConfigError, match="trainable_layers"):
        models.build(SMALL, trainable_layers=99)


class TestWeights:
    def test_a_state_dict_is_taken_as_it_is(self, tmp_path):
        model = models.build(SMALL)
        torch.save(model.state_dict(), tmp_path / "w.pth")
        again = models.build(SMALL, weights=tmp_path / "w.pth")
        for key, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key

    def test_rows_follow_the_names_of_classes(self, tmp_path):
        model = models.build(SMALL)
        state = {"model": model.state_dict(), "config": SMALL.to_json()}
        torch.save(state, tmp_path / "w.pt")
        config = with_classes("dog", "car", "person")
        again = models.build(config, weights=tmp_path / "w.pt")
        key = "head.classification_head.module_list.1.1.weight"
        old = model.state_dict()[key].view(6, 3, -1)
        new = again.state_dict()[key].view(6, 4, -1)
        assert torch.equal(new[:, 0], old[:, 0])  # background
        assert torch.equal(new[:, 2], old[:, 2])
        assert torch.equal(new[:, 3], old[:, 1])

    def test_swapped_classes_of_one_number_are_swapped(self, tmp_path):
        model = models.build(SMALL)
        state = {"model": model.state_dict(), "config": SMALL.to_json()}
        torch.save(state, tmp_path / "w.pt")
        again = models.build(with_classes("car", "person"), weights=tmp_path / "w.pt")
        key = "head.classification_head.module_list.0.1.bias"
        assert torch.equal(
            again.state_dict()[key].view(6, 3)[:, 1], model.state_dict()[key].view(6, 3)[:, 2]
        )

    def test_coco_rows_are_kept_for_classes_of_coco(self, tmp_path):
        coco = with_classes(
            *[f"{n}{i}" if n == "N/A" else n for i, n in enumerate(weights.COCO)][1:]
        )
        model = models.build(coco)
        torch.save(model.state_dict(), tmp_path / "w.pth")
        again = models.build(SMALL, weights=tmp_path / "w.pth")
        key = "head.classification_head.module_list.0.1.bias"
        old, new = model.state_dict()[key].view(6, 91), again.state_dict()[key].view(6, 3)
        assert torch.equal(new, old[:, [0, 1, weights.COCO.index("car")]])

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: with_classes("a", "b", "c"), "does not say which"),
            (
                lambda: ModelConfig.from_json({**SMALL.to_json(), "levels": 2}),
                "another architecture",
            ),
            (lambda: ModelConfig.from_json({**SMALL.to_json(), "width_mult": 0.5}), "shape"),
        ],
    )
    def test_foreign_weights_are_refused(self, make, words, tmp_path):
        torch.save(models.build(make()).state_dict(), tmp_path / "w.pth")
        with pytest.raises(ConfigError, match=words):
            models.build(SMALL, weights=tmp_path / "w.pth")

    def test_no_file_no_state_dict_no_such_name(self, tmp_path):
        with pytest.raises(ConfigError, match="no such file"):
            models.build(SMALL, weights=tmp_path / "none.pth")
        (tmp_path / "text.pth").write_text("hello")
        with pytest.raises(ConfigError, match="wanted a state dict"):
            models.build(SMALL, weights=tmp_path / "text.pth")
        with pytest.raises(ConfigError, match="torchvision has none for 'ssdlite'"):
            models.build(SMALL, weights="COCO_V1")
        named = ModelConfig(architecture="fcos_resnet50_fpn", classes=("a",), width=64, height=64)
        with pytest.raises(ConfigError, match="did you mean 'COCO_V1'"):
            models.build(named, weights="COCO_V2")

    def test_code_in_a_file_is_not_run(self, tmp_path):
        torch.save(nn.Linear(1, 1), tmp_path / "pickled.pth")
        with pytest.raises(ConfigError, match="does not"):
            models.build(SMALL, weights=tmp_path / "pickled.pth")

    def test_a_backbone_takes_weights_of_its_classifier(self, tmp_path):
        network = torchvision.models.mobilenet_v2(width_mult=0.25)
        torch.save(network.state_dict(), tmp_path / "b.pth")
        model = models.build(SMALL, backbone_weights=tmp_path / "b.pth")
        own = model.backbone.stages[0][0][0].weight
        assert torch.equal(own, network.features[0][0].weight)

    def test_a_named_detector_takes_weights_of_its_classifier(self, tmp_path):
        network = torchvision.models.mobilenet_v3_large(reduced_tail=True)
        torch.save(network.state_dict(), tmp_path / "b.pth")
        config = ModelConfig(
            architecture="ssdlite320_mobilenet_v3_large", classes=("a",), width=64, height=64
        )
        with pytest.raises(ConfigError, match="backbone 'mobilenet_v2'"):
            models.build(SMALL, backbone_weights=tmp_path / "b.pth")
        with pytest.raises(ConfigError, match="ssdlite320"):
            models.build(config, backbone_weights=tmp_path / "b.pth")
        full = torchvision.models.resnet50().state_dict()
        torch.save(full, tmp_path / "r.pth")
        named = ModelConfig(architecture="fcos_resnet50_fpn", classes=("a",), width=64, height=64)
        model = models.build(named, backbone_weights=tmp_path / "r.pth")
        assert torch.equal(model.backbone.body.conv1.weight, full["conv1.weight"])
