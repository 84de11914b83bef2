"""The module on Debian's kernel, and its examples. STEPWELL_GUESTS names the guests' folder."""

import ast
import contextlib
import inspect
import io
import os
import pathlib
import runpy
import signal
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

import stepwell

GUESTS = pathlib.Path(os.environ["STEPWELL_GUESTS"]) / "debian"
KERNEL, INITRD = str(GUESTS / "vmlinuz"), str(GUESTS / "initramfs.cpio.gz")
APPEND = "console=ttyAMA0 quiet"
EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
LIMIT = 300


def debian(**options):
    return stepwell.Machine(KERNEL, INITRD, append=APPEND, **options)


def example(name, *arguments):
    """Runs an example, and returns what it printed."""
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", [name, *arguments]), contextlib.redirect_stdout(printed):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return printed.getvalue()


class OfDebian(unittest.TestCase):
    """One machine, asked for everything while it is stopped in a program's system call."""

    @classmethod
    def setUpClass(cls):
        cls.machine = debian(smp=2)
        cls.reset = cls.machine.stop
        cls.point = cls.machine.breakpoint("do_sys_openat2", comm="grep")
        cls.opened = cls.machine.cont(timeout=LIMIT)

    @classmethod
    def tearDownClass(cls):
        cls.machine.close()

    def test_it_begins_at_reset_and_stops_at_the_breakpoint(self):
        self.assertEqual(self.reset.reason, "reset")
        self.assertEqual(self.opened.reason, "breakpoint")
        self.assertIs(self.opened.breakpoint, self.point)
        self.assertEqual((self.opened.symbol, self.point.hits), ("do_sys_openat2", 1))
        self.assertEqual(self.opened.pc, self.machine.address("do_sys_openat2"))

    def test_tasks(self):
        task = self.opened.task
        self.assertEqual((task.comm, task.on_cpu), ("grep", True))
        self.assertIn(task, self.machine.tasks())
        self.assertEqual([one.comm for one in self.machine.tasks() if one.pid == 1], ["init"])
        self.assertEqual(self.machine.value("current->comm"), "grep")
        self.assertEqual(self.machine.value("current->pid"), task.pid)
        self.assertEqual(self.machine.value("&current->pid") & 3, 0)
        self.assertIn("thread_info", self.machine.value("*current"))

    def test_stacks_and_mappings(self):
        self.assertEqual(self.machine.backtrace()[0], "do_sys_openat2")
        self.assertIn("schedule", " ".join(self.machine.backtrace(2)))
        files = {one.file for one in self.machine.mappings()}
        self.assertIn("/bin/busybox", files)
        self.assertEqual(self.machine.modules(), [])

    def test_registers_and_memory(self):
        regs = self.opened.regs
        self.assertEqual((regs.pc, regs["lr"]), (self.opened.pc, regs.x30))
        self.assertTrue(self.machine.string(regs.x1).startswith("/"))
        banner = self.machine.read(self.opened.pc, 8)
        physical = self.machine.translate(self.opened.pc)
        self.assertEqual(self.machine.read(physical, 8, physical=True), banner)
        with self.assertRaises(stepwell.Refused):
            self.machine.read(8, 8)
        with self.assertRaises(AttributeError):
            regs.x31
        self.machine.set_register("x9", 7)
        self.assertEqual(self.machine.regs.x9, 7)
        self.machine.set_register("x9", regs.x9)

    def test_what_is_unknown_is_an_error_with_the_tools_words(self):
        with self.assertRaisesRegex(stepwell.StepwellError, "close to it: .*do_sys_openat2"):
            self.machine.address("do_sys_openat3")
        with self.assertRaisesRegex(stepwell.StepwellError, "none of stop, run"):
            self.machine.set_others("whatever")
        with self.assertRaisesRegex(stepwell.StepwellError, "new_folder"):
            with self.machine.record("/new_folder/x"):
                pass
        with self.assertRaisesRegex(stepwell.StepwellError, "nowhere"):
            stepwell.Machine("/nowhere")

    def test_drgn_reads_by_the_machine(self):
        try:
            import drgn  # noqa: F401
        except ImportError:
            self.skipTest("drgn is not installed")
        import stepwell.drgn

        program = stepwell.drgn.program(self.machine)
        pc = self.opened.pc
        self.assertEqual(program.read(pc, 16), self.machine.read(pc, 16))
        self.assertEqual(stepwell.drgn.registers(self.machine)["pc"], self.machine.regs.pc)


