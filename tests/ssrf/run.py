"""Proves that no SYN leaves for an address that deliveries must not reach.

usage (as root): run.py HOOKGATE

In a network namespace of its own every address there is leads to this machine and has a server
behind it, so that whatever the gateway connects to would answer. A raw socket sees every SYN. Then
the real binary is asked for each row of the deny table: spelled in many ways, by DNS, by DNS that
changes its mind, by mixed answers, by redirects.
"""

import http.client
import ipaddress
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

KEY = "operator-key-of-the-ssrf-suite"
DNS = "127.0.0.53"
SELF = "127.0.0.2"  # where this script's own connections come from
PUBLIC4, PUBLIC6 = "8.8.8.8", "2606:4700::8888"
OWN4 = "8.8.4.99"
PROXY = "198.51.100.9"
PORTS = [80, 443, 3128, 8080, 8443]
CASES_MIN = 1500

# IANA's special-purpose registries and what clouds put on public addresses.
# (`::ffff:0:0/96` is no row: its addresses are judged as the IPv4 addresses that they are.)
ROWS4 = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12
192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16
192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 233.252.0.0/24 240.0.0.0/4
255.255.255.255/32 100.100.100.200/32 169.254.169.254/32 169.254.170.2/32 192.0.0.192/32""".split()
ROWS6 = """::/128 ::1/128 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23
2001::/32 2001:2::/48 2001:20::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 4000::/2
5f00::/16 8000::/1 fc00::/7 fd00:ec2::254/128 fd00:ec2::23/128 fd20:ce::254/128 fe80::/10 fec0::/10
ff00::/8""".split()


def samples(rows):
    """First, middle and last address of each row."""
    for row in map(ipaddress.ip_network, rows):
        size = row.num_addresses
        for place in sorted({0, size // 2, size - 1}):
            yield row[place]


def spellings4(address):
    """The ways to write an IPv4 address in a URL, the IPv6 ones included."""
    number, parts = int(address), [int(it) for it in str(address).split(".")]
    a, b, c, d = parts
    wide = str.maketrans("0123456789.", "０１２３４５６７８９。")
    circled = {str(it): chr(0x2460 + it - 1) for it in range(1, 10)} | {"0": "⓪"}
    high, low = number >> 16, number & 0xFFFF
    yield str(address)
    yield f"{address}."
    yield str(number)
    yield hex(number)
    yield f"0{number:o}"
    yield ".".join(f"0{it:o}" for it in parts)
    yield ".".join(f"{it:#x}" for it in parts)
    yield f"{a}.{number & 0xFFFFFF}"
    yield f"{a}.{b}.{low}"
    yield f"{a:#x}.{number & 0xFFFFFF:#x}"
    yield str(address).translate(wide)
    yield "".join(circled.get(it, it) for it in str(address))
    yield f"[::ffff:{address}]"
    yield f"[::ffff:{high:x}:{low:x}]"
    yield f"[0:0:0:0:0:FFFF:{high:X}:{low:X}]"
    yield f"[::{address}]"
    yield f"[::ffff:0:{address}]"
    yield f"[64:ff9b::{address}]"
    yield f"[64:ff9b:1::{address}]"
    yield f"[2002:{high:x}:{low:x}::1]"
    yield f"[2001:0:808:808::{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}]"


def spellings6(address):
    yield f"[{address.compressed}]"
    yield f"[{address.exploded.upper()}]"


class Sniffer:
    """Every SYN in the namespace: (source, destination, port)."""

    def __init__(self):
        self.seen = set()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        while True:
            packet = self.socket.recv(65536)
            if packet[0] >> 4 == 4 and packet[9] == 6:
                source, target, rest = packet[12:16], packet[16:20], packet[(packet[0] & 15) * 4 :]
            elif packet[0] >> 4 == 6 and packet[6] == 6:
                source, target, rest = packet[8:24], packet[24:40], packet[40:]
            else:
                continue
            if rest[13] & 0x12 == 0x02:
                port = struct.unpack("!H", rest[2:4])[0]
                ends = (str(ipaddress.ip_address(it)) for it in (source, target))
                self.seen.add((*ends, port))


class Dns:
    """Answers what names ask for: the address is part of the name, and so is when it changes."""

    def __init__(self):
        self.turned, self.flips, self.asked = False, {}, 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((DNS, 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def addresses(self, name, kind):
        """`<how>-<address in hex>.rebind.net`"""
        how, digits = name.split(".")[0].split("-")
        target = ipaddress.ip_address(bytes.fromhex(digits))
        public = ipaddress.ip_address(PUBLIC4)
        if how == "is":
            found = [target]
        elif how == "mixed":
            found = [public, target]
        elif how == "turns":
            found = [target if self.turned else public]
        else:  # flips at each question for an IPv4 address
            if kind == 1:
                self.flips[name] = not self.flips.get(name, False)
            found = [public if self.flips.get(name) else target]
        return [it.packed for it in found if it.version == (4 if kind == 1 else 6)]

    def serve(self):
        while True:
            query, client = self.socket.recvfrom(4096)
            self.asked += 1
            place, labels = 12, []
            while query[place]:
                labels.append(query[place + 1 : place + 1 + query[place]].decode())
                place += 1 + query[place]
            question = query[12 : place + 5]
            kind = struct.unpack("!H", query[place + 1 : place + 3])[0]
            try:
                found = self.addresses(".".join(labels).lower(), kind) if kind in (1, 28) else []
            except ValueError:
                found = []
            head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0)
            record = lambda it: b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(it)) + it
            self.socket.sendto(head + question + b"".join(map(record, found)), client)


def name(how, address):
    return f"{how}-{address.packed.hex()}.rebind.net"


class Servers:
    """Something answers on every address: 200, or the redirect that the path asks for."""

    def __init__(self):
        for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for port in PORTS:
                listener = socket.socket(family, socket.SOCK_STREAM)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((wildcard, port))
                listener.listen(512)
                threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=self.answer, args=(stream,), daemon=True).start()

    def answer(self, stream):
        with stream:
            stream.settimeout(5)
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    part = stream.recv(65536)
                    if not part:
                        return
                    head += part
                path = head.split(b" ")[1].decode()
                status, extra = "200 OK", ""
                if path.startswith("/redirect/"):
                    _, _, code, target = path.split("/", 3)
                    status, extra = f"{code} Elsewhere", f"location: {target}\r\n"
                answer = f"HTTP/1.1 {status}\r\n{extra}connection: close\r\ncontent-length: 0\r\n\r\n"
                stream.sendall(answer.encode())
            except OSError:
                pass


class Gateway:
    def __init__(self, hookgate, folder):
        proxy = f"http://{PROXY}:3128"
        names = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"]
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen(
            [hookgate, "serve", "--listen", "127.0.0.1:0", "--allow-http"]
            + ["--data-dir", str(folder / "data")],
            env={**os.environ, "HOOKGATE_OPERATOR_KEY": KEY, **dict.fromkeys(names, proxy)},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = self.process.stdout.readline()
        self.port = int(json.loads(line)["listening"].rsplit(":", 1)[1])
        self.connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=60, source_address=(SELF, 0)
        )

    def call(self, method, path, body=None):
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        self.connection.request(method, f"/v1/tenants/default/{path}", data, headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read() or b"null")

    def create(self, url, kind="none"):
        retry = {"schedule": ["24h"], "jitter": 0}
        body = {"url": url, "event_types": [kind], "retry": retry, "timeout": "5s"}
        return self.call("POST", "endpoints", body)


class Suite:
    def __init__(self, hookgate, folder):
        self.sniffer, self.dns, self.servers = Sniffer(), Dns(), Servers()
        self.gateway = Gateway(hookgate, folder)
        self.cases, self.broken, self.faults = 0, 0, []

    def expect(self, what, good):
        self.cases += 1
        if not good:
            self.faults.append(what)

    def refused(self, url, codes):
        status, answer = self.gateway.create(url)
        code = (answer or {}).get("code")
        self.expect(f"{url}: {status} {code}", status == 422 and code in codes)
        return answer

    def is_caught(self):
        """The suite itself: a connection to a denied address is possible, answered and seen."""
        for address in ("10.0.0.5", "169.254.169.254", "203.0.113.10"):
            socket.create_connection((address, 80), 5, (SELF, 0)).close()
        for address in ("fd00::5", "2001:db8::5"):
            socket.create_connection((address, 80), 5).close()
        time.sleep(0.3)
        seen = {target for _, target, _ in self.sniffer.seen}
        missing = {"10.0.0.5", "169.254.169.254", "fd00::5", "2001:db8::5"} - seen
        if missing:
            sys.exit(f"the sniffer does not see SYNs to {missing}")
        self.sniffer.seen.clear()

    def literals(self):
        blocked = {"url_blocked_address"}
        for address in samples(ROWS4):
            for spelling in spellings4(address):
                # A parser may refuse a spelling before it is known to be an address.
                self.refused(f"https://{spelling}/", blocked | {"url_invalid"})
            self.refused(f"http://{address}:8080/", blocked)
        for address in samples(ROWS6):
            for spelling in spellings6(address):
                self.refused(f"https://{spelling}/", blocked)
        for odd in ("localhost", "a.localhost", "metadata.google.internal", f"{OWN4}", "[::1%25lo]"):
            self.refused(f"https://{odd}/", blocked | {"url_invalid"})

    def names(self):
        said = self.refused("https://10.0.0.1/", {"url_blocked_address"})["detail"]
        for address in [*samples(ROWS4), *samples(ROWS6)]:
            for how in ("is", "mixed"):
                url = f"https://{name(how, address)}/"
                answer = self.refused(url, {"url_blocked_address"}) or {}
                self.expect(f"{url} says {answer.get('detail')}", answer.get("detail") == said)

    def deliveries(self, kind, urls, outcomes, events=1):
        """Endpoints that are good when they are made; what becomes of their deliveries."""
        ids = []
        for url in urls:
            status, answer = self.gateway.create(url, kind)
            if status != 201:
                sys.exit(f"{url}: {status} {answer}")
            ids.append((url, answer["id"]))
        if kind.startswith("turns"):
            self.dns.turned = True
        for _ in range(events):
            status, answer = self.gateway.call("POST", "events", {"type": kind, "data": 1})
            if status != 202:
                sys.exit(f"an event: {status} {answer}")
        for url, endpoint in ids:
            deadline = time.monotonic() + 60
            while True:
                path = f"endpoints/{endpoint}/attempts?limit=250"
                attempts = self.gateway.call("GET", path)[1]["data"]
                if len(attempts) >= events or time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            self.expect(f"{url}: {len(attempts)} attempts", len(attempts) >= events)
            for attempt in attempts:
                word = attempt["outcome"]
                if word == "connection_closed":
                    # The server of this suite broke off: that says nothing of where a request may
                    # go. A few, among thousands.
                    self.broken += 1
                    continue
                self.expect(f"{url}: {word} {attempt['error']}", word in outcomes)
        return ids

    def run(self):
        self.is_caught()
        plain = [f"http://{PUBLIC4}/", f"http://[{PUBLIC6}]/"]
        public = ipaddress.ip_address(PUBLIC4)
        self.deliveries("control", [*plain, f"http://{name('is', public)}/"], {"delivered"})
        self.literals()
        self.names()
        denied = [*samples(ROWS4), *samples(ROWS6)]
        turning = [f"http://{name('turns', it)}/" for it in denied]
        made = self.deliveries("turns", turning, {"blocked_address"})
        for url, endpoint in made[:5]:
            attempt = self.gateway.call("POST", f"endpoints/{endpoint}/test", {})[1]
            self.expect(f"test of {url}: {attempt}", attempt.get("outcome") == "blocked_address")
        flipping = []
        for address in list(samples(ROWS4))[:10]:
            # Whoever creates it asks once; then answers take turns.
            host = name("flips", address)
            self.dns.flips[host] = False
            flipping.append(f"http://{host}/")
        self.deliveries("flips", flipping, {"blocked_address", "delivered"}, events=100)
        redirects = []
        for address in denied[::2]:
            host = f"[{address}]" if address.version == 6 else str(address)
            for code in (301, 302, 303, 307, 308):
                redirects.append(f"http://{PUBLIC4}/redirect/{code}/http://{host}/")
        self.deliveries("redirects", redirects, {"redirect_refused"})
        time.sleep(0.5)
        return self.judge()

    def judge(self):
        allowed = {PUBLIC4, PUBLIC6}
        api = ("127.0.0.1", self.gateway.port)
        stray = [it for it in self.sniffer.seen if it[1] not in allowed]
        stray = [it for it in stray if not (it[0] == SELF and it[1:] == api)]
        reached = {it[1] for it in self.sniffer.seen} & allowed
        if reached != allowed:
            sys.exit(f"the control was not reached: {reached}")
        for syn in sorted(stray):
            print("a SYN left:", *syn)
        self.expect(f"{self.broken} connections broke", self.broken <= 3)
        for fault in self.faults[:40]:
            print("not as expected:", fault)
        print(f"{self.cases} cases, {self.dns.asked} look-ups, {len(stray)} SYNs to denied addresses")
        if self.cases < CASES_MIN:
            sys.exit(f"fewer than {CASES_MIN} cases")
        return 1 if stray or self.faults else 0


def inside(hookgate):
    for command in (
        "ip link set lo up",
        f"ip addr add {OWN4}/32 dev lo",
        "ip -6 addr add 2606:4700::99/128 dev lo nodad",
        "ip route add local 0.0.0.0/0 dev lo",
        "ip -6 route add local ::/0 dev lo",
    ):
        subprocess.run(command.split(), check=True)
    folder = Path(tempfile.mkdtemp(prefix="hookgate-ssrf-"))
    suite = None
    try:
        suite = Suite(hookgate, folder)
        return suite.run()
    finally:
        if suite:
            suite.gateway.process.terminate()
            suite.gateway.process.wait()
        shutil.rmtree(folder)


def main():
    if sys.argv[1] == "--inside":
        sys.exit(inside(sys.argv[2]))
    if os.geteuid() != 0:
        sys.exit("network namespaces need root")
    space = f"hookgate-ssrf-{os.getpid()}"
    settings = Path("/etc/netns") / space
    try:
        settings.mkdir(parents=True)
        (settings / "resolv.conf").write_text(f"nameserver {DNS}\n")
        subprocess.run(["ip", "netns", "add", space], check=True)
        hookgate = str(Path(sys.argv[1]).resolve())
        command = [sys.executable, __file__, "--inside", hookgate]
        ended = subprocess.run(["ip", "netns", "exec", space, *command], timeout=600)
        sys.exit(ended.returncode)
    finally:
        subprocess.run(["ip", "netns", "delete", space])
        shutil.rmtree(settings, ignore_errors=True)


main()
