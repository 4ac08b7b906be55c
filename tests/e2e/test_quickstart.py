"""What the README's quickstart shows is what happens: its commands are run as they stand there."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT, PortBlocks


@pytest.fixture
def block() -> str:
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"^## Quickstart.*?^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, "The README has no quickstart."
    return found[1]


def test_it_ends_in_a_certificate_that_openssl_accepts(block: str, tmp_path: Path) -> None:
    blocks = PortBlocks()
    first = blocks.take()
    # The ports that it does not name are those of a server that may run here already.
    others = {"machine_port": first + 1, "gateway_port": first + 2, "status_port": first + 3}
    ports = "".join(f"\n{name} = {port}" for name, port in others.items())
    assert block.count("port = 8443") == 1
    block = block.replace("port = 8443", f"port = 8443{ports}").replace("8443", str(first))
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=90)
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server that it leaves running
        blocks.close()
    assert process.returncode == 0, said
    assert said.endswith("pump.pem: OK\n"), said