class OfSteps(unittest.TestCase):
    """A machine that goes on: what a recording has of its steps, and what examples make of that."""

    def test_steps_are_recorded(self):
        self.machine = debian(smp=2)
        self.addCleanup(self.machine.close)
        self.opened = self.machine.run_to("do_sys_openat2", timeout=LIMIT)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "steps.stepwell")
            begin = self.machine.stop
            with self.machine.record(path) as made:
                stop = self.machine.step(5000, vcpu=begin.vcpu)
            self.assertEqual((made.instructions, stop.steps), (5000, 5000))
            recording = stepwell.Recording(path)
            executed = [one for one in recording if one.vcpu == begin.vcpu]
            self.assertEqual(len(executed), 5000)
            self.assertEqual(executed[0].pc, begin.pc)
            self.assertEqual(recording.name(executed[0].pc), begin.symbol)
            self.assertIsNone(stepwell.first_difference(recording, recording))
            self.coverage(path, recording, executed)

    def coverage(self, path, recording, executed):
        start = self.opened.pc
        files = [path + ".drcov", path + ".info"]
        span = f"{start:x}-{start + 0x1000000:x}"
        said = example("coverage.py", path, "--range", span, "--drcov", files[0], "--lcov", files[1])
        pcs = {one.pc for one in executed if start <= one.pc < start + 0x1000000}
        self.assertRegex(said, r"^kernel: \d+ instructions in \d+ blocks")
        self.assertLessEqual(abs(int(said.split()[1]) - len(pcs)), 64, "runs across the border")
        with open(files[0], "rb") as file:
            head, _, blocks = file.read().partition(b" bbs\n")
        self.assertEqual(len(blocks), 8 * int(head.split()[-1]))
        with open(files[1]) as file:
            self.assertIn("FNDA:", file.read())


class OfTheGuestsLife(unittest.TestCase):
    def test_time_outs_ctrl_c_and_the_end(self):
        image = tempfile.NamedTemporaryFile()
        self.addCleanup(image.close)
        image.write(b"bytes of a disk\n" * 256)
        image.flush()
        with debian(disks=[f"{image.name},snapshot"]) as machine:
            self.assertIsNone(machine.cont(timeout=0.2))
            self.assertEqual((machine.stop.reason, machine.ended), ("paused", None))
            # Who runs in the background begins with this signal ignored.
            former = signal.signal(signal.SIGINT, signal.default_int_handler)
            self.addCleanup(signal.signal, signal.SIGINT, former)
            main = threading.main_thread().ident
            threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
            with self.assertRaises(KeyboardInterrupt):
                machine.cont()
            self.assertEqual(machine.stop.reason, "paused")
            end = time.monotonic() + LIMIT
            while "shell is up" not in machine.console and time.monotonic() < end:
                machine.cont(timeout=1)
            machine.type("mount -t devtmpfs dev /dev; load-modules; busybox head -c 5 /dev/vda; poweroff -f\r")
            self.assertIsNone(machine.cont(timeout=LIMIT))
            self.assertEqual(machine.ended, "powered off")
            self.assertIn("bytes", machine.console.split("poweroff -f")[-1])
        with self.assertRaisesRegex(stepwell.StepwellError, "closed"):
            machine.regs


