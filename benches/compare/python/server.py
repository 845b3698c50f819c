"""The servers on Python Trio: the same orders, the same lines, as the server programs in Rust."""

import os
import resource
import socket
import sys
import threading
import time

import trio

BUFFER = 16 * 1024
BACKLOG = 4096
START = time.monotonic_ns()
tally = {"accepted": 0, "ended": 0, "bytes": 0}


def status(name):
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1])
    return 0


def report():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    fields = {
        "at_ns": time.monotonic_ns() - START,
        "user_us": int(usage.ru_utime * 1e6),
        "system_us": int(usage.ru_stime * 1e6),
        "voluntary": usage.ru_nvcsw,
        "involuntary": usage.ru_nivcsw,
        "anonymous_kib": status("RssAnon:"),
        "peak_kib": status("VmHWM:"),
        **tally,
    }
    text = " ".join(f"{name}={value}" for name, value in fields.items())
    print("report", text, flush=True)


def control():
    for line in sys.stdin:
        if line.strip() != "mark":
            break
        report()
    report()
    os._exit(0)


def main():
    job = sys.argv[1]
    options = dict(word.split("=", 1) for word in sys.argv[2:])
    if job not in ("echo", "once", "sink") or options.get("workers", "1") != "1" or "compute" in options:
        print("refused", job, flush=True)
        sys.exit(3)
    last = int(options.get("size", 64)) if job == "once" else float("inf")

    async def handle(stream):
        tally["accepted"] += 1
        received = 0
        try:
            while received < last:
                data = await stream.receive_some(BUFFER)
                if not data:
                    break
                received += len(data)
                tally["bytes"] += len(data)
                if job != "sink":
                    await stream.send_all(data)
        except trio.BrokenResourceError:
            pass
        finally:
            tally["ended"] += 1

    async def serve():
        listener = trio.socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        port = listener.getsockname()[1]
        print(f"ready port={port} backend=epoll", flush=True)
        threading.Thread(target=control, daemon=True).start()
        await trio.serve_listeners(handle, [trio.SocketListener(listener)])

    trio.run(serve)


main()
