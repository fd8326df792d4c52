"""One page in a headless Chromium of its own, driven by Playwright from a thread of its own.

Any thread may call it, and no call waits for longer than it is told: a page can hang or die.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import TimeoutError as Expired
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from vitedge.core.errors import UnavailableError, error_line, missing
from vitedge.runtimes.onnxruntime_web.install import EXTRA

T = TypeVar("T")
START_S = 120.0
"""In which a browser starts and shows an empty page, on a busy machine, too."""
CLOSE_S = 30.0
ARGUMENTS = (
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
"""It reaches nothing but what is served here."""
_CLOSED = ("Target crashed", "Page crashed", "has been closed", "Connection closed")


class Page:
    """A page that has loaded."""

    def __init__(self, loop: asyncio.AbstractEventLoop, program: Path) -> None:
        self._loop, self._program = loop, program
        self._playwright: Any = None
        self._browser: Any = None
        self._page: Any = None

    def call(self, function: str, argument: object, limit_s: float) -> Any:
        """What the page's JavaScript `function` of one argument resolves to, all of it JSON.

        Raises RuntimeError with the page's own message where it rejects, UnavailableError where the
        page does not answer within `limit_s` seconds, or has died.
        """
        return self._within(self._page.evaluate(function, argument), limit_s)

    def open(self, url: str, arguments: Sequence[str]) -> None:
        """Start the browser and load `url`. Raises UnavailableError."""
        self._within(self._open(url, arguments), START_S)

    def close(self) -> None:
        """End the browser, whatever became of it; with Playwright's driver goes what it started."""
        with suppress(Exception):
            self._wait(self._close(), CLOSE_S)
        self._wait(self._cancel(), CLOSE_S)

    async def _open(self, url: str, arguments: Sequence[str]) -> None:
        try:
            from playwright.async_api import async_playwright
        except ModuleNotFoundError as error:
            raise missing("playwright", EXTRA) from error

        self._playwright = await async_playwright().start()
        self._browser = await self._playwright.chromium.launch(
            executable_path=self._program, args=[*ARGUMENTS, *arguments]
        )
        context = await self._browser.new_context(service_workers="block")
        page = await context.new_page()
        await page.goto(url)
        self._page = page

    async def _close(self) -> None:
        if self._browser is not None:
            with suppress(Exception):
                await self._browser.close()
        if self._playwright is not None:
            await self._playwright.stop()

    async def _cancel(self) -> None:
        """End what still waits for an answer."""
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _within(self, job: Coroutine[Any, Any, T], limit_s: float) -> T:
        """The result of `job`. Raises as `call` does."""
        try:
            return self._wait(job, limit_s)
        except Expired as error:
            if self._page is None:
                raise UnavailableError(
                    f"{self._program} has not started within {limit_s:.0f} s",
                    fix="is the machine busy? VITEDGE_BROWSER names another browser",
                ) from error
            raise UnavailableError(
                f"the page in {self._program} has not answered for {limit_s:.0f} s",
                fix="let the target's [options] set a longer timeout_s, or take a smaller model",
            ) from error
        except UnavailableError:
            raise
        except Exception as error:  # Playwright's, which is not to be imported before it is used
            message = str(error)
            if self._page is None:
                raise UnavailableError(
                    f"{self._program} does not start: {error_line(error)}",
                    fix="does it run by hand, with --headless? VITEDGE_BROWSER names another one",
                ) from error
            if any(text in message for text in _CLOSED):
                raise UnavailableError(
                    f"{self._program} died while it ran the model",
                    fix="was it killed, or the memory full? Run it again, or a smaller model",
                ) from error
            raise RuntimeError(
                message.removeprefix("Page.evaluate: ").partition("\n    at ")[0]
            ) from error

    def _wait(self, job: Coroutine[Any, Any, T], limit_s: float) -> T:
        future = asyncio.run_coroutine_threadsafe(job, self._loop)
        try:
            return future.result(limit_s)
        except BaseException:
            future.cancel()
            raise


@contextmanager
def open_page(program: Path, url: str, arguments: Sequence[str] = ()) -> Iterator[Page]:
    """Load `url` in the browser `program`. Raises UnavailableError."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="vitedge-browser", daemon=True)
    thread.start()
    page = Page(loop, program)
    try:
        page.open(url, arguments)
        yield page
    finally:
        page.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
