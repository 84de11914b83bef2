# A thousand steps through the scheduler and its locks, timers and the other CPUs live.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

INTERRUPT_CODE = ("el1h_64_irq", "el0t_64_irq", "gic_handle_irq", "vectors", "el1_interrupt",
                  "do_interrupt_handler", "generic_handle_domain_irq", "handle_percpu_devid_irq")


def steps():
    names = [line for line in run("info threads").splitlines() if "domain 0 vCPU" in line]
    check(len(names) == 4, names)
    done("four threads")
    run("break *try_to_wake_up")
    run("continue")
    check(function() == "try_to_wake_up", function())
    run("delete")
    me, seen, last, same = thread(), {}, 0, 0
    started = time.time()
    for n in range(1000):
        run("stepi")
        check(thread() == me, "another thread after %d steps" % n)
        here, name = pc(), function()
        check(name not in INTERRUPT_CODE, "%s after %d steps" % (name, n))
        same = same + 1 if here == last else 0
        check(same < 50, "it sticks at %#x" % here)
        seen[name], last = seen.get(name, 0) + 1, here
    print("stepi from GDB: %.0f /s" % (1000 / (time.time() - started)))
    check("do_raw_spin_lock" in seen or "queued_spin_lock_slowpath" in seen, seen)
    done("1000 stepi through %s" % ", ".join(sorted(seen)))
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
