import subprocess
import sys

import plstore


def test_the_facade_is_sorted_and_every_name_resolves() -> None:
    names = plstore.__all__

    assert sorted(names) == names
    assert all(getattr(plstore, name) is not None for name in names)


def test_asking_a_store_imports_no_training_library() -> None:
    code = (
        "import sys, plstore; plstore.open, plstore.connect, plstore.select;"
        "import plstore.cli.main;"
        "print([m for m in ('torch', 'timm', 'nvidia.dali', 'datasets') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "[]"
