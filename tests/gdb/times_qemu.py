# How long QEMU's own reverse debugging takes, for the same things, from a position on.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

import time

POSITION = 600_000_000
STEPS = 3


def measured(what, seconds):
    print("measured: %s | %.3f" % (what, 1000 * seconds), flush=True)


def work():
    run("monitor replay_break %d" % POSITION)
    run("continue")
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        run("reverse-stepi")
        times.append(time.perf_counter() - begun)
    measured("reverse-stepi, median", sorted(times)[STEPS // 2])
    measured("reverse-stepi, 99th of a hundred", max(times))
    run("watch *(unsigned long *)((unsigned long)$sp & ~7)")
    begun = time.perf_counter()
    run("reverse-continue")
    measured("reverse-continue", time.perf_counter() - begun)


main(work)
