"""A server of files as the Hugging Face Hub serves them: git files directly, large files through a redirect."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = '0123456789abcdef0123456789abcdef01234567'


@dataclass
class Hub:
    """Files that are served, and the requests for them.

    Attributes:
        files: Contents by repository and file name; other paths, by the whole path, are served as plain URLs.
        cut: Files of which only half arrives; that of a plain URL breaks off.
        private: Repositories that a token opens.
        gated: Repositories that a token opens, and which say so.
        requests: Method and path of every request.
        url: Of the server.
    """

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ''

    def downloads(self) -> int:
        """Count the files that were sent; the client also asks for other things."""
        return sum(method == 'GET' and not path.startswith('/api/') for method, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:  # noqa: N802
        self.answer()

    def do_GET(self) -> None:  # noqa: N802
        self.answer()

    def answer(self) -> None:
        self.hub.requests.append((self.command, self.path))
        parts = self.path.strip('/').split('/')
        if parts[0] == 'cdn':
            return self.send_file('/'.join(parts[1:3]), '/'.join(parts[3:]))
        if len(parts) < 5 or parts[2] != 'resolve':
            return self.send_file('', self.path)
        repo, revision, name = '/'.join(parts[:2]), parts[3], '/'.join(parts[4:])
        if repo in self.hub.private and self.headers['Authorization'] != 'Bearer hf_secret':
            return self.refuse(401, 'RepoNotFound')
        if repo in self.hub.gated and self.headers['Authorization'] != 'Bearer hf_secret':
            return self.refuse(403 if self.headers['Authorization'] else 401, 'GatedRepo')
        if not any(known == repo for known, _ in self.hub.files):
            return self.refuse(401, 'RepoNotFound')
        if revision not in ('main', 'v1.0', COMMIT):
            return self.refuse(404, 'RevisionNotFound')
        if (repo, name) not in self.hub.files:
            return self.refuse(404, 'EntryNotFound')
        return self.redirect(repo, name)

    def redirect(self, repo: str, name: str) -> None:
        content = self.hub.files[repo, name]
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        storage = self.hub.url.replace('127.0.0.1', 'localhost')  # another host, where no token goes
        self.send_header('Location', f'{storage}/cdn/{repo}/{name}')
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('X-Linked-Etag', f'"{digest}"')
        self.send_header('X-Linked-Size', str(len(content)))
        self.send_header('Content-Length', '0')
        self.end_headers()

    def send_file(self, repo: str, name: str) -> None:
        if (repo, name) not in self.hub.files:
            return self.refuse(404, '')
        content = whole = self.hub.files[repo, name]
        if name in self.hub.cut:
            content = content[: len(content) // 2]
        self.send_response(200)
        self.send_header('Content-Length', str(len(content if repo else whole)))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header('X-Error-Code', code)
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve a hub on a port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(('127.0.0.1', 0), type('HubHandler', (Handler,), {'hub': hub}))
    hub.url = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
