"""The explorer under load: 20 users for a minute, memory, and the time to draw a changed pattern.

    python benchmarks/explorer.py --seconds 60

Starts `sparseattn app` on the packaged MiniLM. Users ask one thing after the other: texts of about
128 tokens under patterns that nobody has asked for before, so that every answer is a run of the
model. With playwright and a Chromium, a browser then types patterns and tells how long it took from
the change to the drawn matrix.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

import psutil

WORDS = (
    "the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "and", "old", "men", "read",
    "long", "books", "about", "sea",
)  # fmt: skip
USERS = 20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    seconds = options.parse_args().seconds
    command = [sys.executable, "-W", "ignore", "-m", "sparseattn", "app", "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+)/", process.stdout.readline()).group(1))
        print(f"started in {time.perf_counter() - began:.1f} s, imports included")
        ask(port, text_of(random.Random(0), 100), "full()")
        users(port, process.pid, seconds)
        drawing(port)
    finally:
        process.terminate()
        process.wait()


def text_of(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


def ask(port: int, text: str, plan: str) -> str | None:
    """What was wrong, in words."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps({"text": text, "plan": plan, "layer": 1, "head": 2})
    connection.request("POST", "/api/masks", body, {"content-type": "application/json"})
    answer = json.load(connection.getresponse())
    connection.close()
    return answer.get("error")


def users(port: int, pid: int, seconds: float) -> None:
    """Errors, times and memory of `USERS` at a time."""
    times: list[float] = []
    wrong: list[str] = []
    process = psutil.Process(pid)

    def memory() -> int:
        return process.memory_info().rss // 1_000_000

    def processor() -> float:
        spent = process.cpu_times()
        return spent.user + spent.system

    before, used = memory(), processor()
    end = time.monotonic() + seconds

    def user(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < end:
            radius, k = draw.randrange(1, 40), draw.randrange(1, 9)
            began = time.perf_counter()
            error = ask(port, text_of(draw, 125), f"neighbor({radius}) | similarity({k})")
            times.append(time.perf_counter() - began)
            if error:
                wrong.append(error)

    threads = [threading.Thread(target=user, args=(number,)) for number in range(USERS)]
    for thread in threads:
        thread.start()
    peak = before
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, memory())
        time.sleep(0.5)
    cuts = statistics.quantiles(times, n=20)
    print(
        f"{USERS} users, {seconds:.0f} s: {len(times)} answers, {len(wrong)} errors; "
        f"median {statistics.median(times):.2f} s, 95% within {cuts[-1]:.2f} s; processor time "
        f"{1000 * (processor() - used) / len(times):.0f} ms an answer; memory {before} MB, "
        f"at most {peak - before} MB more"
    )


def drawing(port: int) -> None:
    """Milliseconds from a changed pattern to the drawn matrix, in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/#masks?pair=")
        page.wait_for_selector("#view[data-ready]")
        for words in (125, 509):
            page.get_by_label("Text", exact=True).fill(text_of(random.Random(1), words))
            drawn = []
            for radius in range(1, 12):
                plan = f"neighbor({radius}) | similarity(2) | global(cls)"
                page.get_by_label("Pattern or plan").fill(plan)
                page.wait_for_selector("#view[aria-busy=false]")
                drawn.append(int(page.locator("#view").get_attribute("data-milliseconds")))
            best, middle = min(drawn), statistics.median(drawn)
            print(
                f"about {words + 3} tokens: drawn in {middle:.0f} ms (median of 11, least {best})"
            )
        browser.close()


if __name__ == "__main__":
    main()
