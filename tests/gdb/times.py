# How long GDB takes to go back in a replay of Debian's kernel, from where it attaches.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

import time

# How far before this moment the word was written that is watched, about.
BEFORE = 100_000_000
HUNDRED = 100

# Where Linux has its image, and how much of it is looked through.
KERNEL = 0xFFFF_8000_0800_0000
MEBIBYTE = 1 << 20
KERNEL_BYTES = 48 * MEBIBYTE
# struct printk_info: seq, ts_nsec, and more, which is written once for each message.
INFO_WORDS = 11
MESSAGES_MAX = 5000
NS_MAX = 10**12


def timed(command):
    begun = time.perf_counter()
    run(command)
    return 1000 * (time.perf_counter() - begun)


def measured(what, milliseconds):
    print("measured: %s | %.3f" % (what, milliseconds), flush=True)


def when():
    return int(run("monitor when").split()[1])


def goto(position):
    run("monitor goto %d" % position)
    run("maintenance flush register-cache")


def one_by_one():
    times = sorted(timed("reverse-stepi") for _ in range(HUNDRED))
    measured("reverse-stepi, median", (times[49] + times[50]) / 2)
    measured("reverse-stepi, 99th of a hundred", times[98])


def messages():
    """The addresses of the kernel's messages' times, in order."""
    found = []
    for start in range(KERNEL, KERNEL + KERNEL_BYTES, MEBIBYTE):
        try:
            memory = gdb.selected_inferior().read_memory(start, MEBIBYTE)
        except gdb.MemoryError:
            continue
        words = memoryview(bytes(memory)).cast("Q")
        for n in range(len(words) - INFO_WORDS - 1):
            seq, ns = words[n], words[n + 1]
            is_one = 0 < seq < MESSAGES_MAX and words[n + INFO_WORDS] == seq + 1
            if is_one and 0 < ns <= words[n + INFO_WORDS + 1] < NS_MAX:
                found.append((seq, start + 8 * n + 8))
    return [address for _, address in sorted(found)]


def word(here):
    """A word that was written about so long before, and not again."""
    found = messages()
    check(len(found) > 20, "%d messages" % len(found))
    low, high, best = 0, len(found), None
    while low < high:
        middle = (low + high) // 2
        run("monitor last %#x 8" % found[middle])
        position = when()
        goto(here)
        if best is None or abs(here - BEFORE - position) < abs(here - BEFORE - best[1]):
            best = found[middle], position
        if position < here - BEFORE:
            low = middle + 1
        else:
            high = middle
    return best


def work():
    here = when()
    one_by_one()
    address, position = word(here)
    run("watch *(unsigned long *)%#x" % address)
    took = timed("reverse-continue")
    check(hit(), "no watchpoint was hit")
    check(when() == position, "at %d, and not %d" % (when(), position))
    measured("reverse-continue, %d M" % ((here - position) // 1_000_000), took)


main(work)
