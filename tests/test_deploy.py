"""What is deployed fits what runs: examples, names of metrics, dashboard, alerts, images."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import promql
import pytest
import yaml
from exposed import get, samples
from patience import BOUND_S
from prometheus_client.parser import text_string_to_metric_families

from pipeline.plan import config as configuration
from pipeline.plan.standard import make

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
EXAMPLES = sorted(DEPLOY.glob("*.toml"))

# The contract with everybody's dashboards: name (with _total) → type and labels. A change here is a
# change of theirs.
METRICS = {
    "manyeyes_frames_total": ("counter", {"camera", "path", "outcome"}),
    "manyeyes_frames_in_flight": ("gauge", {"camera", "path"}),
    "manyeyes_dropped_total": ("counter", {"camera", "path", "reason"}),
    "manyeyes_sink_items_total": ("counter", {"camera", "sink", "outcome"}),
    "manyeyes_sink_lost_total": ("counter", {"camera", "sink", "reason"}),
    "manyeyes_sink_waiting": ("gauge", {"camera", "sink"}),
    "manyeyes_torn_frames_total": ("counter", set()),
    "manyeyes_garbage_messages_total": ("counter", set()),
    "manyeyes_ledger_error": ("gauge", set()),
    "manyeyes_stage_seconds": ("histogram", {"stage"}),
    "manyeyes_wait_seconds": ("histogram", {"stage"}),
    "manyeyes_latency_seconds": ("histogram", {"camera"}),
    "manyeyes_fps": ("gauge", {"camera", "stage"}),
    "manyeyes_batch_size": ("histogram", {"stage"}),
    "manyeyes_slots": ("gauge", {"pool", "state"}),
    "manyeyes_stage_up": ("gauge", {"stage"}),
    "manyeyes_restarts_total": ("counter", {"stage"}),
    "manyeyes_breaker_open": ("gauge", {"stage"}),
    "manyeyes_camera_up": ("gauge", {"camera"}),
    "manyeyes_camera_paused": ("gauge", {"camera"}),
    "manyeyes_detections_total": ("counter", {"camera", "label"}),
    "manyeyes_alarms_total": ("counter", {"camera", "alert", "verdict"}),
    "manyeyes_alarm_deliveries_total": ("counter", {"target", "outcome"}),
    "manyeyes_alarm_lateness_seconds": ("histogram", {"target"}),
    "manyeyes_stage_events_total": ("counter", {"stage", "camera", "event"}),
    "manyeyes_engine_info": ("gauge", {"stage", "engine"}),
    "manyeyes_build_info": ("gauge", {"version", "python"}),
}
# What Prometheus itself adds.
OWN = {"up": {"job", "instance", "machine"}}  # machine: of a target of a fleet


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """/metrics of `manyeyes run` with two rendered cameras and both kinds of sink, while it runs."""
    folder = tmp_path_factory.mktemp("run")
    toml = folder / "run.toml"
    toml.write_text(
        """
        [model]
        engine = "stub"
        [metrics]
        port = 0
        [[sink]]
        type = "events"
        path = "events.jsonl"
        [[sink]]
        type = "snapshot"
        path = "snapshots"
        [[target]]
        name = "log"
        type = "file"
        path = "alarms.jsonl"
        [[alert]]
        name = "anything"
        kinds = ["appeared"]
        to = ["log"]
        [[camera]]
        name = "one"
        source = "synthetic://?seed=1&size=64x64&rate=10"
        [[camera]]
        name = "two"
        source = "synthetic://?seed=2&size=64x64&rate=10"
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", str(toml)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if port := re.search(r"http://127\.0\.0\.1:(\d+)/metrics", line):
                break
        else:
            pytest.fail("".join(lines))
        end = time.monotonic() + BOUND_S
        text = ""
        while not _served(samples(text)):
            try:
                text = get(port[1], "/metrics")[1]
            except OSError as error:
                process.terminate()
                pytest.fail(f"{error}: {''.join([*lines, process.stdout.read()])}")
            assert time.monotonic() < end, get(port[1], "/readyz")
            time.sleep(0.1)  # polls another process; there is nothing to wait on
        yield text
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=BOUND_S)[0]
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _served(found):
    delivered = [
        value
        for labels, value in found["manyeyes_frames_total"].items()
        if ("outcome", "delivered") in labels
    ]
    stages = {dict(labels)["stage"] for labels in found["manyeyes_stage_seconds_count"]}
    return len(delivered) == 4 and all(delivered) and "sink.snapshot" in stages


# -- names -----------------------------------------------------------------------------------------


def test_metrics_are_the_ones_that_we_promise(scraped):
    found = {}
    for family in text_string_to_metric_families(scraped):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {key for sample in family.samples for key in sample.labels} - {"le"}
        assert family.samples, f"{name} has no series in a run that does everything"
        found[name] = (family.type, labels)
    assert found == METRICS


def test_labels_are_names_of_the_configuration(scraped):
    for series in samples(scraped).values():
        for labels in map(dict, series):
            assert labels.get("camera", "one") in ("one", "two")
            assert labels.get("path", "view") in ("detect", "view")


def dashboard():
    return json.loads((DEPLOY / "grafana/dashboards/manyeyes.json").read_text())


def alerts():
    return yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]