class OfARun(unittest.TestCase):
    """A run of a guest that panics, recorded and gone back in, then replayed."""

    ROUTE = "DESK+0x80"

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.log = os.path.join(folder.name, "hunt.replay")
        cls.symbols = GUESTS.parent / "hunt.elf"
        kernel = GUESTS.parent / "hunt.bin"
        options = {"smp": 4, "symbols": cls.symbols, "schedule": "turns=20000"}
        with stepwell.Machine(kernel, record=cls.log, **options) as machine:
            cls.while_recorded(machine)

    @classmethod
    def while_recorded(cls, machine):
        check = cls("test_it_is_the_same_run_again")
        note = machine.breakpoint("note")
        first = machine.cont(timeout=LIMIT)
        cls.first, cls.hash = machine.when(), machine.state_hash()
        check.assertEqual((first.symbol, note.hits), ("note", 1))
        machine.cont(timeout=LIMIT)
        check.assertGreater(machine.when(), cls.first)
        back = machine.reverse_cont(timeout=LIMIT)
        check.assertIs(back.breakpoint, note)
        check.assertEqual((machine.when(), machine.state_hash()), (cls.first, cls.hash))
        machine.delete(note)
        # To where it has been, and on into what is new.
        check.assertIsNone(machine.cont(timeout=LIMIT))
        check.assertEqual((machine.edge, machine.when()), ("end", machine.end))
        end = time.monotonic() + LIMIT
        while "panic" not in machine.console and time.monotonic() < end:
            machine.cont(timeout=0.2)
        check.assertIn("panic: no parcel", machine.console)
        cls.end = machine.when()

    def replay(self, **options):
        return stepwell.Machine.replay(self.log, symbols=self.symbols, **options)

    def test_it_is_the_same_run_again(self):
        with self.replay() as machine:
            self.assertEqual((machine.edge, machine.when().position), ("begin", 0))
            self.assertEqual(machine.end, self.end)
            machine.goto(self.first)
            self.assertEqual(machine.state_hash(), self.hash)
            self.assertIsNone(machine.cont(timeout=LIMIT))
            self.assertEqual((machine.edge, machine.when()), ("end", self.end))
            # It goes back by its own steps, and comes again to where it was.
            self.assertEqual(machine.reverse_step(3).steps, 3)
            self.assertLess(machine.when(), self.end)
            with self.assertRaisesRegex(stepwell.StepwellError, "ends at position"):
                machine.goto(self.end.position + 1)
            for nowhere in (-1, "somewhere"):
                with self.assertRaises(stepwell.StepwellError):
                    machine.goto(nowhere)

    def test_the_last_writer_and_names_for_moments(self):
        with self.replay(at="end") as machine:
            # The end is behind the fault: what was written there is what was read.
            self.assertEqual(machine.u64(self.ROUTE), 128)
            writer = machine.last(self.ROUTE, timeout=LIMIT)
            self.assertRegex(writer.symbol, r"^note\+0x")
            self.assertEqual(writer.address, machine.address(self.ROUTE))
            self.assertNotEqual(machine.u64(self.ROUTE), 128)
            machine.snapshot("written")
            there = machine.when()
            call = machine.run_back_to("note", timeout=LIMIT)
            self.assertEqual((call.symbol, call.vcpu), ("note", writer.vcpu))
            machine.restore("written")
            self.assertEqual(machine.when(), there)
            self.assertEqual([one.name for one in machine.snapshots()], ["written"])

    def test_it_is_changed_behind_a_fork_only(self):
        with self.replay(at=self.first.position) as machine:
            for change in (
                lambda: machine.write(self.ROUTE, bytes(8)),
                lambda: machine.set_register("x0", 1),
                lambda: machine.set_interrupts("hold"),
            ):
                with self.assertRaises(stepwell.Refused):
                    change()
            machine.fork()
            machine.write(self.ROUTE, bytes(8))
            self.assertEqual(machine.u64(self.ROUTE), 0)

    def test_example(self):
        said = example(
            "last_writer.py", self.log, self.ROUTE, "--symbols", str(self.symbols), "--count", "2"
        )
        self.assertRegex(said, r"position \d+: note\+0x\w+, over [0-9a-f]{16}  \(vcpu\d\)")

    def test_other_guests_go_only_forwards(self):
        with stepwell.Machine(GUESTS.parent / "hunt.bin") as machine:
            self.assertIsNone(machine.edge)
            for asks in (machine.when, machine.fork, machine.reverse_step):
                with self.assertRaisesRegex(stepwell.StepwellError, "only goes forwards"):
                    asks()

    def test_options_are_the_commands(self):
        kernel = GUESTS.parent / "hunt.bin"
        for wrong, words in (
            ({"smp": 9}, "9 is not in 1..=8"),
            ({"options": ["--what"]}, "--what"),
            ({"disks": ["nowhere.img"]}, "nowhere.img"),
            ({"record": self.log}, "choose another name"),
            ({"symbols": GUESTS.parent / "loop_sum.elf"}, "loop_sum.elf"),
        ):
            with self.subTest(wrong), self.assertRaisesRegex(stepwell.StepwellError, words):
                stepwell.Machine(kernel, **wrong)


class Stubs(unittest.TestCase):
    """What type checkers are told of the compiled part is what it has."""

    def test_they_name_what_there_is(self):
        compiled = stepwell._stepwell
        text = pathlib.Path(stepwell.__file__).with_name("_stepwell.pyi").read_text(encoding="utf-8")
        told = [one for one in ast.parse(text).body if isinstance(one, ast.ClassDef)]
        self.assertEqual({"Core", "Reader"} - {one.name for one in told}, set())
        for one in told:
            real = getattr(compiled, one.name)
            functions = {f.name: f.args.args for f in one.body if isinstance(f, ast.FunctionDef)}
            own = {name for name in vars(real) if not name.startswith("_")}
            self.assertEqual({name for name in functions if not name.startswith("_")}, own)
            for name in own:
                parameters = list(inspect.signature(getattr(real, name)).parameters)
                self.assertEqual([argument.arg for argument in functions[name]], parameters, name)


class Examples(unittest.TestCase):
    def test_who_calls(self):
        said = example("who_calls.py", KERNEL, INITRD, "do_sys_openat2", "--count", "2")
        self.assertEqual(said.count("do_sys_openat2(0x"), 2)
        self.assertIn("__arm64_sys_openat", said)

    def test_log_execs(self):
        said = example("log_execs.py", KERNEL, INITRD, "--count", "12")
        self.assertIn("exec ", said)
        self.assertRegex(said, r"open /\S+")

    def test_first_difference(self):
        said = example("first_difference.py", "--boot", KERNEL, INITRD, "--steps", "20000")
        self.assertRegex(said, "no difference|equal instructions")

    def test_watch_member(self):
        arguments = ["--at", "begin_new_exec", "&current->comm", "--bytes", "16", "--count", "1"]
        said = example("watch_member.py", KERNEL, INITRD, *arguments)
        self.assertRegex(said, r"-> [0-9a-f]{32}")


if __name__ == "__main__":
    unittest.main()
