"""Starts JupyterLab and Voilà as a user would, but without the user's own settings."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# JupyterLab asks once whether it may fetch news; here nobody answers and nothing can be fetched.
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}


def environment(home: Path) -> dict[str, str]:
    """This process's environment, with every place where Jupyter keeps settings below `home`."""
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "MPLCONFIGDIR": "matplotlib",
    }
    ours = {name: str(home / folder) for name, folder in places.items()}
    # One thread a kernel: two kernels at a time then don't fight for two cores.
    return {**os.environ, **ours, "OMP_NUM_THREADS": "1"}


def course_copy(folder: Path) -> Path:
    """A copy of notebooks/ to run in, so that the repository stays clean; what notebooks may
    reach with ../ is linked beside it."""
    folder.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name != "notebooks":
            (folder / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder / "notebooks"


@contextmanager
def jupyterlab(home: Path) -> Iterator[tuple[str, Path]]:
    """JupyterLab, and Notebook 7 by the same server, on a copy of the course: address, folder."""
    folder = course_copy(home / "course")
    settings = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(NO_NEWS))
    command = ["jupyterlab", "--expose-app-in-browser", f"--ServerApp.root_dir={folder}"]
    command.append("--JupyterNotebookApp.expose_app_in_browser=True")
    if os.geteuid() == 0:
        command.append("--allow-root")
    with _server(command, home, folder, "ServerApp", "/api/status") as address:
        yield address, folder


@contextmanager
def voila(home: Path, notebook: str) -> Iterator[str]:
    """Voilà on one notebook of a copy of the course; like `make app`, it finds its settings in
    voila.json there. Gives the address."""
    folder = course_copy(home / "course")
    with _server(["voila", notebook], home, folder, "Voila", "/static/") as address:
        yield address


@contextmanager
def _server(
    command: list[str], home: Path, folder: Path, application: str, ready: str
) -> Iterator[str]:
    port = _free_port()
    log = home / "server.log"
    options = ["--no-browser", f"--{application}.port={port}", f"--{application}.port_retries=0"]
    options += ["--IdentityProvider.token="] if application == "ServerApp" else []
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, *options],
            env=environment(home),
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://localhost:{port}"
        _wait(process, address + ready, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(process: subprocess.Popen, url: str, log: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"{url} was not served within {seconds:g} s:\n{log.read_text()[-4000:]}")
