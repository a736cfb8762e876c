"""Sections about alarms: what a configuration with them becomes, and what is wrong in one."""

import re
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.plan import config as configuration
from pipeline.plan.standard import make

PAGE = (Path(__file__).parents[3] / "docs/alerts.md").read_text()
BASE = """
[model]
engine = "stub"
[[camera]]
name = "gate"
source = "synthetic://?seed=1"
[[camera]]
name = "back"
source = "synthetic://?seed=2"
[[zone]]
name = "yard"
camera = "gate"
polygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[[line]]
name = "kerb"
camera = "gate"
points = [[0.5, 1], [0.5, 0]]
[[target]]
name = "ops"
type = "file"
path = "alarms.jsonl"
"""
FILE = 'type = "file"\npath = "alarms.jsonl"\n'
WEBHOOK = 'type = "webhook"\nurl = "https://ops.example"\n'
ALERT = """
[[alert]]
name = "visitor"
kinds = ["entered"]
to = ["ops"]
"""


@pytest.fixture
def plan(tmp_path):
    """The plan of a text that is a file of its own."""

    def of(text):
        (tmp_path / "street.toml").write_text(text)
        return make(configuration.load(tmp_path / "street.toml"))

    return of


def test_an_alert_follows_objects_and_has_a_process_of_its_own(plan, tmp_path):
    names = [process.name for process in plan(BASE + ALERT).processes]
    assert names[-4:] == ["track", "scene", "sink.alarms", "health"]  # and no sink beside it
    config = plan(BASE + ALERT).by_name["sink.alarms"].config
    assert config["path"] == str(tmp_path / "outbox.db")
    assert config["targets"][0]["path"] == str(tmp_path / "alarms.jsonl")
    assert "sink.alarms" not in plan(BASE).by_name


def test_pictures_of_alarms_are_those_of_the_store(plan, tmp_path):
    text = BASE.replace(FILE, f'{WEBHOOK}picture = "object"\n') + ALERT
    sinks = '[[sink]]\ntype = "happenings"\npath = "h"\n[[sink]]\ntype = "store"\npath = "s.db"\n'
    config = plan(text + sinks).by_name["sink.alarms"].config
    assert config["pictures"] == str(tmp_path / "s.db.pictures")
    with pytest.raises(ConfigError, match="nobody keeps pictures"):
        plan(text + sinks + "pictures_mib = 0\n")


