#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Starts servers on the loopback interface, runs a program against them, and stops them.

    server.py KIND[,KIND...] PROGRAM [ARGUMENT...]

Every server has a directory and a port of its own, listens on 127.0.0.1 only, and is stopped by its process
id, whatever way the program ends. The program finds them by its environment:

    TENDRIL_<KIND>_PORT     the port
    TENDRIL_<KIND>_DIR      its directory: sockets, certificates, keys
    TENDRIL_SERVERS         descriptor of a stream socket: "stop KIND\\n", "kill KIND\\n" (SIGKILL) and
                            "start KIND\\n" are answered with "ok\\n" when it is done

Ends with the program's status; with 77, which the tests count as skipped, if a server is not installed.
"""

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SKIPPED = 77
STARTING = 60.0  # seconds that a server may take


class Missing(Exception):
    pass


def find(name, *more):
    """The path of a program that may be in a directory for administrators."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *more])
    found = shutil.which(name, path=path)
    if found is None:
        raise Missing(name)
    return found


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """One server: prepared once, started and stopped as often as asked."""

    user = None  # whom root becomes, for servers that refuse to be root

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.process = None
        self.log = open(os.path.join(directory, "log"), "ab")
        self.identity = {}
        if self.user is not None and os.geteuid() == 0:
            try:
                entry = pwd.getpwnam(self.user)
            except KeyError:
                entry = pwd.getpwnam("nobody")
            self.identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(directory, entry.pw_uid, entry.pw_gid)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text, mode=0o644):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def call(self, *command):
        result = subprocess.run(command, cwd=self.directory, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, check=False, **self.identity)
        if result.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with {result.returncode}:\n"
                               + result.stdout.decode(errors="replace"))

    def prepare(self):
        pass

    def command(self):
        raise NotImplementedError

    def environment(self):
        """What the program is told besides the port and the directory."""
        return {}

    def answers(self):
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def start(self):
        self.process = subprocess.Popen(self.command(), cwd=self.directory, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, start_new_session=True,
                                        **self.identity)
        end = time.monotonic() + STARTING
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{type(self).__name__} ended with {self.process.returncode}:\n"
                                   + self.said())
            try:
                if self.answers():
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                raise RuntimeError(f"{type(self).__name__} does not answer on port {self.port}:\n"
                                   + self.said())
            time.sleep(0.02)

    def said(self):
        with open(self.path("log"), "rb") as f:
            return f.read()[-4000:].decode(errors="replace")

    def stop(self, how=signal.SIGTERM):
        if self.process is None:
            return
        # Its own session: what it has forked goes with it.
        for sent in (how, signal.SIGKILL):
            try:
                if sent == signal.SIGKILL:
                    os.killpg(self.process.pid, sent)
                else:
                    self.process.send_signal(sent)
            except ProcessLookupError:
                pass
            try:
                self.process.wait(10)
                break
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process = None


