"""docs/fleet.md: its files and commands, for tests that do what it says with rendered cameras."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/fleet.md").read_text()
CERTIFICATE = '{"benchmark": "capacity", "cameras": 6}'  # of hall-a


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def fleet_toml():
    """The page's file, with cameras that are rendered."""
    rendered = '"synthetic://?seed=1&rate=5&size=320x180"'
    return '[model]\nengine = "stub"\n' + re.sub(r'"rtsp://[^"]*"', rendered, blocks("toml")[0])
