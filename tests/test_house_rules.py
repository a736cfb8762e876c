"""What nobody may call, how long a part may be, and what no file says."""

import ast
import re
from collections import Counter

from source_tree import ROOT, code, inside, modules, none

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60  # without its docstring: contracts may be as long as they must
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
_MADE = {"build", "dist", "out", "manyeyes.egg-info", "__pycache__"}  # not part of the project


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
