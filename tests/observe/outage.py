"""A bad day, as a real Prometheus sees it: every alert of deploy/ must fire.

The rules are as they are, but for shorter times and thresholds, so that minutes take seconds. One
gateway has endpoints that break in each of their ways; another has a poor machine: a disk that syncs
slowly and fills up, and a clock that jumps. Needs root, for that disk.
"""

import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from run import DEPLOY, KEY, RULES, call, check, free_port, listening, run, start_gateway

BROKEN_JS = """export default { filter(event) { throw new Error("as it was told") } };
"""
CLOCK = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
# What may fire on a crowded machine while all is well.
MACHINE = {"HookgateFsyncSlow", "HookgateDiskFull", "HookgateOverdue", "HookgateDeliveryLatencyHigh"}


class Receiver(http.server.ThreadingHTTPServer):
    """Answers by path, each in its way: once `broken`, /good does not any more."""

    broken = False
    daemon_threads = True
    request_queue_size = 128

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(self.server.status(self.path))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.count = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def status(self, path):
        if path == "/hangs":
            time.sleep(20)
        if path == "/slow":
            time.sleep(2)
        if path == "/gone":
            return 410
        if path == "/flaky":
            # Two of three fail: not enough for a breaker.
            with self.lock:
                self.count += 1
                return 200 if self.count % 3 == 0 else 500
        return 500 if path == "/good" and self.broken else 200

    def handle_error(self, *_):
        # Who sends may be gone before it is answered.
        pass


class Load:
    """Producers: of each kind so many events, twice a second."""

    def __init__(self):
        self.kinds = {}
        self.over = threading.Event()
        threading.Thread(target=self.produce, daemon=True).start()

    def produce(self):
        while not self.over.wait(0.5):
            for (server, kind), count in list(self.kinds.items()):
                publish(server, kind, count)


def publish(server, kind, count, tenant="default"):
    lines = b"\n".join(json.dumps({"type": kind, "data": n}).encode() for n in range(count))
    try:
        call(f"{server}/v1/tenants/{tenant}/events", lines, kind="application/x-ndjson")
    except OSError:
        # It is gone, which may be what the day is about.
        pass


