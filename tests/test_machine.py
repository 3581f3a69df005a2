"""Cores in shares; memory as a container has it: files laid out as the kernel lays them out."""

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plstore.machine import (
    _mallopt,
    freed_memory_kept,
    keep_to_share,
    memory_bytes,
    num_cores,
)
from plstore.query import Limits

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
MB = 2**20
UNLIMITED_V1 = "9223372036854771712"


def lay_out(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/", {"sys/fs/cgroup/memory.max": str(512 * MB)}, 512 * MB),
        ("0::/a/b", {"sys/fs/cgroup/a/b/memory.max": str(300 * MB)}, 300 * MB),
        # The group above is the tighter one.
        (
            "0::/a/b",
            {
                "sys/fs/cgroup/a/memory.max": str(200 * MB),
                "sys/fs/cgroup/a/b/memory.max": "max",
            },
            200 * MB,
        ),
        ("0::/a", {"sys/fs/cgroup/a/memory.max": "max"}, PHYSICAL),
        (
            "9:name=systemd:/\n4:cpu,memory:/docker/12ab",
            {"sys/fs/cgroup/memory/docker/12ab/memory.limit_in_bytes": str(256 * MB)},
            256 * MB,
        ),
        # The host's path, seen from inside of a container.
        (
            "4:memory:/docker/12ab\n0::/",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(128 * MB)},
            128 * MB,
        ),
        ("4:memory:/", {"sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1}, PHYSICAL),
        # Both kinds at once.
        (
            "4:memory:/x\n0::/y",
            {
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": str(96 * MB),
                "sys/fs/cgroup/unified/y/memory.max": str(64 * MB),
            },
            64 * MB,
        ),
        ("0::/../above", {"sys/fs/cgroup/memory.max": str(32 * MB)}, 32 * MB),
    ],
)
def test_the_lowest_limit_counts(
    tmp_path: Path, groups: str, files: dict[str, str], wanted: int
) -> None:
    assert memory_bytes(lay_out(tmp_path, groups, files)) == min(wanted, PHYSICAL)


def test_a_machine_without_groups_has_all_of_its_memory(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path) == PHYSICAL


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ("0::/a", {"sys/fs/cgroup/a/cpu.max": "50000 100000"}, 1),
        # The group above is the tighter one.
        (
            "0::/a/b",
            {
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            },
            3,
        ),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        ("0::/", {"sys/fs/cgroup/cpu.max": "6400000 100000"}, 16),
        (
            "4:cpu,cpuacct:/docker/12ab",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            "4:cpu,cpuacct:/",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            16,
        ),
        ("4:cpuset:/", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000"}, 16),
    ],
)
def test_cores_are_those_that_a_container_has_time_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, str],
    wanted: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    assert num_cores(lay_out(tmp_path, groups, files)) == wanted


def test_sql_takes_half_of_it_unless_told() -> None:
    assert Limits().memory_limit == f"{memory_bytes() // 2 >> 20}MiB"
    assert Limits(memory="300MB").memory_limit == "300MB"


def share(place: int, shares: int) -> set[int]:
    """Return the cores of a thread of its own, and of one that it begins."""

    def cores() -> set[int]:
        keep_to_share(place, shares)
        with ThreadPoolExecutor(1) as below:
            assert below.submit(os.sched_getaffinity, 0).result() == os.sched_getaffinity(0)
        return os.sched_getaffinity(0)

    with ThreadPoolExecutor(1) as apart:
        return apart.submit(cores).result()


@pytest.mark.parametrize("shares", [1, 2, 3, 5, 64])
def test_shares_are_all_the_cores_and_each_core_one_process_where_it_can(shares: int) -> None:
    all_cores = os.sched_getaffinity(0)
    found = [share(place, shares) for place in range(shares)]

    assert set().union(*found) == all_cores
    assert max(map(len, found)) - min(map(len, found)) <= 1
    if shares <= len(all_cores):
        assert sum(map(len, found)) == len(all_cores)
    assert os.sched_getaffinity(0) == all_cores


def faults(rounds: int = 12) -> int:
    """Return the pages that the system has to give for a large buffer, made again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        assert len(b"x" * (48 * MB)) == 48 * MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(_mallopt() is None, reason="another C library, or its settings are given")
def test_freed_memory_is_kept_for_the_next_buffer() -> None:
    usual = faults()
    with freed_memory_kept():
        with freed_memory_kept():
            faults(1)
        kept = faults()
    after = faults()

    assert kept < usual / 3
    assert kept < after / 3  # given back


def test_settings_of_the_c_library_in_the_environment_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")

    assert _mallopt() is None
