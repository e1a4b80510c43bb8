# SPDX-License-Identifier: Apache-2.0
"""A server with a thread for each connection, as Python's library has it; for measure.py. Usage: server.py PORT"""

import http.server
import sys

BODY = b"Hello, World!"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 4096

    def handle_error(self, *_):
        """Connections that wrk resets at its end."""


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
