"""What the console command says of itself."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import typer

from pipeline.face import cli


def commands(group, words=("manyeyes",)):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = list(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(w) for w, _ in COMMANDS])
def test_the_help_of_every_command_has_an_example_of_itself(words, command):
    assert f"Example: {' '.join(words)} " in command.help
    for parameter in command.params:
        assert parameter.help or parameter.name in ("file", "output"), parameter.name


def test_help_lists_every_command(manyeyes):
    code, out, err = manyeyes("--help")
    assert (code, err) == (0, "")
    for name in ("demo", "run", "check", "graph", "model", "data", "train", "evaluate", "export"):
        assert re.search(rf"^│ {name} ", out, re.M)
    assert shutil.which(Path(sys.executable).with_name("manyeyes"))


def test_help_has_nothing_that_a_terminal_takes_for_a_style():
    """rich leaves `[model]` out of what it prints."""
    swallowed = []

    def look(command, path):
        texts = [command.help, *(getattr(one, "help", None) for one in command.params)]
        found = [re.findall(r"\[/?[a-z#@\[][^\]]*\]+", text or "") for text in texts]
        swallowed.extend((path, words) for words in found if words)
        for name, one in getattr(command, "commands", {}).items():
            look(one, f"{path} {name}")

    look(typer.main.get_command(cli.app), "manyeyes")
    assert swallowed == []
