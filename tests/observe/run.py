"""What is in deploy/, against a real gateway and a real Prometheus.

promtool checks the rules, their tests, the scrape configuration and what /metrics says; all names
that rules and dashboard use must be those of the gateway; then Prometheus scrapes gateways through a
bad day (outage.py), and each alert must fire. Only on loopback; needs root and Linux.

    run.py BINARY [BINARY-WITH-FAILPOINTS]

The second one (`.ci/faults` leaves it in target/faults) is for the alert of a fault that only such a
build can be made to have; without it that alert is left out, which is said.
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


def start_gateway(binary, folder, **environment):
    process = subprocess.Popen(
        [binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder / "data", "--allow-private-endpoints"],
        env={**os.environ, "HOOKGATE_OPERATOR_KEY": KEY, **environment},
        stdout=subprocess.PIPE,
        stderr=open(folder / "gateway.log", "w"),
        text=True,
    )
    return process, listening(process)["listening"]


def listening(process):
    """The first line that a gateway says."""
    line = process.stdout.readline()
    return json.loads(line) if line else sys.exit(f"a gateway does not start: {process.wait()}")


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


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    for tool in ("promtool", "prometheus", "strace", "faketime"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not there: apt-get install prometheus strace faketime")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        gateway, server = start_gateway(binary, folder)
        try:
            static_checks(server)
            names_checks(server)
        finally:
            gateway.kill()
            gateway.wait()
        day = folder / "day"
        day.mkdir()
        faulty = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
        outage.bad_day(binary, day, faulty)
    print(f"{len(failures)} failed")
    sys.exit(bool(failures))


if __name__ == "__main__":
    # The same module for both, so that there is one list of failures.
    sys.modules["run"] = sys.modules["__main__"]
    import outage

    main()
