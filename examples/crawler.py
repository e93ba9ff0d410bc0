"""A stateful crawler: one actor remembers what was seen, others fetch many pages at once.

Run it with `python examples/crawler.py`; a local cluster starts. It crawls a small site that it
serves itself, on the loopback interface, in a thread: pages that link to others, some of them slow,
some that do not exist, and one that never answers.

The `Frontier` is an actor with `async def` methods: whoever asks it for work while there is none
waits there, without keeping anybody else from giving it some. Each `Fetcher` is one process that
has many pages on their way at the same time; the page that never answers is given up by the limit
of its call (`timeout=`), and nothing else notices.
"""

import argparse
import asyncio
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urljoin, urlsplit

import drumbeat

LINK = re.compile(r'href="([^"]+)"')


# ------------------------------------------------------------------------------ a site to crawl


class Site(BaseHTTPRequestHandler):
    """Numbered pages; each links to some with higher numbers."""

    pages = 0
    slow_s = 0.05
    stuck: threading.Event

    def do_GET(self) -> None:
        """Answer with the page of that number."""
        name = self.path.strip("/") or "0"
        if name == "stuck":
            self.stuck.wait()  # never, as far as a visitor can tell
            return
        if not name.isdigit() or int(name) >= self.pages:
            self.send_error(404)
            return
        number = int(name)
        if number % 5 == 0:
            time.sleep(self.slow_s)
        linked = [f"/{n}" for n in range(2 * number + 1, 2 * number + 4)]
        if number == 1:
            linked += ["/stuck", "/missing"]
        body = "".join(f'<a href="{link}">{link}</a>\n' for link in linked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """The site's server; it ends without waiting for visitors."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


def serve(pages: int) -> tuple[Server, str]:
    """Serve a site of so many pages on the loopback interface; return its server and address."""
    handler = type("Pages", (Site,), {"pages": pages, "stuck": threading.Event()})
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, name="site", daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/"


# ---------------------------------------------------------------------------------- the crawler


@drumbeat.remote
class Frontier:
    """Knows every address that was ever seen, and gives each to one fetcher, once."""

    def __init__(self, start: str) -> None:
        self.host = urlsplit(start).netloc
        self.seen = {start}
        self.todo = [start]
        self.open: set[str] = set()
        self.status: dict[str, str] = {}
        self.news = asyncio.Condition()

    async def take(self) -> str | None:
        """Return an address to fetch, as soon as there is one; None: all is done."""
        async with self.news:
            await self.news.wait_for(lambda: self.todo or not self.open)
            if not self.todo:
                return None
            url = self.todo.pop(0)
            self.open.add(url)
            return url

    async def give(self, url: str, status: str, links: list[str]) -> None:
        """Take note of what became of an address, and of where it leads."""
        async with self.news:
            self.open.discard(url)
            self.status[url] = status
            for link in links:
                if link not in self.seen and urlsplit(link).netloc == self.host:
                    self.seen.add(link)
                    self.todo.append(link)
            self.news.notify_all()

    async def progress(self) -> tuple[int, int]:
        """Return how many addresses are done, and how many were seen."""
        return len(self.status), len(self.seen)

    async def report(self) -> dict[str, str]:
        """Return what became of each address."""
        return self.status


@drumbeat.remote
class Fetcher:
    """Fetches pages, many at a time, by a connection each."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def fetch(self, url: str) -> tuple[str, list[str]]:
        """Return the status of a page, and where it leads."""
        parts = urlsplit(url)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                path = parts.path or "/"
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
                text = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
        finally:
            self.now -= 1
        head, _, body = text.partition("\r\n\r\n")
        status = head.split(" ", 2)[1] if " " in head else "nothing"
        return status, [urljoin(url, link) for link in LINK.findall(body)]

    async def crawl(self, frontier: Any, me: Any, lanes: int, limit_s: float) -> int:
        """Take addresses from the frontier until there are none; return how many."""
        counts = await asyncio.gather(*(self._lane(frontier, me, limit_s) for _ in range(lanes)))
        return sum(counts)

    async def _lane(self, frontier: Any, me: Any, limit_s: float) -> int:
        # A page is a call of its own: that is what has the limit, and what `drumbeat top` shows.
        count = 0
        while (url := await frontier.take.remote()) is not None:
            try:
                status, links = await me.fetch.options(timeout=limit_s).remote(url)
            except drumbeat.TaskTimedOut:
                status, links = "timed out", []
            except OSError as error:
                status, links = type(error).__name__, []
            await frontier.give.remote(url, status, links)
            count += 1
        return count

    async def most_at_once(self) -> int:
        """Return how many pages were on their way at the same time, at most."""
        return self.most


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--fetchers", type=int, default=2)
    parser.add_argument("--lanes", type=int, default=16, help="pages at a time of each fetcher")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds for a page")
    given = parser.parse_args()
    server, address = serve(given.pages)
    try:
        with drumbeat.init():
            begun_s = time.perf_counter()
            frontier = Frontier.remote(address)
            fetchers = [Fetcher.remote() for _ in range(given.fetchers)]
            crawls = [
                fetcher.crawl.remote(frontier, fetcher, given.lanes, given.limit)
                for fetcher in fetchers
            ]
            while not all(ref.done() for ref in crawls):
                done, seen = drumbeat.get(frontier.progress.remote())
                print(f"{done} of {seen} addresses")
                drumbeat.wait(crawls, num_returns=len(crawls), timeout=0.5)
            counts = drumbeat.get(crawls)
            most = drumbeat.get([fetcher.most_at_once.remote() for fetcher in fetchers])
            took_s = time.perf_counter() - begun_s
            by_status: dict[str, int] = {}
            for status in drumbeat.get(frontier.report.remote()).values():
                by_status[status] = by_status.get(status, 0) + 1
            for status, count in sorted(by_status.items()):
                print(f"{status}: {count}")
            print(f"{sum(counts)} addresses in {took_s:.1f} s, at most {max(most)} at a time")
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