def test_who_wants_to_know_of_cameras_alone_needs_nobody_who_follows_objects(plan):
    text = BASE[: BASE.index("[[zone]]")] + BASE[BASE.index("[[target]]") :]
    names = [p.name for p in plan(text + ALERT.replace("entered", "down")).processes]
    assert names[-2:] == ["sink.alarms", "health"]
    assert not {"track", "scene"} & set(names)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["ops"]', '["osp"]', "street.toml: alert 'visitor': to: there is no target 'osp'; did you"),
        ('["entered"]', '["enter"]', "there is no kind of happening 'enter'; did you mean 'entered'?"),
        ('["entered"]', "[]", "kinds must be a list of appeared, "),
        ("to =", 'cameras = ["gaet"]\nto =', "cameras: there is no camera 'gaet'; did you mean 'gate'?"),
        ("to =", 'zones = ["kerb"]\nto =', "zones: there is no zone 'kerb'; there are yard"),
        ("to =", 'cameras = ["back"]\nzones = ["yard"]\nto =', "no zone 'yard'; there is none at all"),
        ("to =", 'lines = ["curb"]\nto =', "lines: there is no line 'curb'; there are kerb"),
        ("to =", 'directions = ["left"]\nto =', "there is no direction 'left'; there are in, out"),
        ("to =", 'classes = ["car2"]\nto =', "alert 'visitor': classes: the model has no class 'car2';"),
        ("to =", "cooldown_s = -1\nto =", "cooldown_s must be a number of seconds within 0..86400, got -1"),
        ("to =", 'when = ["nightly"]\ntime_zone = "UTC"\nto =', "'visitor': when: wanted a text like"),
        ("to =", 'when = ["00:00-06:00"]\nto =', "alert 'visitor': when needs a time_zone; write one"),
        ("to =", 'wen = ["00:00-06:00"]\nto =', "alert 'visitor': unknown key 'wen'; did you mean 'when'?"),
        ('type = "file"', 'type = "program"', "target 'ops': type must be 'webhook'"),
        ("path =", "paht =", "target 'ops': unknown key 'paht'; did you mean 'path'?"),
        ('path = "alarms.jsonl"', "", "target 'ops': 'path' is missing"),
        (FILE, WEBHOOK + 'picture = "all"', "picture must be '' or 'object' or 'frame', got 'all'"),
        (FILE, WEBHOOK + 'picture = "frame"', "target 'ops': picture: nobody keeps pictures; add"),
        ("[[alert]]", "[outbox]\nmax_mb = 0\n[[alert]]", "max_mb must be a number of megabytes > 0"),
        ("[[alert]]", '[outbox]\npath = "."\n[[alert]]', r"[outbox]: wanted a file at"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(plan, old, new, words):
    text = BASE + ALERT
    assert old in text
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        plan(text.replace(old, new, 1) if old != '["ops"]' else text.replace(old, new))
    assert "\n" not in str(error.value)


# of a target, and what a person writes by mistake; the secret is `hunter22`
SECRETS = [
    *(
        f'type = "{kind}"\nurl = "{url}"\n'
        for kind in ("webhook", "mqtt")
        for url in ("https://me:hunter22@h", "http://[hunter22", "mqtt://[hunter22]", "http://h:hunter22/")
    ),
    'type = "apprise"\ncredentials = "tgram://hunter22/chat"\n',
    'type = "mqtt"\nurl = "mqtt://h"\ncredentials = "me:hunter22"\n',
    'type = "mqtt"\nurl = "mqtt://h"\nca_file = "https://me:hunter22@h/ca.pem"\n',
    'type = "mqtt"\nurl = "mqtt://h"\ntopic = "mqtt://me:hunter22@h"\n',
    WEBHOOK + 'picture = "object"\npicture_url = "http://[hunter22]/"\n',
]  # fmt: skip


@pytest.mark.parametrize("target", SECRETS)
def test_a_secret_in_the_wrong_place_is_one_sentence_without_it(plan, target):
    text = BASE.replace(FILE, target) + ALERT + '[[sink]]\ntype = "store"\npath = "s.db"\n'
    with pytest.raises(ConfigError, match=r"^target 'ops': ") as error:
        plan(text)
    assert "hunter22" not in str(error.value)
    assert "\n" not in str(error.value)


def test_an_alert_above_a_number_is_the_limit_of_its_zones(plan):
    crowded = ALERT.replace('"entered"]', '"crowded"]\nabove = 3')
    [zone] = plan(BASE + crowded).by_name["scene"].config["zones"]
    assert zone["max_objects"] == 3
    [alert] = plan(BASE + crowded).by_name["sink.alarms"].config["alerts"]
    assert alert["above"] == 3
    for text, words in (
        (BASE + crowded + crowded.replace("visitor", "b").replace("= 3", "= 5"), "has the limit 3"),
        (BASE + crowded.replace("crowded", "entered"), "add 'crowded' to kinds"),
        (BASE + crowded.replace("= 3", "= -1"), "above must be a whole number >= 0, got -1"),
    ):
        with pytest.raises(ConfigError, match=words) as error:
            plan(text)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", ["[[alert]]", "[[target]]"])
def test_a_name_is_used_once(plan, section):
    text = ALERT if section == "[[alert]]" else BASE[BASE.index("[[target]]") :]
    with pytest.raises(ConfigError, match="the name is used twice; give one another"):
        plan(BASE + ALERT + text)


@pytest.mark.parametrize(
    "text", re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
)
def test_what_the_page_shows_is_a_plan(plan, text, monkeypatch):
    monkeypatch.setenv("OPS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    monkeypatch.setenv("HOME_USER", "manyeyes")
    monkeypatch.setenv("HOME_PASSWORD", "secret")
    plan(text).check()
