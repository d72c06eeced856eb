"""JupyterLab in a headless Chromium, for the few tests that need a real page: no request leaves the machine."""
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def chromium():
    "Path of a Chromium and playwright's entry. An unasked-for browser is no reason to fail, a required one is."
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try: from playwright.sync_api import sync_playwright
    except ImportError: sync_playwright = None
    if path and sync_playwright: return path, sync_playwright
    if os.environ.get("IIN_REQUIRE_BROWSER") == "1": pytest.fail("a Chromium and playwright are required")
    pytest.skip("needs a Chromium and playwright")


@contextmanager
def opened(width=1200, height=900, dark=False):
    "A page without a network beyond this machine; `page.asked` and `page.errors` tell what it tried and what went wrong."
    path, playwright = chromium()
    with playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        page.asked, page.errors = [], []
        page.route("**/*", lambda r: r.continue_() if _here(r.request.url) else (page.asked.append(r.request.url), r.abort()))
        page.on("pageerror", lambda e: page.errors.append(str(e)))
        try: yield page
        finally: browser.close()


def _here(url): return not url.startswith(("http", "ws")) or "://127.0.0.1" in url or "://localhost" in url


@contextmanager
def lab(folder):
    "JupyterLab on loopback, serving `folder`; its address."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    root = str(Path(__file__).resolve().parent.parent)
    env = os.environ | {"JUPYTER_CONFIG_DIR": str(folder/".config"), "JUPYTER_DATA_DIR": str(folder/".data"), "PYTHONPATH": root}
    env["JUPYTERLAB_SETTINGS_DIR"] = str(folder/".settings")
    tracker = folder/".settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True, exist_ok=True)
    tracker.write_text('{"autoStartDefaultKernel": true}')   # nobody is asked which kernel
    env["JUPYTER_PATH"] = os.pathsep.join([f"{sys.prefix}/share/jupyter"])
    flags = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
             "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with open(folder/"lab.log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *flags], cwd=folder, env=env, stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/api/status", server, folder/"lab.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try: server.wait(10)
        except subprocess.TimeoutExpired: server.kill()


def _wait(url, server, log, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try: return urllib.request.urlopen(url, timeout=2).read()
        except OSError: time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def notebook(path, *sources):
    "Write a notebook of code cells."
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [empty | {"id": f"cell{i}", "source": s} for i, s in enumerate(sources)]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}))


def run_all(page, address, name, ready, timeout=90_000, dark=False):
    "Open a notebook, run it, and wait for the selector `ready`; when it began to run."
    page.goto(f"{address}/lab/tree/{name}?reset")
    page.wait_for_function("window.jupyterapp && window.jupyterapp.commands.hasCommand('notebook:run-all-cells')", timeout=timeout)
    theme = f"JupyterLab {'Dark' if dark else 'Light'}"   # the server remembers the last one, and two changes at once trip over each other
    page.wait_for_function("document.body.dataset.jpThemeName", timeout=timeout)
    page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=timeout)   # JupyterLab takes it away twice if it is shown again
    if page.evaluate("document.body.dataset.jpThemeName") != theme:
        page.evaluate(f"void jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})")
        page.wait_for_function(f"document.body.dataset.jpThemeName === '{theme}'", timeout=timeout)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=timeout)
    page.wait_for_function("""() => {   // a cell that runs before the page listens has widgets that nobody hears of
        const shell = window.jupyterapp.shell, book = [...shell.widgets('main')].find(w => w.sessionContext);
        if (book && shell.currentWidget !== book) shell.activateById(book.id);   // the launcher may have come after it
        const session = book?.sessionContext, kernel = session?.session?.kernel;
        return session?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle'; }""", timeout=timeout)
    page.wait_for_timeout(1500)
    page.add_style_tag(content=".Toastify {display: none}")
    begun = "[...document.querySelectorAll('.jp-InputPrompt')].some(e => /[*0-9]/.test(e.textContent))"
    start = time.monotonic()
    for _ in range(30):   # the command is deaf until the notebook is the active one; its promise may never be kept
        page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_timeout(500)
        if page.evaluate(begun): break
    page.wait_for_selector(ready, timeout=timeout)
    return start