class Watch:
    """Remembers each alert that has fired, and of which instance."""

    def __init__(self, prometheus):
        self.prometheus = prometheus
        self.seen = set()
        threading.Thread(target=self.look, daemon=True).start()

    def look(self):
        while True:
            try:
                with urllib.request.urlopen(f"{self.prometheus}/api/v1/alerts", timeout=5) as answer:
                    alerts = json.load(answer)["data"]["alerts"]
                self.seen |= {it["labels"]["alertname"] for it in alerts if it["state"] == "firing"}
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.3)

    def until(self, wanted, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not wanted <= self.seen:
            time.sleep(0.2)
        for alert in sorted(wanted):
            check(f"{alert} fires", alert in self.seen, sorted(self.seen))


def shortened():
    rules = RULES.read_text()
    for long, short in [
        (r"for: \d+m", "for: 1s"),
        (r"\[(?:5m|10m|30m|1h|6h)\]", "[8s]"),
        (r"\[1d\] offset 1h", "[8s] offset 10s"),
        (r"> 10000", "> 20"),
        (r"_oldest_seconds > 60", "_oldest_seconds > 1"),
        (r"> 0\) > 5\n", "> 0) > 1\n"),
        (r"(dead_letters\[8s\]\)) > 100", r"\1 > 5"),
    ]:
        rules, count = re.subn(long, short, rules)
        check(f"rules have {long}", count > 0)
    return rules


class Prometheus:
    def __init__(self, folder, servers):
        self.folder = folder
        (folder / "rules.yml").write_text(shortened())
        check("promtool check rules, with shorter times", *run("promtool", "check", "rules", folder / "rules.yml"))
        self.configure(servers)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=open(folder / "prometheus.log", "w"),
        )

    def settle(self, count):
        """Waits until it has met each gateway, and what it said before that is over."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.url}/api/v1/query?query=up", timeout=5) as answer:
                    up = [it["value"][1] for it in json.load(answer)["data"]["result"]]
                with urllib.request.urlopen(f"{self.url}/api/v1/alerts", timeout=5) as answer:
                    alerts = {it["labels"]["alertname"] for it in json.load(answer)["data"]["alerts"]}
                if up == ["1"] * count and "HookgateAbsent" not in alerts:
                    return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        check("Prometheus meets the gateways", False)

    def configure(self, servers):
        """As in deploy/, with these targets; with none, as if nobody could be found."""
        config = (DEPLOY / "prometheus" / "prometheus.yml").read_text().replace("15s", "1s")
        targets = json.dumps([it.removeprefix("http://") for it in servers])
        config = config[: config.index("alerting:")].replace('["127.0.0.1:8080"]', targets)
        (self.folder / "prometheus.yml").write_text(config)

    def read_again(self, servers):
        self.configure(servers)
        self.process.send_signal(signal.SIGHUP)


def start_poor(binary, folder):
    """A gateway on a disk of 128 MiB that takes 80 ms to sync, with a clock that can be set."""
    disk, clock = folder / "disk", folder / "clock"
    disk.mkdir()
    clock.write_text("+0")
    mount = 'mount -t tmpfs -o size=128m tmpfs "$1" && shift && exec "$@"'
    slow = "inject=fsync,fdatasync:delay_exit=80000"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mount, "sh", disk,
         "strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", slow,
         "-E", f"LD_PRELOAD={CLOCK}", "-E", f"FAKETIME_TIMESTAMP_FILE={clock}", "-E", "FAKETIME_NO_CACHE=1",
         "-E", "FAKETIME_DONT_FAKE_MONOTONIC=1",
         binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", disk / "data"],
        env={**os.environ, "HOOKGATE_OPERATOR_KEY": KEY}, stdout=subprocess.PIPE,
        stderr=open(folder / "poor.log", "w"), text=True,
    )
    first = listening(process)
    return process, first["listening"], first["pid"], clock


def fill(pid, folder):
    """Leaves 8 MiB of the poor gateway's disk, which only it sees."""
    disk = pathlib.Path(f"/proc/{pid}/root{folder / 'disk'}")
    with open(disk / "ballast", "wb") as ballast:
        while (space := os.statvfs(disk)).f_bavail * space.f_frsize > 8 << 20:
            ballast.write(bytes(1 << 20))
            ballast.flush()


def broken_plugin(binary, folder):
    """A component whose filter throws."""
    made, said = run(binary, "plugin", "new", "broken", "--lang", "javascript", "--kind", "filter", cwd=folder)
    (folder / "broken" / "plugin.js").write_text(BROKEN_JS)
    built, more = run(binary, "plugin", "build", cwd=folder / "broken")
    check("a plugin that throws is built", made and built, said + more)
    return (folder / "broken" / "target" / "broken.wasm").read_bytes()


def endpoints(server, receiver, component):
    base = f"{server}/v1/tenants/default"
    status, said = call(f"{base}/plugins/broken", component, method="PUT", kind="application/wasm")
    check("it is uploaded", status == 201, said)
    quick = {"schedule": ["1s"] * 20, "jitter": 0}
    once = {"base": "1s", "factor": 2, "max_delay": "1s", "max_attempts": 1, "jitter": 0}
    for path, kind, more in [
        ("good", "a.good", {"retry": {"schedule": ["1s", "1s", "2s"]}}),
        # What this one does not take is dead at once.
        ("good", "a.good", {"retry": once}),
        ("flaky", "a.flaky", {"retry": quick}),
        ("slow", "a.slow", {}),
        ("hangs", "a.hangs", {"max_in_flight": 1}),
        ("gone", "a.gone", {}),
        ("plugged", "a.plugged", {"plugins": [{"plugin": "broken"}], "retry": quick}),
    ]:
        body = {"url": f"http://127.0.0.1:{receiver.server_port}/{path}", "event_types": [kind], **more}
        status, said = call(f"{base}/endpoints", body)
        check(f"an endpoint: {path}", status == 201, said)


