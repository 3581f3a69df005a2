import socket
from pathlib import Path

from plstore.store import Store
from tests.cli.shell import shell


def test_a_port_that_is_taken_is_said(store: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = shell("ui", store.root, "--no-open", "--port", str(port))

    assert done.returncode == 2
    assert f"cannot listen on port {port} of 127.0.0.1" in done.stderr
    assert "--port" in done.stderr


def test_a_folder_without_a_store_is_refused_before_anything_listens(tmp_path: Path) -> None:
    done = shell("ui", tmp_path / "nothing", "--no-open")

    assert done.returncode == 2
    assert "no plstore store at" in done.stderr
    assert "token" not in done.stderr
