# `finish`, `advance`, `until` and `nexti` in a task that the kernel moves to another CPU meanwhile: the
# program tests/src/wanderer.rs, which sends itself round all CPUs by one system call.

import re

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

CALL = "__arm64_sys_sched_setaffinity"
ROUNDS = 6


def task():
    """What the kernel calls `current`."""
    return value("$SP_EL0")


def vcpu():
    """The vCPU that the thread is now."""
    return int(re.search(r"^\*.* vCPU (\d+)", run("info threads"), re.MULTILINE).group(1))


def to_the_call():
    run("tbreak *" + CALL)
    run("continue")
    check(hit() and function() == CALL, function())


def followed(name, command):
    """A way to where the call returns to, which is in the same task, on another vCPU."""
    moved = 0
    for _ in range(ROUNDS):
        to_the_call()
        me, its, on = thread(), task(), vcpu()
        caller = gdb.newest_frame().older().pc()
        run(command.replace("WHERE", "*%#x" % caller))
        where = "%s: %#x in task %#x, thread %d" % (name, pc(), task(), thread())
        check((pc(), task(), thread()) == (caller, its, me), where)
        moved += vcpu() != on
    # It begins on any CPU, and may be told to stay there once.
    check(moved >= ROUNDS - 1, "%s: moved %d times of %d" % (name, moved, ROUNDS))
    done("%s goes with its task, moved %d times of %d" % (name, moved, ROUNDS))
    return caller


def everything():
    followed("finish", "finish")
    followed("advance", "advance WHERE")
    back = followed("until", "until WHERE")
    moved = 0
    for _ in range(ROUNDS):
        its = task()
        # Others call, too.
        run("tbreak *%#x if $SP_EL0 == %#x" % (back - 4, its))
        run("continue")
        me, on = thread(), vcpu()
        check((pc(), task()) == (back - 4, its), "%#x in %#x" % (pc(), task()))
        run("nexti")
        check((pc(), task(), thread()) == (back, its, me), "nexti: %#x in %#x" % (pc(), task()))
        moved += vcpu() != on
    check(moved >= ROUNDS - 1, "nexti: moved %d times of %d" % (moved, ROUNDS))
    done("nexti goes with its task, moved %d times of %d" % (moved, ROUNDS))
    run("delete")


main(everything)
gdb.execute("detach")
