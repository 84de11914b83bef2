# Conditions of breakpoints: evaluated beside the guest, and GDB hears of the hits that count alone.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

import re


def told(command):
    """Executes a command, and returns of how many breakpoints GDB was told meanwhile."""
    gdb.execute("set debug remote 1")
    try:
        return run(command).count(";swbreak:;")
    finally:
        gdb.execute("set debug remote 0")


def tally():
    """Hits, and how often the guest was passed over, of the only breakpoint."""
    return [int(n) for n in re.search(r"(\d+) hits  (\d+) passed", run("monitor breakpoints")).groups()]


def tally_of(name):
    """How often a breakpoint with a condition was passed over."""
    return int(re.search(name + r"\s.* (\d+) passed", run("monitor breakpoints")).group(1))


def jiffies():
    """Where the kernel counts its ticks; its own names are those of functions only."""
    code = run("x/8i jiffies_read")
    page, offset = re.search(r"adrp\s+x0, (0x[0-9a-f]+)", code), re.search(r"\[x0, #(\d+)\]", code)
    return int(page.group(1), 16) + int(offset.group(1))


def after(ticks):
    """A condition that memory makes true, once so many ticks of 4 ms have gone by."""
    count = "*(unsigned long *)%#x" % jiffies()
    return "%s > %#x" % (count, value(count) + ticks)


def until_later(where, ticks):
    """Goes on to where the condition is true. Returns hits told, passed over, and per second."""
    run("break *%s if %s" % (where, after(ticks)))
    started = time.time()
    stops = told("continue")
    took = time.time() - started
    check(hit() and function() == where, function())
    hits, passed = tally()
    run("delete")
    return stops, hits, passed, took


def by_memory():
    stops, hits, passed, took = until_later("dput", 150)
    check((stops, hits) == (1, 1), "GDB was told of %d stops, %d hits" % (stops, hits))
    check(passed > 10, "only %d passed over" % passed)
    ours = passed / took
    # The same, GDB evaluating.
    run("set breakpoint condition-evaluation host")
    stops, hits, passed, took = until_later("dput", 20)
    run("set breakpoint condition-evaluation auto")
    check(passed == 0 and stops > 0, "%d stops, %d passed over" % (stops, passed))
    done("conditions on memory: %.0f hits /s passed over, GDB evaluating %.0f /s: %.1f times"
         % (ours, stops / took, ours * took / stops))


def by_register():
    run("break *try_to_wake_up if $x0 == 0")
    shown = run("info breakpoints")
    check("target evals" in shown, shown)
    # Never true; another one stops it.
    run("tbreak *vfs_statx if $sp != 0 && $x0 != 0x10000000000000 - 1")
    check(told("continue") == 1 and function() == "vfs_statx", function())
    task = run("monitor breakpoints")
    check(re.search("try_to_wake_up.* 0 hits", task), task)
    # Another condition takes the first one's place where it is set.
    run("condition %d $x0 != 0" % (value("$bpnum") - 1))
    check(told("continue") == 1 and function() == "try_to_wake_up", function())
    check(value("$x0") != 0, "x0")
    run("delete")
    done("conditions on registers, and another in their place")


def no_value():
    run("break *getname_flags if *(unsigned int *)0x10 == 0")
    try:
        run("continue")
    except gdb.error:
        pass
    check(function() == "getname_flags", function())
    run("delete")
    done("a condition without a value stops")


def while_stepping():
    run("tbreak *wake_up_process")
    run("continue")
    me = thread()
    run("break *try_to_wake_up if $x0 == 0")
    for _ in range(20):
        run("nexti")
        check(not hit() and thread() == me, "stopped by it")
        if function() != "wake_up_process":
            break
    run("delete")
    done("nexti over a call with a hit that does not count")


def in_handlers():
    """Handlers that a step goes over reach a breakpoint that does not count."""
    run("break *tick_sched_timer if $x0 == 0")
    met = 0
    for _ in range(40):
        run("tbreak *getname_flags")
        run("continue")
        check(function() == "getname_flags", function())
        for n in range(1, 4):
            begin, last = pc(), tally_of("tick_sched_timer")
            run("stepi")
            check(pc() == begin + 4 or n == 3, "%#x after %#x" % (pc(), begin))
            check(function() != "tick_sched_timer", "a step came into a handler")
            met += tally_of("tick_sched_timer") - last
        if met > 2:
            break
    run("delete")
    done("steps over handlers with %d hits that do not count" % met)


main(lambda: (by_memory(), by_register(), no_value(), while_stepping(), in_handlers()))
gdb.execute("detach")
