# What the scripts of this folder have in common. Sourced by GDB.
#
# A check that fails raises, which ends GDB with a status that the test looks at.

import gdb
import time


stops = []
gdb.events.stop.connect(stops.append)


def run(command):
    """Executes a command of GDB and returns what it says, but for stops."""
    stops.clear()
    return gdb.execute(command, to_string=True)


def hit():
    """The breakpoints that the last command stopped at."""
    return [one for stop in stops if isinstance(stop, gdb.BreakpointEvent)
            for one in stop.breakpoints]


def value(expression):
    return int(gdb.parse_and_eval(expression)) & 0xFFFF_FFFF_FFFF_FFFF


def pc():
    return value("$pc")


def function():
    """The name of the function that the current frame is in."""
    return run("info symbol $pc").split()[0]


def thread():
    return gdb.selected_thread().num


def check(condition, text):
    if not condition:
        raise gdb.GdbError("FAILED: " + str(text))


def done(text):
    print("passed: " + text, flush=True)


def main(work):
    """Does the work; GDB itself would end with status 0 whatever it came to."""
    try:
        work()
        print("all passed", flush=True)
    except BaseException as error:
        print("FAILED: %r" % error, flush=True)
        try:
            print(run("bt 5"), run("info threads"), run("monitor where"), flush=True)
        except BaseException:
            pass