class Postgres(Server):
    user = "postgres"

    def prepare(self):
        versions = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        self.initdb = find("initdb", *versions[-1:])
        self.postgres = find("postgres", *versions[-1:])
        self.call(self.initdb, "-D", self.path("data"), "-U", "tendril", "-A", "trust", "--no-sync",
                  "-E", "UTF8", "--locale=C")

    def command(self):
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "max_connections": 2200,
                    "unix_socket_directories": self.directory, "fsync": "off", "shared_buffers": "32MB",
                    "autovacuum": "off", "logging_collector": "off"}
        command = [self.postgres, "-D", self.path("data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def answers(self):
        # Accepting connections comes before being ready for them.
        with open(self.path("data/postmaster.pid"), encoding="utf-8") as f:
            return "ready" in f.read()

    def stop(self, how=signal.SIGTERM):
        # SIGTERM waits for clients to leave; SIGINT disconnects them.
        super().stop(signal.SIGINT if how == signal.SIGTERM else how)
        try:
            os.unlink(self.path("data/postmaster.pid"))
        except FileNotFoundError:
            pass


class Redis(Server):
    def command(self):
        return [find("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no", "--maxclients", "4000", "--dir", self.directory,
                "--unixsocket", self.path("socket")]


class Mariadb(Server):
    user = "mysql"

    def prepare(self):
        self.call(find("mariadb-install-db"), "--no-defaults", f"--datadir={self.path('data')}",
                  "--auth-root-authentication-method=normal", "--skip-test-db")

    def command(self):
        return [find("mariadbd"), "--no-defaults", f"--datadir={self.path('data')}",
                f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.path('socket')}",
                f"--pid-file={self.path('pid')}", "--max-connections=1100", "--skip-log-bin",
                "--thread-handling=pool-of-threads", "--thread-pool-max-threads=2000",
                "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]


class Nginx(Server):
    """/small: 16 bytes; /large: 1 MiB; /slow: 2,000 bytes in about a second. The same by TLS."""

    def __init__(self, directory):
        super().__init__(directory)
        self.tls_port = free_port()

    def prepare(self):
        os.mkdir(self.path("www"))
        with open(self.path("www/small"), "w", encoding="utf-8") as f:
            f.write("sixteen bytes..\n")
        with open(self.path("www/large"), "wb") as f:
            f.write(bytes(i * 31 % 251 for i in range(1 << 20)))
        with open(self.path("www/slow"), "wb") as f:
            f.write(b"s" * 2000)
        self.call(find("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
                  "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                  "-keyout", self.path("key.pem"), "-out", self.path("certificate.pem"))
        self.write("nginx.conf", f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {self.path("pid")};
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {self.path("body")};
  proxy_temp_path {self.path("proxy")};
  fastcgi_temp_path {self.path("fastcgi")};
  uwsgi_temp_path {self.path("uwsgi")};
  scgi_temp_path {self.path("scgi")};
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    listen 127.0.0.1:{self.tls_port} ssl backlog=4096;
    ssl_certificate {self.path("certificate.pem")};
    ssl_certificate_key {self.path("key.pem")};
    root {self.path("www")};
    location = /slow {{ limit_rate 1000; }}
  }}
}}
""")

    def command(self):
        return [find("nginx"), "-e", "stderr", "-p", self.directory, "-c", self.path("nginx.conf")]

    def environment(self):
        return {"TENDRIL_NGINX_TLS_PORT": str(self.tls_port)}


class Memcached(Server):
    def command(self):
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        return [find("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-c", "4096", *user]


class Dnsmasq(Server):
    """n<k>.example.test and every other name below example.test: 10.1.2.3; everything else does not exist."""

    def command(self):
        user = ["--user=root"] if os.geteuid() == 0 else []
        return [find("dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", f"--port={self.port}",
                "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts", "--no-poll",
                "--address=/example.test/10.1.2.3", "--local=/test/", f"--pid-file={self.path('pid')}",
                *user]


class Sshd(Server):
    def prepare(self):
        keygen = find("ssh-keygen")
        for name in ("host_key", "client_key"):
            # Not RSA: older releases of libssh2 sign with SHA-1 then, which servers no longer accept.
            self.call(keygen, "-q", "-t", "ecdsa", "-b", "256", "-m", "PEM", "-N", "", "-f", self.path(name))
        shutil.copy(self.path("client_key.pub"), self.path("authorized_keys"))
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self.write("sshd_config", f"""
ListenAddress 127.0.0.1:{self.port}
HostKey {self.path("host_key")}
AuthorizedKeysFile {self.path("authorized_keys")}
PidFile {self.path("pid")}
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 1000
UseDNS no
""")

    def command(self):
        return [find("sshd"), "-D", "-e", "-f", self.path("sshd_config")]


KINDS = {"postgres": Postgres, "redis": Redis, "mariadb": Mariadb, "nginx": Nginx,
         "memcached": Memcached, "dnsmasq": Dnsmasq, "sshd": Sshd}


def start_new(name, top):
    """A server that runs. Its port was free when it was chosen; somebody may have been quicker since."""
    for attempt in range(3):
        directory = os.path.join(top, name if attempt == 0 else f"{name}.{attempt}")
        os.mkdir(directory, 0o700)
        server = KINDS[name](directory)
        try:
            server.prepare()
            server.start()
            return server
        except RuntimeError as error:
            server.stop(signal.SIGKILL)
            print(f"server.py: {error}", file=sys.stderr)
    raise SystemExit(f"server.py: {name} does not start")


def serve_commands(mine, servers):
    """Until the program's end of the socket is closed."""
    with mine, mine.makefile("rw", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            words = line.split()
            try:
                what, kind = words
                if what == "start":
                    servers[kind].start()
                elif what == "stop":
                    servers[kind].stop()
                elif what == "kill":
                    servers[kind].stop(signal.SIGKILL)
                else:
                    raise ValueError(what)
                answer = "ok"
            except Exception as error:  # whatever it is, the program must hear of it
                answer = f"error {type(error).__name__} {error}".replace("\n", " ")
            lines.write(answer + "\n")
            lines.flush()


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    names = sys.argv[1].split(",")
    for name in names:
        if name not in KINDS:
            print(f"server.py: '{name}' is no server; known: {', '.join(KINDS)}", file=sys.stderr)
            return 2
    servers = {}
    environment = dict(os.environ)

    def ended(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ended)
    with tempfile.TemporaryDirectory(prefix="tendril-servers-", ignore_cleanup_errors=True) as top:
        os.chmod(top, 0o755)
        try:
            for name in names:
                server = servers[name] = start_new(name, top)
                directory = server.directory
                environment[f"TENDRIL_{name.upper()}_PORT"] = str(server.port)
                environment[f"TENDRIL_{name.upper()}_DIR"] = directory
                environment.update(server.environment())
            mine, theirs = socket.socketpair()
            environment["TENDRIL_SERVERS"] = str(theirs.fileno())
            program = subprocess.Popen(sys.argv[2:], env=environment, pass_fds=[theirs.fileno()])
            theirs.close()
            threading.Thread(target=serve_commands, args=(mine, servers), daemon=True).start()
            try:
                status = program.wait()
            finally:
                if program.poll() is None:
                    program.kill()
                    program.wait()
            return status if status >= 0 else 128 - status
        except Missing as error:
            print(f"server.py: {error} is not installed", file=sys.stderr)
            return SKIPPED
        finally:
            for server in servers.values():
                server.stop()


if __name__ == "__main__":
    sys.exit(main())
