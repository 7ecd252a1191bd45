"""Servers of object stores on the loopback interface, and a proxy before them whose faults a test chooses."""

import contextlib
import http.client
import http.server
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}
WRITES = ("PUT", "POST", "DELETE")


@dataclass
class Proxy:
    """What the proxy does with the next requests."""

    port: int = 0
    fault: Callable[[str, str], str | None] = lambda method, path: None
    """Gives the fault of a request: unavailable (503), forbidden (403), cut (half of the answer), lost (a write that is
    answered and dropped), dead (the connection is closed), silent (it stays open without an answer), or None."""
    awaited_reads: tuple[int, str] = (0, "")
    """(N, TEXT): reads of paths with TEXT are held back until N of them have waited at once, for at most a minute."""
    most_reads_at_once: int = 0
    """The maximum number of such reads that waited for their answers at the same time."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """The requests that came, as method and path."""
    reads: list[tuple[str, int]] = field(default_factory=list)
    """The reads of objects and of listings of S3 that were answered, as path and number of bytes."""

    def reset(self) -> None:
        """Lets every request pass, and forgets those that came."""
        self.fault, self.awaited_reads = lambda method, path: None, (0, "")
        self.requests.clear()
        self.reads.clear()
        self.most_reads_at_once = 0

    def bytes_read(self, containing: str) -> int:
        """The number of bytes that reads of paths with a text were answered."""
        return sum(number for path, number in self.reads if containing in path)

    def faults(self, kind: str, *, method: str, containing: str = "", times: int = 1) -> None:
        """Lets the first `times` requests of a method whose path contains a text meet a fault."""
        left = [times]

        def fault(of: str, path: str) -> str | None:
            if of == method and containing in path and left[0] > 0:
                left[0] -= 1
                return kind
            return None

        self.fault = fault


@contextlib.contextmanager
def proxy_before(port: int) -> Iterator[Proxy]:
    """Yields a proxy before the server at a port of this machine."""
    proxy = Proxy()
    reading: list[str] = []
    changed = threading.Condition()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            proxy.requests.append((self.command, self.path))
            body = self._body()
            kind = proxy.fault(self.command, urllib.parse.unquote(self.path))
            if kind == "dead":
                self.close_connection = True
                return
            if kind == "silent":
                self.rfile.read(1)  # until the client gives up
                self.close_connection = True
                return
            if kind == "unavailable":
                self._send(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
                return
            if kind == "forbidden":
                self._send(403, {"Content-Type": "application/xml"}, _FORBIDDEN)
                return
            if kind == "lost":
                self._send(200, {"ETag": '"0"'}, b"")
                return
            awaited, containing = proxy.awaited_reads
            if self.command == "GET" and containing in self.path:
                with changed:
                    reading.append(self.path)
                    proxy.most_reads_at_once = max(proxy.most_reads_at_once, len(reading))
                    changed.notify_all()
                    changed.wait_for(lambda: proxy.most_reads_at_once >= awaited, timeout=60)
                    reading.remove(self.path)
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            server.request(self.command, self.path, body=body, headers=headers)
            answer = server.getresponse()
            content = answer.read()
            if self.command == "GET" and not self.path.startswith(
                "/storage/v1/"
            ):  # which holds what GCS says of objects
                proxy.reads.append((urllib.parse.unquote(self.path), len(content)))
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self._send(answer.status, kept, content, length=length, cut=kind == "cut")
            server.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = answer

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(
            self, status: int, headers: dict[str, str], content: bytes, *, length: str | None = None, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
