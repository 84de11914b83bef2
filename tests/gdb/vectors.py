# The registers of SVE, on a CPU that has it: what GDB writes, the guest's own instructions see.

gdb.execute("source " + __file__.rsplit("/", 1)[0] + "/checks.py")

CODE = (0x04E10003,  # add z3.d, z0.d, z1.d
        0x25814422,  # mov p2.b, p1.b
        0x04BF5022)  # rdvl x2, #1


def refused(command):
    try:
        run(command)
    except gdb.error:
        return True
    return False


def vectors():
    run("set $CPACR_EL1 = 0x330000")
    run("set $ZCR_EL1 = 15")
    check(value("$vg") == 32, run("p $vg"))
    for n, word in enumerate(CODE):
        run("set {unsigned int}($pc + %d) = %#x" % (4 * n, word))
    for lane in range(32):
        run("set $z0.d.u[%d] = %d" % (lane, 100 * lane))
        run("set $z1.d.u[%d] = %d" % (lane, lane + 1))
    for at in range(32):
        run("set $p1[%d] = %d" % (at, 255 - at))
    run("stepi")
    run("stepi")
    run("stepi")
    for lane in range(32):
        check(value("$z3.d.u[%d]" % lane) == 101 * lane + 1, run("p $z3.d.u"))
    for at in range(32):
        check(value("$p2[%d]" % at) == 255 - at, run("p $p2"))
    check(value("$x2") == 256, run("p $x2"))
    done("z, p and vg")


def pseudo():
    check(value("$v3.d.u[1]") == 102, run("p $v3"))
    run("set $v3.d.u[0] = 7")
    check(value("$z3.d.u[0]") == 7 and value("$z3.d.u[1]") == 102, run("p $z3.d.u"))
    check(value("$z3.d.u[2]") == 0, "a write to V clears the rest, as an instruction does")
    run("set $fpcr = 0xc00000")
    run("set $fpsr = 0x8000000")
    check(value("$fpcr") == 0xC00000 and value("$fpsr") == 0x8000000, run("p $fpcr"))
    check(value("$z0.d.u[31]") == 3100, run("p $z0.d.u"))
    done("v, fpcr and fpsr")


def shorter():
    run("set $ZCR_EL1 = 1")
    check(value("$vg") == 4, run("p $vg"))
    check(value("$z0.d.u[3]") == 300 and value("$z0.d.u[4]") == 0, run("p $z0.d.u"))
    check(refused("set $z0.d.u[4] = 1"), "out of reach")
    run("set $z0.d.u[3] = 9")
    check(value("$z0.d.u[3]") == 9, run("p $z0.d.u"))
    check(refused("set $vg = 2"), "EL1 chooses the length")
    done("shorter vectors")


main(lambda: (vectors(), pseudo(), shorter()))
gdb.execute("detach")