def forget(binary, folder, receiver, prometheus, watch):
    """A gateway that loses the first turn which it gives: one built with failpoints can be told to."""
    folder.mkdir()
    gateway, server = start_gateway(binary, folder, HOOKGATE_FAILPOINT="turn:1")
    try:
        prometheus.read_again([server])
        prometheus.settle(1)
        base = f"{server}/v1/tenants/default"
        call(f"{base}/endpoints", {"url": f"http://127.0.0.1:{receiver.server_port}/any"})
        publish(server, "a.b", 3)
        watch.until({"HookgateLanesForgotten"}, 90)
    finally:
        gateway.kill()
        gateway.wait()


def bad_day(binary, folder, faulty):
    gateway, server = start_gateway(binary, folder)
    poor, poor_server, poor_pid, clock = start_poor(binary, folder)
    prometheus = Prometheus(folder, [server, poor_server])
    try:
        live(gateway, server, (poor_server, poor_pid, clock), prometheus, broken_plugin(binary, folder), folder, faulty)
    finally:
        # The tracer ends with what it traces.
        try:
            os.kill(poor_pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        gateway.kill()
        prometheus.process.terminate()
        for it in (gateway, poor, prometheus.process):
            it.wait()


def live(gateway, server, poor, prometheus, component, folder, faulty):
    poor_server, poor_pid, clock = poor
    receiver, load = Receiver(), Load()
    endpoints(server, receiver, component)
    load.kinds = {(server, "a.good"): 5, (server, "a.slow"): 1}
    prometheus.settle(2)
    watch = Watch(prometheus.url)
    time.sleep(6)
    check("nothing fires while all is well", not watch.seen - MACHINE, watch.seen)

    clock.write_text("+2h")
    receiver.broken = True
    load.kinds |= {(server, f"a.{it}"): 3 for it in ("flaky", "hangs", "gone", "plugged")}
    load.kinds[(poor_server, "a.b")] = 2
    watch.until({
        "HookgateFailureRateHigh", "HookgateQueueLong", "HookgateOverdue", "HookgateDeliveryLatencyHigh",
        "HookgateSuccessBurnFast", "HookgateSuccessBurnSlow", "HookgateDeadLettersGrow", "HookgateRetryStorm",
        "HookgateEndpointsDisabled", "HookgatePluginsFail", "HookgateFsyncSlow", "HookgateClockSkewed",
    }, 60)
    fill(poor_pid, folder)
    watch.until({"HookgateDiskFull", "HookgateNotReady"}, 30)

    load.kinds = {(server, "a.good"): 2}
    call(f"{server}/v1/tenants/busy", {"name": "Busy"}, method="PUT")
    time.sleep(12)
    end = time.monotonic() + 20
    while "HookgateIngestSpike" not in watch.seen and time.monotonic() < end:
        publish(server, "a.b", 1000, "busy")
    watch.until({"HookgateIngestSpike"}, 0)
    load.over.set()
    watch.until({"HookgateIngestStopped"}, 40)
    gateway.kill()
    watch.until({"HookgateDown"}, 20)
    prometheus.read_again([])
    watch.until({"HookgateAbsent"}, 20)
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    if faulty:
        forget(faulty, folder / "faulty", receiver, prometheus, watch)
    else:
        # A fault of the gateway's own, which no outage brings about.
        print("left out  HookgateLanesForgotten: no binary with failpoints was given")
        alerts -= {"HookgateLanesForgotten"}
    check(f"each of the {len(alerts)} alerts has fired", alerts <= watch.seen, alerts - watch.seen)
