"""Lets published libraries verify real deliveries of the real binary: Standard Webhooks' and those of
Stripe, GitHub, Slack and Shopify. CloudEvents' own libraries send to it and read what it delivers.

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

import cloud_events

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


# What each receiver has a library for.
SCHEMES = {
    "python": ["standard", "standard-ed25519", "standard-svix", "stripe", "slack"],
    "node": ["standard", "standard-ed25519", "standard-svix", "stripe", "github", "shopify"],
}
SIGNATURES = {"standard-svix": {"scheme": "standard", "prefix": "svix"}}
# Secrets as the providers hand them out.
SECRETS = {
    "slack": "8f742231b10e8888abcd99yyyzzz85a5",
    "github": "0f2cfbe3b5cfb1e2a8c3a4d2f6e1b7a9d0c8e5f4",
    "shopify": "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",
}
# What Shopify's library asks for beside the signature.
HEADERS = {
    "shopify": {
        "x-shopify-topic": "orders/create",
        "x-shopify-shop-domain": "interop.myshopify.com",
        "x-shopify-api-version": "2026-01",
        "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        "x-shopify-event-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        "x-shopify-triggered-at": "2026-01-01T00:00:00Z",
    }
}
# Where the header has room for one signature, a new secret signs alone at once.
ROOM_FOR_ONE = {"slack", "github", "shopify"}
LIBRARIES = {
    ("python", "standard"): 2,
    ("python", "standard-ed25519"): 2,
    ("node", "standard"): 2,
    ("node", "standard-ed25519"): 3,
}


class Receiver:
    """A receiving server, and what it verified."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.base = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.verdicts, self.trusted = [], 0
        threading.Thread(target=self.follow, daemon=True).start()

    def trust(self, path, scheme, keys):
        before = self.trusted
        line = json.dumps({"path": path, "scheme": scheme, **keys})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        wait_for(f"{self.name} trusts {path}", lambda: self.trusted > before)

    def follow(self):
        for line in self.process.stdout:
            it = json.loads(line)
            if "trusted" in it:
                self.trusted += 1
            else:
                self.verdicts.append(it)


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {PATIENCE} s")
        time.sleep(0.05)


def check(api, receiver, scheme):
    path, kind = f"/{scheme}", f"{receiver.name}.{scheme}"
    endpoint = {
        "url": receiver.base + path,
        "event_types": [f"{kind}.*"],
        "retry": {"schedule": ["100ms", "100ms"], "jitter": 0},
        "signature": SIGNATURES.get(scheme, {"scheme": scheme}),
        "headers": HEADERS.get(scheme, {}),
    }
    if scheme in SECRETS:
        endpoint["secret"] = SECRETS[scheme]
    endpoint = api.call("POST", "endpoints", endpoint)["id"]
    keys = lambda: api.call("GET", f"endpoints/{endpoint}/secret")
    receiver.trust(path, scheme, keys())
    libraries = LIBRARIES.get((receiver.name, scheme), 1)

    def publish(events):
        """Publishes them, and gives what the libraries said of all attempts."""
        ids = [api.call("POST", "events", {**it, "type": f"{kind}.{it['type']}"})["id"] for it in events]
        retried = sum("refuse_first" in json.dumps(it) for it in events)
        expected = libraries * (len(ids) + retried)
        seen = lambda: [it for it in receiver.verdicts if it["id"] in ids and it["path"] == path]
        wait_for(f"{kind}'s deliveries", lambda: len(seen()) >= expected)
        return seen()

    events = [
        {"type": "plain", "data": {"n": 1}},
        {"type": "unicode", "data": {"text": "žluťoučký kůň 🐎 \u2028"}},
        {"type": "retried", "data": {"refuse_first": True}},
        {"type": "large", "data": {"text": "x" * 200_000}},
        {"type": "own-id", "id": f"order.1-2_3-{kind}", "data": [1.0, None]},
    ]
    passed = 0
    # The receiver keeps its secret: after a rotation the old one must still verify.
    for rotated in (False, True):
        if rotated:
            rotation = {"grace": "1h"}
            if scheme in SECRETS:
                rotation["key"] = SECRETS[scheme][::-1]
            api.call("POST", f"endpoints/{endpoint}/secret/rotate", rotation)
            if scheme in ROOM_FOR_ONE:
                receiver.trust(path, scheme, keys())
        seen = publish([{**it, "id": f"{it['id']}-{rotated}"} if "id" in it else it for it in events])
        refused = [it for it in seen if not it["ok"]]
        if refused:
            sys.exit(f"{kind} refused: {refused}")
        passed += len(seen)
    # And the receiver does verify: what is signed by a secret it does not know is refused.
    strange = {"key": "a secret of nobody" if scheme in SECRETS else "whsec_" + "A" * 32}
    receiver.trust(path, scheme, {**strange, "public_key": "whpk_" + "A" * 43 + "="})
    seen = publish([{"type": "strange", "data": 1}])
    accepted = [it for it in seen if it["ok"]]
    if accepted:
        sys.exit(f"{kind} accepted what it must not: {accepted}")
    api.call("DELETE", f"endpoints/{endpoint}")
    return passed


def main():
    hookgate, modules = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="hookgate-interop-"))
    # Node finds packages beside the script that imports them.
    scripts = Path(modules).parent
    for script in ["receiver.mjs", "cloud_events.mjs"]:
        shutil.copy(HERE / script, scripts / script)
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
            "node": ["node", str(scripts / "receiver.mjs")],
        }
        passed = cloud_events.check(api, wait_for, KEY, scripts / "cloud_events.mjs")
        for name, command in commands.items():
            receiver = Receiver(name, command)
            processes.append(receiver.process)
            for scheme in SCHEMES[name]:
                passed += check(api, receiver, scheme)
        print(f"{passed} passed, 0 failed")
    finally:
        for process in processes:
            process.terminate()
            process.wait()
        shutil.rmtree(folder)


main()
