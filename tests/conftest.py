import gc
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from sparseattn.cli import main as cli
from sparseattn.study.executors import local
from tests.study import fakes


def pytest_runtest_setup(item):
    """A plain `pytest` takes the tests of a GPU as well."""
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True, scope="module")
def unseen_by_the_collector():
    """What earlier modules left: every training collects garbage, and would look through it all."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process; returns its exit status and what it printed."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sparseattn", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Where the fake trials of a test write down what they do."""
    path = tmp_path / "log.txt"
    monkeypatch.setenv(fakes.LOG, str(path))
    monkeypatch.setenv("PYTHONPATH", str(fakes.ROOT), prepend=os.pathsep)
    return path


@pytest.fixture
def in_process(monkeypatch):
    """Trials run in this process, one after another, by the code of a worker."""
    monkeypatch.setattr(local, "LocalExecutor", fakes.InProcessExecutor)
    monkeypatch.setattr(local, "_messages", Mock(), raising=False)


@pytest.fixture
def disk_of(tmp_path):
    """Mounts a file system of a size, such as 1m."""
    places = []

    def mount(size):
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a file system takes root")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def full_disk(disk_of):
    """A file system without room for a byte."""
    place = disk_of("64k")
    with suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return place


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, headless; tests that look at pages are skipped without it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    if not Path(chromium).exists():
        pytest.skip(f"no browser at {chromium}: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()
