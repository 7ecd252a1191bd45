"""A server of S3 on this machine that lists the files of a folder and reads ranges of them, for benchmarks.

    python -m benchmarks.object_server FOLDER --delay-ms 30

The files are the objects of s3://bucket. The program prints the port, and then, for each line of standard input, the
numbers of reads and of their bytes since the previous line as JSON. It checks no signatures and takes no writes.
"""

import argparse
import asyncio
import json
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

from aiohttp import web


class _Server:
    def __init__(self, folder: Path, *, delay_seconds: float):
        self.folder, self.delay_seconds = folder, delay_seconds
        self.counts = {"requests": 0, "bytes": 0}

    async def list(self, request: web.Request) -> web.Response:
        prefix = request.query.get("prefix", "")
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        entries = [
            f"<Contents><Key>{escape(name)}</Key><LastModified>{datetime.fromtimestamp(about.st_mtime, UTC):%FT%TZ}"
            f'</LastModified><ETag>"{about.st_mtime_ns:x}-{about.st_size:x}"</ETag><Size>{about.st_size}</Size></Contents>'
            for file in files
            if (name := file.relative_to(self.folder).as_posix()).startswith(prefix) and (about := file.stat())
        ]
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")

    async def read(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(self.delay_seconds)
        file = self.folder / request.match_info["key"]
        if not file.is_file():
            return web.Response(status=404)
        self.counts["requests"] += 1
        wanted = request.http_range
        self.counts["bytes"] += (wanted.stop or file.stat().st_size) - (wanted.start or 0)
        return web.FileResponse(file)  # with ETag, If-Match and Range

    def answer_lines(self) -> None:
        for _ in sys.stdin:
            print(json.dumps(self.counts), flush=True)
            self.counts.update(requests=0, bytes=0)


async def _serve(server: _Server) -> None:
    application = web.Application()
    application.add_routes([web.get("/bucket", server.list), web.get("/bucket/{key:.+}", server.read)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    ended = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        server.answer_lines()
        loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=watch, daemon=True).start()
    await ended
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(_serve(_Server(given.folder, delay_seconds=given.delay_ms / 1000)))
