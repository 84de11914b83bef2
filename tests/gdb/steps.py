# A thousand steps through the scheduler and its locks, timers and the other CPUs live.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

INTERRUPT_CODE = ("el1h_64_irq", "el0t_64_irq", "gic_handle_irq", "el1_interrupt",
                  "do_interrupt_handler", "generic_handle_domain_irq", "handle_percpu_devid_irq")
LOCKS = {"do_raw_spin_lock", "queued_spin_lock_slowpath", "_raw_spin_lock", "_raw_spin_lock_irqsave"}
# Wake-ups that are looked at for one that takes a lock: some find nothing to do.
ROUNDS = 12


def in_handler():
    stack = run("bt 40")
    return any(" in %s" % name in stack for name in INTERRUPT_CODE)


def word(address):
    """The instruction there, None where its page is yet to be brought in."""
    try:
        bytes = gdb.selected_inferior().read_memory(address, 4).tobytes()
    except gdb.MemoryError:
        return None
    return int.from_bytes(bytes, "little")


def is_exclusive_load(word):
    return word & 0x3F40_0000 == 0x0840_0000 and not word & 0x0080_0000


def signed(word, low, width):
    """A field of an instruction that counts instructions, in bytes."""
    field = word >> low & (1 << width) - 1
    return 4 * (field - (field >> width - 1 << width))


def successors(word, at):
    """Where an instruction of a Cortex-A57 leads when it takes no exception. None for anywhere."""
    if word & 0x7C00_0000 == 0x1400_0000:  # B, BL
        return {at + signed(word, 0, 26)}
    if word & 0xFF00_0000 == 0x5400_0000 or word & 0x7E00_0000 == 0x3400_0000:  # B.cond, CBZ, CBNZ
        return {at + 4, at + signed(word, 5, 19)}
    if word & 0x7E00_0000 == 0x3600_0000:  # TBZ, TBNZ
        return {at + 4, at + signed(word, 5, 14)}
    if word & 0xFF9F_0000 == 0xD61F_0000:  # BR, BLR, RET; ERET
        return None if word == 0xD69F_03E0 else {value("$x%d" % (word >> 5 & 31))}
    return {at + 4}


def step(vectors):
    """Steps once, and says which function it came to, and whether it was a load-exclusive."""
    at, me = pc(), thread()
    before = word(at)
    allowed = None if before is None else successors(before, at)
    run("stepi")
    here = pc()
    check(thread() == me, "thread %d after %d" % (thread(), me))
    entry = here - vectors if 0 <= here - vectors < 0x800 else None
    check(entry is None or entry & 0x180 == 0, "an interrupt at %#x: vectors+%#x" % (at, entry or 0))
    # A step is one instruction, of an exclusive sequence too, or the exception that it takes.
    takes = entry is not None and entry % 0x80 == 0
    check(takes or allowed is None or here in allowed, "%s from %#x to %#x" % (before, at, here))
    return function(), before is not None and is_exclusive_load(before), here == at


def thousand():
    """Steps from try_to_wake_up in a task. Says which functions it met, and how many exclusives."""
    while True:
        run("continue")
        check(function() == "try_to_wake_up", function())
        if not in_handler():
            break
    run("disable")
    vectors, seen, same, exclusives = value("$VBAR_EL1"), set(), 0, 0
    for n in range(1000):
        name, is_exclusive, stays = step(vectors)
        same = same + 1 if stays else 0
        check(same < 50, "it sticks at %#x" % pc())
        # Another task may have been switched away in the middle of its own interrupt's handler.
        check(name not in INTERRUPT_CODE or "cpu_switch_to" in seen, "%s after %d" % (name, n))
        exclusives += is_exclusive
        seen.add(name)
    run("enable")
    return seen, exclusives


def steps():
    names = [line for line in run("info threads").splitlines() if "domain 0 vCPU" in line]
    check(len(names) == 4, names)
    done("four threads")
    run("break *try_to_wake_up")
    seen, exclusives = set(), 0
    for n in range(ROUNDS):
        started = time.time()
        more, loads = thousand()
        rate = 1000 / (time.time() - started)
        seen, exclusives = seen | more, exclusives + loads
        done("1000 stepi, %.0f /s, %d load-exclusives, through %s" % (rate, loads, sorted(more)))
        if seen & LOCKS and exclusives > 0:
            break
    check(seen & LOCKS and exclusives > 0, "no lock was met")
    run("delete")
    me = thread()
    check("corrupt" not in run("bt").split("\n")[0], "no frame")
    run("stepi 1000")
    check(thread() == me, "another thread after stepi 1000")
    done("stepi 1000")


def frames():
    for name in ("getname_flags", "wake_up_process"):
        run("tbreak *" + name)
        run("continue")
        caller = gdb.newest_frame().older().pc()
        me = thread()
        run("nexti 4")
        check(thread() == me, "nexti changed the thread")
        run("finish")
        check(pc() == caller, "finish of %s came to %#x, not %#x" % (name, pc(), caller))
        done("finish of " + name)
    run("delete")
    here = pc()
    run("until *%#x" % gdb.newest_frame().older().pc())
    check(pc() != here, "until")
    done("until")
    everything = run("thread apply all bt 20")
    check(everything.count("\nThread ") == 4, everything)
    check("domain 0 vCPU 3" in everything, everything)
    done("thread apply all bt")


main(lambda: (steps(), frames()))
gdb.execute("detach")
