# Lines of source in a guest whose four CPUs fight for the same locks.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")
# Expressions as `checks.py` has them, and not as the guest's Rust.
gdb.execute("set language c")

ROUNDS = 60


def line():
    return gdb.newest_frame().find_sal().line


def at():
    """The function whose line is shown, an inlined one too."""
    return gdb.newest_frame().name()


def meet(place):
    """Goes on until a secondary CPU is at `place`."""
    run("break *" + place)
    while True:
        run("continue")
        # The first CPU's copy of the inlined loop is laid out so that GDB's `next` leaves it whole.
        if gdb.selected_thread().ptid[1] != 1:
            break


def lines():
    """`next` line by line through calls that take locks, all CPUs running into them."""
    meet("hammer_ticket")
    run("delete")
    run("finish")
    me, seen = thread(), set()
    for n in range(ROUNDS):
        run("next")
        check(thread() == me, "thread %d" % thread())
        seen.add("%s:%d" % (at(), line()))
    check(len(seen) >= 5, seen)
    done("%d times next: %s" % (ROUNDS, " ".join(sorted(seen))))


def shared_breakpoint():
    """`next` over calls with a breakpoint in them that every CPU reaches."""
    meet("hammer_queue")
    run("finish")
    me, own, others = thread(), 0, 0
    for n in range(ROUNDS):
        run("next")
        if not hit():
            check(thread() == me, "thread %d" % thread())
            continue
        check(pc() == value("(long)&hammer_queue"), "%#x" % pc())
        own, others = own + (thread() == me), others + (thread() != me)
        if thread() != me:
            run("thread %d" % me)
    check(own > 0 and others > 0, "%d own hits, %d others'" % (own, others))
    run("delete")
    done("next with a breakpoint on all CPUs: %d own hits, %d others'" % (own, others))


def out_and_in():
    """`finish`, `step` and `advance` at locks."""
    for name in ("hammer_ticket", "hammer_queue", "hammer_stack"):
        run("tbreak *" + name)
        run("continue")
        me, up = thread(), gdb.newest_frame().older().pc()
        run("finish")
        check(thread() == me and pc() == up, "finish of %s came to %#x" % (name, pc()))
        run("tbreak *" + name)
        run("continue")
        me = thread()
        run("stepi 40")
        check(thread() == me, "stepi 40")
        run("delete")
    done("finish and stepi at locks")


main(lambda: (shared_breakpoint(), lines(), out_and_in()))
gdb.execute("detach")
