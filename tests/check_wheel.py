"""Build the wheel, install it alone in an empty environment, use it away from the checkout."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
USE = """
import io, sys
from pathlib import Path
from PIL import Image
import plstore
from plstore.query import list_queries, run_query
for split, name, shade in [("l", "black", 0), ("l", "white", 255), ("u", "", 90), ("u", "", 9)]:
    folder = Path(split, name)
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), shade).save(folder / f"{shade}.png")
assert "site-packages" in plstore.__file__, plstore.__file__
assert len(list_queries()) >= 10
assert Path(plstore.__file__).parents[1].joinpath("trainers", "grids", "paper.toml").is_file()
"""


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, words)), cwd=cwd, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        pip = (sys.executable, "-m", "pip", "--quiet")
        run(*pip, "wheel", "--no-deps", "--wheel-dir", home / "dist", ROOT, cwd=ROOT)
        (wheel,) = (home / "dist").glob("*.whl")
        run(sys.executable, "-m", "venv", home / "venv", cwd=home)
        python = home / "venv" / "bin" / "python"
        run(python, "-m", "pip", "--quiet", "install", wheel, cwd=home)
        run(python, "-c", USE, cwd=home)
        plstore = home / "venv" / "bin" / "plstore"
        images = ("--labeled", "l", "--unlabeled", "u", "--validation-fraction", "0.1")
        run(plstore, "import", "images", "--store", "s", *images, cwd=home)
        rows = run(
            plstore,
            "query",
            "run",
            "coverage/verdicts",
            "--store",
            "s",
            "--format",
            "csv",
            cwd=home,
        )
        found = rows.strip().splitlines()[1:]
        wanted = ["images,labeled,accepted,,2", "images,unlabeled,accepted,,2"]
        if found != wanted:
            raise SystemExit(f"the wheel answered {found}; wanted {wanted}")
        for verb in (("tag", "first"), ("compact",), ("gc",), ("verify",), ("info",)):
            run(plstore, *verb, "--store", "s", cwd=home)
        refused = subprocess.run(
            [plstore, "run", "fashion_mnist"],
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        if refused.returncode != 2 or "pip install 'plstore[train]'" not in refused.stderr:
            raise SystemExit(f"training without its extra said {refused.stderr}")
        refused = subprocess.run(
            [plstore, "ui", "s"], cwd=home, capture_output=True, text=True, check=False
        )
        if refused.returncode != 2 or "pip install 'plstore[ui]'" not in refused.stderr:
            raise SystemExit(f"the app without its extra said {refused.stderr}")
        print(f"{wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB) works alone")


if __name__ == "__main__":
    main()
