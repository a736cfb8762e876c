"""The walls between the parts: who may import what, and who knows of whom."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from source_tree import ROOT, code, inside, modules, none

TRAINING = "stages.training"

# Who may import a library, as module prefixes; a library that is not here is of the standard library,
# numpy, or one of ours.
OWNERS = {
    "zmq": ["pipeline.hop.transport"],
    "msgpack": ["pipeline.hop.codec"],
    "mmap": [
        "pipeline.host.memory",
        "pipeline.hop.pool",
        "stages.detector.archive",  # reads files, not pools
        "stages.detector.cuda",  # asks whether memory is a mapping
    ],
    "prometheus_client": [
        "pipeline.face.metrics",
        "pipeline.face.stage_metrics",
        "pipeline.fleet.scraping",
    ],
    "pydantic": [
        "pipeline.plan.config",
        "pipeline.plan.mistakes",
        "pipeline.plan.section",
        "pipeline.plan.fields",
        "pipeline.fleet.config",
        "stages.training.settings",
    ],
    "tomli_w": ["pipeline.fleet.config"],
    "ray": ["pipeline.fleet.ray_actors", "pipeline.fleet.ray_placement"],
    "sqlite3": ["stages.sinks.store", "stages.sinks.alarms"],
    "httpx2": ["stages.sinks.alarms.webhook"],
    "apprise": ["stages.sinks.alarms.notify"],
    "paho": ["stages.sinks.alarms.mqtt"],
    "typer": [
        "pipeline.face.cli",
        "pipeline.face.alert_commands",
        "pipeline.face.scene_commands",
        "pipeline.face.ctl_commands",
        "pipeline.face.fleet_commands",
        "pipeline.face.explain_commands",
        "pipeline.face.asked",
        "stages.training.commands",
        "stages.training.data_commands",
        "stages.training.model_commands",
        "stages.training.options",
    ],
    "rich": [
        "pipeline.face.alert_commands",
        "pipeline.face.cli",
        "pipeline.face.ctl_commands",
        "pipeline.face.fleet_commands",
        "pipeline.face.live",
        "pipeline.face.happened",
        "pipeline.face.tables",
        TRAINING,
    ],
    "torch": [
        "stages.inference",
        "stages.detector.engines",
        "stages.detector.cuda",
        "stages.detector.group_norm",
        "stages.detector.twin",
        TRAINING,
    ],
    "torchvision": ["stages.detector.engines", TRAINING],
    "onnxruntime": ["stages.detector", "stages.probe", TRAINING],
    "openvino": ["stages.detector.openvino_engine"],
    "onnx": ["stages.detector.folding", "stages.detector.torchvision_files", TRAINING],
    "onnxscript": [TRAINING],
    "cv2": ["stages"],
    "av": [
        "stages.capture",
        "stages.sinks",
        "stages.imaging.swscale",
        "stages.imaging.films",
        "stages.probe",
        TRAINING,
    ],
    "PIL": [
        "stages.capture.pictures",
        "stages.imaging.decoding",
        "stages.imaging.letterbox",
        TRAINING,
    ],
    "yaml": [TRAINING],
    "defusedxml": [TRAINING],
    "matplotlib": [TRAINING],
    "faster_coco_eval": [TRAINING],
    "tensorboard": [TRAINING],
    "transformers": ["stages.training.detr"],
    "scipy": ["stages.training.detr"],
    "trackers": ["stages.track.follower", "stages.track.stage"],
    "supervision": ["stages.track.follower"],
}
FREE = {"numpy", "pipeline", "stages", "__future__"} | set(sys.stdlib_module_names)
# What a stage may know of the runtime.
CONTRACT = {
    "pipeline.stage",
    "pipeline.runtime",
    "pipeline.messages",
    "pipeline.detections",
    "pipeline.clock",
    "pipeline.credentials",
    "pipeline.happenings",
    "pipeline.errors",
    "pipeline.redaction",
}
# The rooms of the runtime, from the lowest on; the contract lies beneath them all.
ROOMS = ["host", "accounts", "plan", "hop", "process", "supervision", "doctor", "fleet", "face"]
SHARED = ("stages.imaging", "stages.detector")
STAGE_BASES = {"Source", "Stage", "JoinStage", "BatchStage", "Sink"}
HEAVY = ("torch", "torchvision", "cv2", "av", "onnxruntime", "openvino", "trackers")
# No I/O and no clock: what they decide is tested without waiting.
PURE = (
    "accounts.arrivals", "accounts.tally", "fleet.agent", "fleet.controller", "fleet.leases",
    "fleet.planner", "hop.edge", "hop.slots", "process.motion",
    "process.schedule", "supervision.settling", "supervision.silence",
)  # fmt: skip
IMPURE = {
    "time",
    "os",
    "socket",
    "select",
    "random",
    "threading.Thread",
    "zmq",
    "subprocess",
    "logging",
}


def is_stage(module):
    return inside(module.name, ["stages"]) and any(
        isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id in STAGE_BASES for base in node.bases)
        for node in module.tree.body
    )


def online_stages():
    """But imaging, which may load cv2, and what torch runs: they are only imported from setup(), as
    the others show."""
    offline = [
        TRAINING,
        "stages.imaging",
        "stages.detector.cuda",
        "stages.detector.group_norm",
    ]
    return [m for m in code() if inside(m.name, ["stages"]) and not inside(m.name, offline)]


def test_only_its_owner_imports_a_library():
    none(
        f"{module.name}:{line} imports {library}; it belongs to {OWNERS.get(library, 'nobody yet')}"
        for module in code()
        for library, line in ((name.split(".")[0], line) for name, line in module.imports())
        if library not in FREE - OWNERS.keys() and not inside(module.name, OWNERS.get(library, []))
    )


def test_every_owner_exists():
    """A library that nobody imports any more leaves the table, and pyproject.toml."""
    used = {name.split(".")[0] for module in code() for name, _ in module.imports()}
    optional = {"tensorboard", "onnx", "onnxscript"}  # torch imports them for us
    assert OWNERS.keys() - used <= optional


def test_the_runtime_knows_no_stage():
    none(
        f"{module.name}:{line} imports {name}; load it by name"
        for module in modules("pipeline")
        for name, line in module.imports()
        if inside(name, ["stages"])
    )


def test_a_stage_knows_of_the_runtime_only_the_contract():
    none(
        f"{module.name}:{line} imports {name}; a stage may import {sorted(CONTRACT)}"
        for module in modules("stages")
        for name, line in module.imports()
        if inside(name, ["pipeline"]) and not inside(name, CONTRACT)
    )


def test_stages_never_import_each_other():
    stages = {module.name for module in code() if is_stage(module)}
    assert {"stages.preprocess", "stages.inference", "stages.render", "stages.capture.av"} <= stages
    none(
        f"{module.name}:{line} imports {name}"
        for module in code()
        if module.name in stages
        for name, line in module.imports()
        if inside(name, stages)
    )


def test_what_a_stage_shares_lies_in_imaging_or_detector_or_beside_it():
    none(
        f"{module.name}:{line} imports {name}"
        for module in modules("stages")
        for name, line in module.imports()
        if inside(name, ["stages"])
        and not inside(name, [*SHARED, ".".join(module.name.split(".")[:2])])
        and name not in SHARED
        and name.rpartition(".")[0] != "stages"  # `from stages import imaging`
    )


def room_of(name):
    """The subpackage of the runtime in which a module or what it defines lies; None: the contract."""
    parts = name.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 and parts[1] in ROOMS else None


def test_rooms_import_from_the_rooms_below_them_only():
    none(
        f"{module.name}:{line} imports {name}"
        for module in modules("pipeline")
        if module.name != "pipeline.__main__"  # the door of all of it
        for name, line in module.imports()
        if room_of(name)
        and (
            room_of(module.name) is None
            or ROOMS.index(room_of(module.name)) < ROOMS.index(room_of(name))
        )
    )


def test_modules_of_the_runtime_import_each_other_in_no_circle():
    ours = {module.name: module for module in modules("pipeline")}
    graph = {
        name: {
            target
            for found, _ in module.imports()
            for target in (found, found.rpartition(".")[0])
            if target in ours and target != name
        }
        for name, module in ours.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_page_on_the_architecture_tells_of_every_room_and_of_nothing_else():
    page = (ROOT / "docs/architecture.md").read_text()
    folders = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert set(ROOMS) == folders
    rows = re.findall(r"^\| `pipeline/(\w+)/` \|", page, re.MULTILINE)
    assert rows == ROOMS[::-1], "the table begins with the highest room"
    mentioned = set(re.findall(rf"`((?:{'|'.join(ROOMS)})/\w+)`", page))
    assert mentioned
    none(
        f"docs/architecture.md tells of {name}, which is not there"
        for name in mentioned
        if not (ROOT / "pipeline" / f"{name}.py").exists()
    )


def test_every_benchmark_answers_a_question_that_its_page_asks_or_serves_one_that_does():
    page = (ROOT / "benchmarks/README.md").read_text()
    ours = modules("benchmarks")
    served = {name for module in ours for name, _ in module.imports()}
    none(
        f"{module.name} is told of nowhere: delete it, or tell benchmarks/README.md what it answers"
        for module in ours
        if module.path.parent.name == "benchmarks"  # folders hold what these are made of
        and not module.path.stem.startswith("__")
        and not re.search(
            rf"{re.escape(module.name)}\b|^## {module.path.stem}:", page, re.MULTILINE
        )
        and not any(inside(name, [module.name]) for name in served)
    )


def test_training_is_offline():
    none(
        f"{module.name}:{line} imports {name}"
        for module in code()
        if not inside(module.name, [TRAINING])
        for name, line in module.imports()
        if inside(name, [TRAINING])
    )


@pytest.mark.parametrize("name", PURE)
def test_accounting_does_no_io_and_reads_no_clock(name):
    (module,) = (module for module in code() if module.name == f"pipeline.{name}")
    none(
        f"{name}:{line} imports {found}"
        for found, line in module.imports()
        if inside(found, IMPURE)
    )


@pytest.mark.parametrize("name", [m.name for m in online_stages()])
def test_the_wiring_reads_a_stage_without_loading_what_is_heavy(name):
    """In a fresh interpreter, as the supervisor and `manyeyes check` do."""
    run = subprocess.run(
        [sys.executable, "-c", f"import sys, {name}; print(*set({HEAVY}) & set(sys.modules))"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_the_supervisor_loads_nothing_heavy():
    check = f"import sys, pipeline.face.cli; print(*set({HEAVY}) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