def expressions():
    """(expression, labels that its legend or annotations show) of dashboard and alerts."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"], set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    for variable in dashboard()["templating"]["list"]:
        yield variable["query"]["query"], set()
    for rule in alerts():
        yield rule["expr"], set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))


def test_there_is_something_to_check():
    texts = [text for text, _ in expressions()]
    assert len(texts) > 30
    for wanted in ("fps", "latency_seconds", "dropped", "stage_seconds", "wait_seconds",
                   "batch_size", "restarts", "slots", "camera_up", "breaker_open", "ledger_error",
                   "torn_frames"):  # fmt: skip
        assert any(f"manyeyes_{wanted}" in text for text in texts), wanted


@pytest.mark.parametrize(("text", "shown"), list(expressions()))
def test_expressions_name_only_what_a_running_pipeline_exposes(text, shown, scraped):
    exposed = samples(scraped)
    expression = promql.parse(text)
    assert expression.selectors
    known = set()
    for selector in expression.selectors:
        if selector.metric in OWN:
            known |= OWN[selector.metric]
            continue
        assert selector.metric in exposed, f"no metric {selector.metric}"
        labels = {key for series in exposed[selector.metric] for key, _ in series}
        known |= labels
        for label, operator, value in selector.matchers:
            assert label in labels
            if operator == "=":
                assert any((label, value) in series for series in exposed[selector.metric]), value
    assert expression.grouping <= known
    assert shown <= (expression.grouping if expression.aggregates else known)
    if "histogram_quantile" in text:
        assert "le" in expression.grouping


@pytest.mark.parametrize(
    ("text", "metrics", "labels"),
    [
        ("up == 0", {"up"}, set()),
        ('sum by (a, le) (rate(m_bucket{x="1", y=~"$z"}[5m])) > 0', {"m_bucket"}, {"a", "le"}),
        ("a / b or vector(0)", {"a", "b"}, set()),
        ("label_values(m, camera)", {"m"}, {"camera"}),
    ],
)
def test_the_parser_sees_every_name(text, metrics, labels):
    expression = promql.parse(text)
    assert {selector.metric for selector in expression.selectors} == metrics
    assert expression.grouping == labels


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_accepted(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configuration.load(path)
    for camera in config.camera:
        if camera.credentials:
            monkeypatch.setenv(f"{camera.credentials}_USER", "viewer")
            monkeypatch.setenv(f"{camera.credentials}_PASSWORD", "secret")
    sinks = tuple(
        sink.model_copy(update={"options": {**sink.options, "path": str(tmp_path / sink.type)}})
        for sink in config.sink
        if sink.type != "window"  # wants a display, as `manyeyes check` says
    )
    plan = make(config.model_copy(update={"sink": sinks}))
    plan.check()
    assert len(plan.cameras) == len(config.camera)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_metrics_leave_the_host_only_where_the_file_says_so(path):
    host = tomllib.loads(path.read_text())["metrics"]["host"]
    assert host == ("0.0.0.0" if path.name == "container.toml" else "127.0.0.1")
    assert configuration.MetricsConfig().host == "127.0.0.1"


def test_compose_publishes_to_this_machine_only_and_mounts_what_exists():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"manyeyes", "prometheus", "grafana"}
    assert "ports" not in services["manyeyes"]
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (DEPLOY / volume.split(":")[0]).exists()
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    port = tomllib.loads((DEPLOY / "container.toml").read_text())["metrics"]["port"]
    assert job["static_configs"] == [{"targets": [f"manyeyes:{port}"]}]
    assert f'job="{job["job_name"]}"' in next(r["expr"] for r in alerts() if "up{" in r["expr"])


def test_dashboard_and_data_source_find_each_other():
    provisioned = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioned / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (row, column)
        for panel in dashboard()["panels"]
        for place in [panel["gridPos"]]
        for row in range(place["y"], place["y"] + place["h"])
        for column in range(place["x"], place["x"] + place["w"])
    ]
    assert len(places) == len(set(places)), "two panels overlap"
    assert all(column < 24 for _, column in places)


def test_the_image_is_made_of_what_is_there_and_runs_as_nobody_in_particular():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    assert "USER manyeyes" in lines
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = [line for line in lines if "TORCH_INDEX:+" in line]
    bounds = {d for d in facts["dependencies"] if d.startswith("torch")}
    assert set(re.findall(r'"(torch[^"]*)"', install)) == bounds
    assert not any(re.search(r"https?://(?!127\.0\.0\.1)", line) for line in lines)


def test_systemd_does_not_restart_what_a_restart_can_not_mend():
    unit = (DEPLOY / "manyeyes.service").read_text()
    assert "RestartPreventExitStatus=75 78" in unit
    assert os.linesep + "User=manyeyes" in unit


def test_systemd_reloads_what_check_finds_nothing_wrong_with():
    unit = (DEPLOY / "manyeyes.service").read_text()
    reloads = re.findall(r"^ExecReload=(.*)$", unit, re.MULTILINE)
    assert [line.rpartition("/")[2].split()[:2] for line in reloads[1:]] == [["kill", "-HUP"]]
    assert reloads[0] == re.findall(r"^ExecStartPre=(.*)$", unit, re.MULTILINE)[0]


def test_nodes_of_kuberay_are_machines_and_ask_for_a_token():
    cluster = yaml.safe_load((DEPLOY / "kubernetes/raycluster.yaml").read_text())["spec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group["labels"] == {"machine": group["groupName"]}
        assert "labels" not in group["rayStartParams"], (
            "the operator refuses a cluster with them there"
        )
        assert group["replicas"] == group["maxReplicas"] == 1, "a machine is one node"


def test_the_chart_says_what_it_is_and_runs_what_there_is():
    chart = DEPLOY / "helm"
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["name"] == "manyeyes-fleet"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    template = (chart / "templates/fleet.yaml").read_text()
    assert "manyeyes fleet up fleet.toml --machine {{ .name }}" in template
    assert "kind: Deployment" not in template, "it may have two pods of one machine"
    named = set(re.findall(r"\$?\.Values\.(\w+)", template))
    assert named == values.keys()
