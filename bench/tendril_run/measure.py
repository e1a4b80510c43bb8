# SPDX-License-Identifier: Apache-2.0
"""A server on threads against the same on fibers: memory with connections that wait, then requests by wrk, by turns.

    measure.py [--connections N] [--turns N] [--workers N] TENDRIL_RUN COMMAND...

COMMAND is a server's, with PORT where the port goes. Processor time is the server's own; ratios are taken within a turn."""

import argparse
import os
import random
import re
import socket
import statistics
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def kernel_stacks_kib():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("KernelStack:"))


class Server:
    def __init__(self, command):
        self.port = free_port()
        self.process = subprocess.Popen([a.replace("PORT", str(self.port)) for a in command])
        for _ in range(200):
            try:
                self.connect().close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"does not listen: {command}")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def kib(self):
        """Resident and page tables; how many threads."""
        with open(f"/proc/{self.process.pid}/status") as f:
            status = dict(line.split(":", 1) for line in f)
        number = lambda key: int(status[key].split()[0])
        return number("VmRSS") + number("VmPTE"), number("Threads")

    def with_waiting(self, connections):
        """KiB of the process and of kernel stacks, of the whole machine, for each; threads."""
        before, stacks = self.kib(), kernel_stacks_kib()
        held = []
        for _ in range(connections):
            s = self.connect()
            s.sendall(REQUEST)
            held.append(s)
        for s in held:
            if not s.recv(65536):
                raise RuntimeError("a connection was closed")
        after, stacks_after = self.kib(), kernel_stacks_kib()
        for s in held:
            s.close()
        time.sleep(0.5)  # until their threads have ended: they would be missed in the next one's kernel stacks
        return ((after[0] - before[0]) / connections, (stacks_after - stacks) / connections,
                after[1])

    def load(self, connections, seconds):
        before = self.cpu_seconds()
        text = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{self.port}/"],
            stdout=subprocess.PIPE, text=True, check=True).stdout
        time.sleep(0.3)  # until its connections have ended
        requests = int(re.search(r"(\d+) requests in", text).group(1))
        rate = float(re.search(r"Requests/sec:\s*([\d.]+)", text).group(1))
        return rate, (self.cpu_seconds() - before) / requests * 1e6

    def sums(self):
        with self.connect() as s:
            s.sendall(b"GET /stats HTTP/1.1\r\nHost: here\r\n\r\n")
            return s.recv(65536).split(b"\r\n\r\n")[-1].decode().strip()


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--connections", type=int, default=1000)
    options.add_argument("--turns", type=int, default=7)
    options.add_argument("--workers", default="2")
    options.add_argument("run")
    options.add_argument("command", nargs=argparse.REMAINDER)
    o = options.parse_args()
    fibers = [o.run, "--workers", o.workers]
    commands = {"threads": o.command, "copies": fibers + o.command,
                "shared": fibers + ["--shared-locals"] + o.command}
    servers = {}
    try:
        for name, command in commands.items():
            servers[name] = Server(command)
        waiting = {name: s.with_waiting(o.connections) for name, s in servers.items()}
        taken = {name: [] for name in servers}
        for _ in range(o.turns):
            for name in random.sample(list(servers), len(servers)):
                taken[name].append(servers[name].load(o.connections, 2))
        print(f"| {o.connections} connections | KiB a connection | and kernel stacks | threads | requests/s | to threads | "
              "us of processor a request | to threads |\n|---|---|---|---|---|---|---|---|")
        for name, t in taken.items():
            of = lambda i: statistics.median(x[i] for x in t)
            to = lambda i: statistics.median(x[i] / y[i] for x, y in zip(t, taken["threads"]))
            print(f"| {name} | {waiting[name][0]:.1f} | {waiting[name][1]:.1f} | {waiting[name][2]} | {of(0):,.0f} | {to(0):.2f} | "
                  f"{of(1):.1f} | {to(1):.2f} |")
        for name, s in servers.items():
            if "answered" in (sums := s.sums()):
                print(f"{name}: {sums}")
    finally:
        for s in servers.values():
            s.process.kill()


main()
