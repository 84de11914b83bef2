# Breakpoints on all CPUs at once, a step over a call with one in it, and memory that is watched.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

HOT = 200
ROUNDS = 30


def other_cpu():
    """`finish` while other CPUs reach the same breakpoint."""
    switched = stayed = 0
    run("break *getname_flags")
    for _ in range(ROUNDS):
        run("continue")
        check(function() == "getname_flags", function())
        me, caller = thread(), gdb.newest_frame().older().pc()
        # Steps on until it has come back, or another CPU gets there.
        run("finish")
        if hit():
            check(function() == "getname_flags", function())
            switched += thread() != me
        else:
            check(thread() == me and pc() == caller, "finish came to %#x" % pc())
            stayed += 1
    run("delete")
    done("a hit on another CPU is its own: %d of %d" % (switched, ROUNDS))


def next_over_call():
    run("tbreak *wake_up_process")
    run("continue")
    me = thread()
    run("break *try_to_wake_up")
    for _ in range(20):
        run("nexti")
        if hit():
            break
    check(hit() and function() == "try_to_wake_up", "no breakpoint in the call")
    run("delete")
    done("nexti stops at a breakpoint in the call")
    if thread() == me:
        run("finish")


def many():
    places = set()
    for prefix in ("vfs", "path", "lookup", "filename", "task", "enqueue", "dequeue", "update"):
        listed = run("info functions ^%s_" % prefix).splitlines()
        places |= {int(line.split()[0], 16) for line in listed if line.startswith("0xffff")}
    # What is executed all the time, and others to make up the number.
    hot = ("getname_flags", "path_openat", "vfs_fstatat", "do_sys_openat2", "update_rq_clock",
           "enqueue_task_fair", "dequeue_task_fair", "vfs_open", "dput")
    places = list(dict.fromkeys([value("(long)&" + name) for name in hot] + sorted(places)))[:HOT]
    check(len(places) == HOT, "only %d functions" % len(places))
    code = [value("*(unsigned int *)%#x" % place) for place in places]
    started = time.time()
    for place in places:
        run("break *%#x" % place)
    took = time.time() - started
    for place, word in zip(places, code):
        check(value("*(unsigned int *)%#x" % place) == word, "%#x reads differently" % place)
    seen = set()
    started = time.time()
    for _ in range(100):
        run("continue")
        check(hit() and pc() in places, "%#x" % pc())
        seen.add(function())
    check(len(seen) > 3, seen)
    rate = 100 / (time.time() - started)
    run("delete")
    done("%d breakpoints in %.1f s, 100 hits at %.0f /s: %s" % (HOT, took, rate, sorted(seen)))


def watched():
    # The run queue of each CPU has a clock that its own tick writes: find one through a frame that
    # has it in x0.
    run("tbreak *update_rq_clock")
    run("continue")
    queue = value("$x0")
    me = thread()
    before = bytes(gdb.selected_inferior().read_memory(queue, 256))
    # Calls that come right one after the other may change nothing.
    changed = []
    for turn in range(20):
        run("tbreak *update_rq_clock if $x0 == %#x" % queue)
        run("continue")
        after = bytes(gdb.selected_inferior().read_memory(queue, 256))
        changed = [n for n in range(0, 256, 8) if before[n:n + 8] != after[n:n + 8]]
        if turn >= 2 and changed:
            break
    check(changed, "nothing of the run queue changes")
    where = queue + changed[0]
    owner = thread()
    # Another thread is looked at while the owner writes.
    run("thread %d" % (owner % 4 + 1))
    run("watch *(unsigned long *)%#x" % where)
    run("continue")
    check(hit() and hit()[0].type == gdb.BP_HARDWARE_WATCHPOINT, "nobody wrote")
    done("watch: written by thread %d while thread %d was looked at" % (thread(), owner % 4 + 1))
    run("delete")


