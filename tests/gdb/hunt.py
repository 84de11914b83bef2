# From a panic back to its cause, on another CPU: the guest `hunt`, replayed, at its end; or at its reset,
# to be recorded on the way there.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")
gdb.execute("set language c")


def when():
    """The position, as the server has it."""
    return int(gdb.execute("monitor when", to_string=True).split()[1])


def arrive():
    """To where the pointer is followed for the second time, unless the run has been there."""
    if when() != 0:
        return
    run("break deliver")
    for _ in range(2):
        run("continue")
        check(function() == "deliver", function())
    run("delete")
    done("on the way, recorded to position %d" % when())


def panic():
    """At the end a pointer leads astray, and all four CPUs are there to be seen."""
    end = when()
    route = value("*(unsigned long *)((char *)&DESK + 128)")
    check(route == 128, "%#x" % route)
    check(len(gdb.selected_inferior().threads()) == 4, "four CPUs")
    done("the panic, at position %d" % end)
    return end


def cause(end):
    """The store that made it so, by a watchpoint and `reverse-continue`."""
    run("watch *(unsigned long *)((char *)&DESK + 128)")
    run("reverse-continue")
    check(hit(), "no watchpoint was hit")
    route = value("*(unsigned long *)((char *)&DESK + 128)")
    check(route != 128, "it is not undone: %#x" % route)
    where = gdb.execute("info symbol $pc", to_string=True)
    check("note" in where or "scribe" in where, where)
    check(gdb.selected_thread().ptid[1] == 3, "thread %d" % thread())
    position = when()
    check(position < end - 100000, "long before: %d" % position)
    # Forwards again: it happens, where it did.
    run("continue")
    check(hit(), "no watchpoint was hit again")
    check(value("*(unsigned long *)((char *)&DESK + 128)") == 128, "it happens")
    run("delete")
    done("the store, at position %d" % position)
    return position


def steps(position):
    """Steps back and forward are each other's opposites."""
    run("monitor goto %d" % position)
    run("maintenance flush register-cache")
    seen = []
    for _ in range(5):
        seen.append((pc(), value("$x0"), value("$sp")))
        run("stepi")
    for before in reversed(seen):
        run("reverse-stepi")
        check((pc(), value("$x0"), value("$sp")) == before, "%#x" % pc())
    check(when() == position, "at %d" % when())
    run("monitor snapshot here")
    run("reverse-stepi")
    said = gdb.execute("monitor snapshots", to_string=True)
    check("here  position %d" % position in said, said)
    run("monitor restore here")
    run("maintenance flush register-cache")
    check(when() == position and pc() == seen[0][0], "at %d" % when())
    said = gdb.execute("monitor restore nowhere", to_string=True)
    check("nothing is called nowhere" in said, said)
    run("reverse-finish")
    outer = pc()
    run("reverse-next")
    check(pc() != outer, "%#x" % pc())
    done("steps both ways")


def edges():
    """It goes no further back than its beginning, and refuses to be changed."""
    run("reverse-continue")
    check(when() == 0, "at %d" % when())
    try:
        run("set var $x0 = 1")
        check(False, "a register was written")
    except gdb.error:
        pass
    said = gdb.execute("monitor last $sp 8", to_string=True)
    check("nothing has written there" in said, said)
    end = int(run("monitor when").split()[3].rstrip(","))
    run("continue")
    check(when() == end, "at %d of %d" % (when(), end))
    done("both edges")


def work():
    arrive()
    steps(cause(panic()))
    edges()


main(work)
