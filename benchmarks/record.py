"""What every benchmark writes: measurements, and where they were made."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from plstore.report.output import render
from plstore.storage import write_json

_PACKAGES = (
    "deltalake",
    "duckdb",
    "numpy",
    "nvidia-dali-cuda130",
    "pyarrow",
    "ray",
    "timm",
    "torch",
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number.

    Attributes:
        case: What was done.
        contender: Who did it: "plstore", a codec, backend or policy, or a peer's package name.
        metric: What was measured.
        value: The number.
        unit: Its unit.
    """

    case: str
    contender: str
    metric: str
    value: float
    unit: str


def machine() -> dict[str, object]:
    """Return the machine and the versions that a result was made with."""
    root = Path(__file__).parents[1]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607  the user's own git
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],  # 1, 5, 15 minutes
        "packages": {name: version(name) for name in _PACKAGES},
    }


def publish(
    measurements: Sequence[Measurement], *, command: str, json_path: Path | None
) -> None:
    """Print measurements as a table; write them to a file where one is named."""
    rows = [asdict(measurement) for measurement in measurements]
    print(render(rows, "table"))
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(rows, indent=1) + "\n")
        about = {"command": command, **machine()}
        write_json(json_path.with_suffix(".machine.json"), about)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
