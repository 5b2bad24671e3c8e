# SPDX-License-Identifier: GPL-2.0-or-later
"""An HTTP server of source files whose first directory says how it fails."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATUSES = {'none': 404, 'refused': 403, 'ill': 500}


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        kind, name = self.path.strip('/').split('/', 1)
        start = self.start_of_range()
        self.server.asked.append((kind, name, start))
        path = self.server.folder / name
        if kind in STATUSES or not path.is_file():
            self.send_error(STATUSES.get(kind, 404))
        else:
            self.send_body(kind, path.read_bytes(), start)

    def start_of_range(self):
        match = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
        return int(match[1]) if match else 0

    def send_body(self, kind, body, start):
        if kind == 'wrong':
            body = bytes([body[0] ^ 1]) + body[1:]
        if kind == 'no-ranges':
            start = 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:self.end(kind, len(body))])
        self.close_connection = True

    def end(self, kind, size):
        """Where the connection breaks, if it does."""
        first = len([kind for kind, *_ in self.server.asked if kind in ('breaks', 'no-ranges')]) == 1
        if kind == 'always-breaks':
            return 100 * len(self.server.asked)
        return size // 2 if first and kind in ('breaks', 'no-ranges') else size


class SourceServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder):
        super().__init__(('127.0.0.1', 0), Handler)
        self.folder = Path(folder)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, kind, name=''):
        return f'http://127.0.0.1:{self.server_port}/{kind}/{name}'
