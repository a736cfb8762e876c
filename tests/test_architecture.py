"""The walls between the parts: who may import what, what nobody may call, and how long a part may be."""

import ast
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAINING = "stages.training"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60  # without its docstring: contracts may be as long as they must

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
UNSAFE_MODULES = {  # tests may, to make the files that we must refuse
    "pickle": "a file or message that is unpickled runs the code in it",
    "marshal": "as pickle",
    "shelve": "as pickle",
}
BANNED_MODULES = {
    "multiprocessing": "one killed waiter poisons its locks for all",
    "unittest.mock": "we test with the real thing",
}
BANNED_CALLS = {"os.fork", "os.forkpty", "pty.fork", "os.system", "os.popen"}
# Wall time is a label, never a deadline, so that a clock that is set back stops nothing.
WALL_CLOCK = re.compile(r"^(time\.time(_ns)?|datetime(\.datetime)?\.(now|utcnow|today))$")
LABELS = {
    "stages.health.stage",
    "stages.sinks.store.minutes",
    "stages.sinks.alarms.age",
    "pipeline.process.source",
    "pipeline.face.moments",
    "stages.training.annotate",
}
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


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    def imports(self, *, top_only=False):
        """(dotted name, line) of everything imported; `from a import b` gives a.b."""
        nodes = self.tree.body if top_only else ast.walk(self.tree)
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}:{node.lineno}: relative import"
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def names(self):
        """(dotted name, node) of every attribute access on a plain name, and of every plain name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                try:
                    yield ast.unparse(node), node
                except ValueError:
                    continue


@cache
def modules(*packages):
    found = []
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    assert len(found) > 20
    return found


def code():
    return modules("pipeline", "stages")


def inside(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def none(findings):
    assert not (lines := list(findings)), "\n" + "\n".join(lines)


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


def test_nobody_uses_what_is_banned():
    everywhere = [
        module
        for module in modules("pipeline", "stages", "benchmarks", "tests")
        if not inside(module.name, ["benchmarks.peers"])  # they do as our rivals do
    ]
    none(
        f"{module.name}:{line} imports {name}: {reason}"
        for module in everywhere
        for name, line in module.imports()
        for banned, reason in (BANNED_MODULES | UNSAFE_MODULES).items()
        if inside(name, [banned])
        and not (banned in UNSAFE_MODULES and inside(module.name, ["tests"]))
        and not _is_catching(module, name)
    )
    none(
        f"{module.name}:{node.lineno} names {name}"
        for module in everywhere
        for name, node in module.names()
        if name in BANNED_CALLS
    )


def _is_catching(module, name):
    """torch.load raises pickle.UnpicklingError; who catches it has to name it, and nothing else of it."""
    used = {found for found, _ in module.names() if found.startswith("pickle.")}
    return name == "pickle.UnpicklingError" or (
        name == "pickle" and used == {"pickle.UnpicklingError"}
    )


def test_wall_time_is_only_a_label():
    none(
        f"{module.name}:{node.lineno} reads {name}; deadlines and durations are time.monotonic()"
        for module in code()
        if module.name not in LABELS
        for name, node in module.names()
        if WALL_CLOCK.match(name)
    )


def test_weights_are_loaded_without_running_code():
    calls = [
        (module.name, node)
        for module in modules("pipeline", "stages", "benchmarks", "tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls
    none(
        f"{name}:{node.lineno}: torch.load without weights_only=True"
        for name, node in calls
        if not any(
            word.arg == "weights_only" and ast.unparse(word.value) == "True"
            for word in node.keywords
        )
    )


def test_errors_are_raised_and_not_asserted():
    """`python -O` drops assertions; what a user can cause has a class in errors.py."""
    none(
        f"{module.name}:{node.lineno}: assert {ast.unparse(node.test)}"
        for module in code()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
        and not ast.unparse(node.test).startswith("isinstance(")  # tells the type checker
    )


def test_no_module_and_no_function_is_too_long():
    ours = modules("pipeline", "stages", "benchmarks")
    none(
        f"{module.name} has {lines} lines; look for the second noun in it"
        for module in ours
        if (lines := len(module.path.read_text(encoding="utf-8").splitlines())) > MAX_MODULE_LINES
    )
    none(
        f"{module.name}:{node.lineno} {node.name} has {lines} lines without its docstring"
        for module in ours
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _length(node)) > MAX_FUNCTION_LINES
    )


def _length(node):
    """Lines of a function; a command's signature is its table of options, and does not count."""
    is_command = any("command" in ast.unparse(decorator) for decorator in node.decorator_list)
    start = node.body[0].lineno if is_command else node.lineno
    lines = node.end_lineno - start + 1
    if ast.get_docstring(node) is not None:
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


def test_tests_wait_with_one_patience():
    """A bound of its own is one on speed, which a busy core exceeds."""
    own = re.compile(
        r"\.(?:communicate|wait)\((?:timeout=)?[1-9]|\b(?:text|capture_output)=True,[^)]*\btimeout=\d"
        r"|^[A-Z_]*(?:BOUND|PATIENCE)[A-Z_]* = \d", re.MULTILINE,
    )  # fmt: skip
    files = [file for file in (ROOT / "tests").rglob("*.py") if file.name != "patience.py"]
    assert [(file.name, found) for file in files for found in own.findall(file.read_text())] == []


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by their names alone, and collects nothing where two are alike."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    none(f"{name}: rename one of the {n} files" for name, n in names.items() if n > 1)


def test_no_path_of_a_machine_in_any_file():
    """Homes and workplaces; /etc, /var/lib, /run and /dev are the same on every host."""
    pattern = re.compile(r"(?<![\w.}/])/(?:home|root|work|Users|mnt|media)/\w")
    text = {".py", ".toml", ".md", ".yml", ".yaml", ".json", ".service", ".txt", ".cfg", ".css", ""}
    none(
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
        and path.suffix in text
        and not any(part.startswith(".") or part in _MADE for part in path.relative_to(ROOT).parts)
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if pattern.search(line)
    )


_MADE = {"build", "dist", "out", "manyeyes.egg-info", "__pycache__"}  # not part of the project
