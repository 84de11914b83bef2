# A thousand steps through the scheduler and its locks, timers and the other CPUs live.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

INTERRUPT_CODE = ("el1h_64_irq", "el0t_64_irq", "gic_handle_irq", "vectors", "el1_interrupt",
                  "do_interrupt_handler", "generic_handle_domain_irq", "handle_percpu_devid_irq")


def in_handler():
    stack = run("bt 40")
    return any(" in %s" % name in stack for name in INTERRUPT_CODE)


def word(address):
    return int.from_bytes(gdb.selected_inferior().read_memory(address, 4).tobytes(), "little")


def is_exclusive_load(word):
    return word & 0x3F40_0000 == 0x0840_0000 and not word & 0x0080_0000


def falls_through(word):
    """Not of the encoding group "Branches, Exception Generating and System instructions"."""
    return word >> 26 & 7 != 5


def thousand():
    """Steps from try_to_wake_up in a task. None where another task's return from an interrupt came
    in between: then the handler's code is what is to be shown."""
    while True:
        run("continue")
        check(function() == "try_to_wake_up", function())
        if not in_handler():
            break
    run("disable")
    me, seen, last, same, exclusives = thread(), {}, pc(), 0, 0
    for n in range(1000):
        before = word(last)
        exclusives += is_exclusive_load(before)
        run("stepi")
        check(thread() == me, "another thread after %d steps" % n)
        here, name = pc(), function()
        if name in INTERRUPT_CODE and "cpu_switch_to" in seen:
            run("enable")
            return None
        check(name not in INTERRUPT_CODE, "%s after %d steps" % (name, n))
        # A step is one instruction, of an exclusive sequence too.
        check(here == last + 4 or not falls_through(before), "from %#x to %#x" % (last, here))
        same = same + 1 if here == last else 0
        check(same < 50, "it sticks at %#x" % here)
        seen[name], last = seen.get(name, 0) + 1, here
    return seen, exclusives


def steps():
    names = [line for line in run("info threads").splitlines() if "domain 0 vCPU" in line]
    check(len(names) == 4, names)
    done("four threads")
    run("break *try_to_wake_up")
    found = None
    while not found:
        started = time.time()
        found = thousand()
    print("stepi from GDB: %.0f /s" % (1000 / (time.time() - started)))
    me, (seen, exclusives) = thread(), found
    check("do_raw_spin_lock" in seen or "queued_spin_lock_slowpath" in seen, seen)
    check(exclusives > 0, "no exclusive sequence was met")
    run("delete")
    done("1000 stepi, %d load-exclusives, through %s" % (exclusives, ", ".join(sorted(seen))))
    stack = run("bt")
    check("corrupt" not in stack.split("\n")[0], stack)
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
