"""What is in deploy/, against a real gateway and a real Prometheus.

promtool checks the rules, their tests, the scrape configuration and what /metrics says; all names
that rules and dashboard use must be those of the gateway; then Prometheus scrapes a loaded gateway
through a scripted outage, and the alerts for it must fire. Only on loopback.

    run.py BINARY
"""

import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
KEY = "operator-key-of-the-tests"
failures = []


def check(what, fine, detail=""):
    print(f"{'ok    ' if fine else 'FAILED'}  {what}{'' if fine else ': ' + str(detail)[:600]}", flush=True)
    if not fine:
        failures.append(what)


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    return done.returncode == 0, done.stdout + done.stderr


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def call(url, body=None, method=None, kind="application/json"):
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)
    request.add_header("authorization", f"Bearer {KEY}")
    request.add_header("content-type", kind)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Receiver(http.server.ThreadingHTTPServer):
    """Answers 200, or 500 while it is broken."""

    broken = False
    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(500 if self.server.broken else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def start_gateway(binary, folder):
    process = subprocess.Popen(
        [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder / "data", "--allow-private-endpoints"],
        env={**os.environ, "HOOKGATE_OPERATOR_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=open(folder / "gateway.log", "w"),
        text=True,
    )
    return process, json.loads(process.stdout.readline())["listening"]


def names_used(text):
    """Metrics in an expression."""
    text = re.sub(r'"[^"]*"', '""', text)
    return set(re.findall(r"\b(?:hookgate|process|http_server)_[a-z_]+\b", text))


def static_checks(server):
    for name in ("rules", "config"):
        path = RULES if name == "rules" else DEPLOY / "prometheus" / "prometheus.yml"
        check(f"promtool check {name}", *run("promtool", "check", name, path))
    check("promtool test rules", *run("promtool", "test", "rules", DEPLOY / "prometheus" / "rules_test.yml"))
    rules = RULES.read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    tested = (DEPLOY / "prometheus" / "rules_test.yml").read_text()
    _, page = call(f"{server}/docs/runbook")
    anchors = set(re.findall(r'<h2 id="([^"]+)"', page))
    blocks = re.split(r"- alert: ", rules)[1:]
    for alert, block in zip(alerts, blocks):
        link = re.search(r'runbook_url: "[^#"]*/docs/runbook#([^"]+)"', block)
        check(f"{alert} has a runbook", link and link[1] in anchors, link and link[1])
        check(f"{alert} has summary and description", "summary:" in block and "description:" in block)
        check(f"{alert} is tested both ways", tested.count(f'"{alert}') >= 1 and f'{alert} stays quiet' in tested)


def names_checks(server):
    # Some have series only once there was one.
    call(f"{server}/v1/tenants/default/events", {"type": "a b"})
    call(f"{server}/metrics")
    _, text = call(f"{server}/metrics")
    check("promtool check metrics", *run("promtool", "check", "metrics", input=text))
    known = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    for name in set(known):
        known |= {name + it for it in ("_bucket", "_sum", "_count")}
    used = {}
    rules = RULES.read_text()
    expressions = re.findall(r"expr: (?:\|\n((?:          .*\n)+)|(.+))", rules)
    for block, line in expressions:
        for name in names_used(block or line):
            used.setdefault(name, "rules.yml")
    dashboard = json.loads((DEPLOY / "grafana" / "hookgate.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for name in names_used(target["expr"]):
                used.setdefault(name, panel["title"])
    strange = {name: where for name, where in used.items() if name not in known}
    check(f"{len(used)} metrics that rules and dashboard name exist", used and not strange, strange)


def outage(server, folder, gateway):
    """The rules as they are, but for shorter times, so that an outage takes seconds."""
    rules = RULES.read_text()
    rules = re.sub(r"for: \d+m", "for: 1s", rules)
    rules = re.sub(r"\[(?:5m|10m|30m|1h|6h)\]", "[8s]", rules)
    rules = rules.replace("> 10000", "> 20").replace("_oldest_seconds > 60", "_oldest_seconds > 1")
    (folder / "rules.yml").write_text(rules)
    check("promtool check rules, with shorter times", *run("promtool", "check", "rules", folder / "rules.yml"))
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    config = config.replace("15s", "1s").replace("127.0.0.1:8080", server.removeprefix("http://"))
    config = config[: config.index("alerting:")]
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    prometheus = subprocess.Popen(
        ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=open(folder / "prometheus.log", "w"),
    )
    try:
        watch(server, f"http://127.0.0.1:{port}", gateway)
    finally:
        prometheus.terminate()
        prometheus.wait()


def firing(prometheus):
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/alerts", timeout=5) as answer:
            alerts = json.load(answer)["data"]["alerts"]
    except (urllib.error.URLError, ConnectionError):
        return set()
    return {it["labels"]["alertname"] for it in alerts if it["state"] == "firing"}


def watch(server, prometheus, gateway):
    receiver = Receiver()
    base = f"{server}/v1/tenants/default"
    call(f"{base}/endpoints", {
        "url": f"http://127.0.0.1:{receiver.server_port}/", "retry": {"schedule": ["1s", "1s", "2s"]},
    })
    # One that gives up at once: what it does not take is dead.
    call(f"{base}/endpoints", {
        "url": f"http://127.0.0.1:{receiver.server_port}/",
        "retry": {"base": "1s", "factor": 2, "max_delay": "1s", "max_attempts": 1, "jitter": 0},
    })
    load = threading.Event()

    def produce():
        lines = b"\n".join(json.dumps({"type": "a.b", "data": n}).encode() for n in range(10))
        while not load.wait(0.3):
            try:
                call(f"{base}/events", lines, kind="application/x-ndjson")
            except OSError:
                return

    threading.Thread(target=produce, daemon=True).start()
    seen = until(prometheus, set(), 8)
    quiet = seen & {"HookgateFailureRateHigh", "HookgateQueueLong", "HookgateDown", "HookgateNotReady"}
    check("nothing of it fires while all is well", not quiet, seen)
    receiver.broken = True
    wanted = {"HookgateFailureRateHigh", "HookgateQueueLong", "HookgateSuccessBurnFast"}
    seen = until(prometheus, wanted, 40)
    check("alerts fire while the receiver is broken", wanted <= seen, seen)
    load.set()
    gateway.terminate()
    gateway.wait()
    seen = until(prometheus, {"HookgateDown"}, 15)
    check("an alert fires when the gateway is gone", "HookgateDown" in seen, seen)


def until(prometheus, wanted, seconds):
    """What has fired when all that is wanted has, or the time is over."""
    seen, end = set(), time.monotonic() + seconds
    while time.monotonic() < end and not (wanted and wanted <= seen):
        seen |= firing(prometheus)
        time.sleep(0.3)
    return seen


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    for tool in ("promtool", "prometheus"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not there: apt-get install prometheus")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        gateway, server = start_gateway(binary, folder)
        try:
            static_checks(server)
            names_checks(server)
            outage(server, folder, gateway)
        finally:
            gateway.kill()
            gateway.wait()
    print(f"{len(failures)} failed")
    sys.exit(bool(failures))


main()
