"""An OpenAI-compatible chat endpoint on the loopback that behaves, or misbehaves, as it is told."""

import contextlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCHEMA_FIELDS = ("title", "text", "keywords", "cover_text", "related_queries")


def document(query, **fields):
    """A valid answer about a query."""
    return {
        "title": f"Everything on the {query}",
        "text": f"A long look at one {query}, with prices and places where such things are sold.",
        "keywords": [query, "guide"],
        "cover_text": f"{query}!",
        "related_queries": [query, f"cheap {query}"],
    } | fields


def query_of(body):
    return re.search(r"^Search query: (.*)$", body["messages"][-1]["content"], re.MULTILINE).group(1)


def completion(content, **usage):
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110} | usage
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "writer",
        "choices": [choice],
        "usage": usage,
    }


class Cut(Exception):
    """Closes the connection in the middle of the answer."""


class Reply(Exception):
    """An answer with a status of its own; raised or returned by a behaviour."""

    def __init__(self, status, body, **headers):
        super().__init__(status)
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}


def error(status, message="something is wrong", code=None, **headers):
    return Reply(status, {"error": {"message": message, "type": "t", "code": code}}, **headers)


class ChatServer:
    """`behave(number, body)` gives the answer to the number-th request: text, Reply, or a JSON body; or raises Cut."""

    def __init__(self):
        self.behave = lambda number, body: json.dumps(document(query_of(body)))
        self.models_status = 200
        self.requests, self.headers = [], []
        self.most_under_way = self._under_way = 0
        self._lock = threading.Lock()
        self.closing = threading.Event()

    @contextlib.contextmanager
    def serving(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            yield self
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, body, headers):
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append(headers)
            self._under_way += 1
            self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            return self.behave(number, body)
        finally:
            with self._lock:
                self._under_way -= 1


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._send(Reply(server.models_status, {"object": "list", "data": []}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                answer = server.answer(body, {name.lower(): value for name, value in self.headers.items()})
            except Reply as reply:
                answer = reply
            except Cut:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self._send(Reply(200, completion(answer)) if isinstance(answer, str) else answer)

        def _send(self, reply):
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
