"""Limits of every group that a process is in are seen, in both versions of cgroups."""

import pytest

from pipeline.host import cgroup, machine, memory


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Folders as cgroups(7) has them; returns a function that writes one file of them."""

    def write(name, text):
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    monkeypatch.setattr(cgroup, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cgroup, "_OF_THIS_PROCESS", tmp_path / "self")
    return write


def test_limits_of_the_groups_above_hold_as_well(host, tmp_path):
    (tmp_path / "self").write_text("0::/slice/unit\n")
    host("slice/pids.max", "100")
    host("slice/pids.current", "40")
    host("slice/unit/pids.max", "max")
    host("slice/unit/pids.current", "12")
    host("slice/unit/memory.max", str(300 << 20))
    host("slice/unit/memory.current", str(100 << 20))
    host("slice/unit/memory.stat", f"inactive_file {50 << 20}\n")
    host("slice/cpu.max", "150000 100000")
    assert machine.threads_left() == 60
    assert memory.available_bytes() == 250 << 20
    assert machine.quota_cores() == 1.5


def test_version_1_and_a_path_that_is_the_host_s(host, tmp_path):
    (tmp_path / "self").write_text("8:pids:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n")
    host("memory/memory.limit_in_bytes", str(300 << 20))
    host("memory/memory.usage_in_bytes", str(100 << 20))
    host("memory/memory.stat", "total_inactive_file 0\n")
    host("cpu/cpu.cfs_quota_us", "50000")
    host("cpu/cpu.cfs_period_us", "100000")
    assert memory.available_bytes() == 200 << 20
    assert machine.quota_cores() == 0.5
