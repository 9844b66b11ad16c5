"""Lets published Standard Webhooks libraries verify real deliveries of the real binary.

usage: run.py HOOKGATE NODE_MODULES
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
KEY = "operator-key-of-the-interop"
PATIENCE = 30


class Api:
    def __init__(self, server):
        self.base = f"{server}/v1/tenants/default/"

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")


class Receiver:
    """A receiving server, and what it verified."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/hooks"
        self.verdicts = []
        threading.Thread(target=self.follow, daemon=True).start()

    def trust(self, secret):
        self.process.stdin.write(secret + "\n")
        self.process.stdin.flush()

    def follow(self):
        for line in self.process.stdout:
            self.verdicts.append(json.loads(line))


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {PATIENCE} s")
        time.sleep(0.05)


def check(api, receiver):
    retry = {"schedule": ["100ms", "100ms"], "jitter": 0}
    endpoint = api.call("POST", "endpoints", {"url": receiver.url, "retry": retry})["id"]
    receiver.trust(api.call("GET", f"endpoints/{endpoint}/secret")["key"])
    events = [
        {"type": "a.plain", "data": {"n": 1}},
        {"type": "a.unicode", "data": {"text": "žluťoučký kůň 🐎 \u2028"}},
        {"type": "a.retried", "data": {"refuse_first": True}},
        {"type": "a.large", "data": {"text": "x" * 200_000}},
        {"type": "a.own-id", "id": "order.1-2_3" + receiver.name[:2], "data": [1.0, None]},
    ]
    # The receiver keeps its secret: after a rotation the old one must still verify.
    for rotated in (False, True):
        if rotated:
            api.call("POST", f"endpoints/{endpoint}/secret/rotate", {"grace": "1h"})
        ids = []
        for event in events:
            event = {**event, "id": f"{event['id']}-{rotated}"} if "id" in event else event
            ids.append(api.call("POST", "events", event)["id"])
        expected = 2 * (len(ids) + 1)
        seen = lambda: [it for it in receiver.verdicts if it["id"] in ids]
        wait_for(f"{receiver.name}'s deliveries", lambda: len(seen()) >= expected)
        refused = [it for it in seen() if not it["ok"]]
        if refused:
            sys.exit(f"{receiver.name} refused: {refused}")
    api.call("DELETE", f"endpoints/{endpoint}")
    return len(receiver.verdicts)


def main():
    hookgate, modules = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="hookgate-interop-"))
    # Node finds packages beside the script that imports them.
    shutil.copy(HERE / "receiver.mjs", Path(modules).parent / "receiver.mjs")
    gateway = subprocess.Popen(
        [hookgate, "serve", "--listen", "127.0.0.1:0", "--allow-private-endpoints"]
        + ["--data-dir", str(folder / "data")],
        env={**os.environ, "HOOKGATE_OPERATOR_KEY": KEY},
        stdout=subprocess.PIPE,
        text=True,
    )
    processes = [gateway]
    try:
        api = Api(json.loads(gateway.stdout.readline())["listening"])
        commands = {
            "python": [sys.executable, str(HERE / "receiver.py")],
            "node": ["node", str(Path(modules).parent / "receiver.mjs")],
        }
        passed = 0
        for name, command in commands.items():
            receiver = Receiver(name, command)
            processes.append(receiver.process)
            passed += check(api, receiver)
        print(f"{passed} passed, 0 failed")
    finally:
        for process in processes:
            process.terminate()
            process.wait()
        shutil.rmtree(folder)


main()