def through_an_interrupt():
    """What was interrupted has all its registers, and `finish` leads back to it."""
    for _ in range(40):
        run("tbreak *tick_sched_timer")
        run("continue")
        entry = gdb.newest_frame()
        while entry is not None and entry.name() != "el1h_64_irq":
            entry = entry.older()
        if entry is not None:
            break
    check(entry is not None, "no tick interrupts the kernel")
    check(entry.type() == gdb.SIGTRAMP_FRAME, "frame of " + entry.name())
    stored = [value("*(unsigned long *)%#x" % (int(entry.read_register("sp")) + 8 * n))
              for n in range(33)]
    names = ["x%d" % n for n in range(31)] + ["sp", "pc"]
    found = [int(entry.older().read_register(name)) & 0xFFFF_FFFF_FFFF_FFFF for name in names]
    check(found == stored, "%r are not %r" % (found, stored))
    check(entry.older().older() is not None, run("bt"))
    me = thread()
    entry.select()
    run("finish")
    check(thread() == me and pc() == stored[32], "finish came to %#x, not %#x" % (pc(), stored[32]))
    done("a stack through an interrupt")


def registers_and_memory():
    # A place where the stack is the kernel's.
    run("tbreak *getname_flags")
    run("continue")
    old = value("$x5")
    run("set $x5 = 0x1234567812345678")
    check(value("$x5") == 0x1234567812345678, "x5")
    run("set $x5 = %#x" % old)
    kept = [value("$v0.d.u[%d]" % lane) for lane in (0, 1)]
    run("set $v0.d.u[1] = 0x1122334455667788")
    check(value("$v0.d.u[1]") == 0x1122334455667788, run("p $v0"))
    check(value("$v0.d.u[0]") == kept[0], "the other lane")
    run("set $v0.d.u[1] = %#x" % kept[1])
    old = value("$fpcr")
    run("set $fpcr = %#x" % (old ^ 0xC00000))
    check(value("$fpcr") == old ^ 0xC00000, run("p $fpcr"))
    run("set $fpcr = %#x" % old)
    check(value("$VBAR_EL1") & 0x7FF == 0 and value("$VBAR_EL1") != 0, "VBAR_EL1")
    try:
        run("set $MIDR_EL1 = 0")
        check(False, "MIDR_EL1 was written")
    except gdb.error as error:
        check("MIDR_EL1" in str(error), error)
    stack = value("$sp") - 512
    memory = gdb.selected_inferior()
    kept = bytes(memory.read_memory(stack, 16))
    memory.write_memory(stack, b"0123456789abcdef")
    check(bytes(memory.read_memory(stack, 16)) == b"0123456789abcdef", "memory")
    memory.write_memory(stack, kept)
    try:
        memory.read_memory(0x10, 4)
        check(False, "address 0x10 was read")
    except gdb.MemoryError:
        pass
    code = run("x/4i $pc")
    check(code.count("\n") == 4 and "=> 0x%x" % pc() in code, code)
    check("-> IPA" in run("monitor mmu $pc"), run("monitor mmu $pc"))
    check("vcpu3" in run("monitor where"), run("monitor where"))
    check(run("monitor irq") == "over\n", run("monitor irq"))
    done("registers, memory, monitor")
    threads = run("info threads")
    check(threads.count(", task ") == 4, threads)
    check("[kthreadd]" in run("monitor ps"), run("monitor ps"))
    check(" schedule+" in run("monitor task 2"), run("monitor task 2"))
    check(run("monitor print task(2)->comm") == '"kthreadd"\n', run("monitor print task(2)->comm"))
    check("/bin/busybox" in run("monitor maps 1"), run("monitor maps 1"))
    check(run("monitor modules") == "no module is loaded\n", run("monitor modules"))
    done("tasks of the guest")


main(lambda: (registers_and_memory(), through_an_interrupt(), next_over_call(), other_cpu(), many(),
              watched()))
gdb.execute("detach")
