//! Which registers there are, and how the client is told.
//!
//! GDB's own description of AArch64 in `gdbstub_arch` has 872 registers that any CPU may have. A
//! client asks for each that it knows, so this one has what the guest's CPU really has: core,
//! FP/SIMD, and every system register that the debuggee lets us read, under Arm's name.
//!
//! The system registers are a group of their own, `info registers system`, and are not among those
//! that GDB saves around a call of a guest's function.
//!
//! Where the CPU authenticates pointers, GDB has to know which bits of a return address are its
//! signature ([`crate::pauth`]).
//!
//! With SVE there are Z0 to Z31 in place of V0 to V31, which GDB makes of them by itself. They have
//! the CPU's longest vectors, and not the guest's present ones: a client reads the description once,
//! and EL1 may choose another length at any time. `vg` tells the present one.

use crate::pauth::{self, Half, MASKS, Pointer};
use std::fmt::Write;
use stepwell_arch::SystemRegister;
use stepwell_debuggee::{Debuggee, Error, SveRegister, VcpuId};

/// Number of PSTATE, which GDB calls `cpsr`.
const PSTATE: usize = 33;
/// V0 or Z0.
const FIRST_VECTOR: usize = 34;
const FPSR: usize = 66;
const FPCR: usize = 67;
const FIRST_PREDICATE: usize = 68;
const FFR: usize = 84;
const VG: usize = 85;
/// Behind those of SVE, where there are any.
const BEHIND_SIMD: usize = 68;
const BEHIND_SVE: usize = 86;

/// What a register number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// X0 to X30.
    X(usize),
    Sp,
    Pc,
    Pstate,
    /// V0 to V31.
    V(usize),
    Fpsr,
    Fpcr,
    Sve(SveRegister),
    /// How many doublewords a vector has now.
    Vg,
    /// Which bits of a pointer are its signature.
    Signature(Pointer, Half),
    System(SystemRegister),
}

/// The registers of a debuggee.
#[derive(Clone, Debug, Default)]
pub struct RegisterSet {
    has_simd: bool,
    /// Bytes of the longest vector of SVE.
    vector_bytes: Option<usize>,
    /// Pointers are authenticated.
    has_pauth: bool,
    system: Vec<SystemRegister>,
    xml: String,
}

impl RegisterSet {
    /// Finds out what a stopped vCPU has.
    ///
    /// # Errors
    ///
    /// Only [`Error::Lost`].
    pub fn probe(debuggee: &mut dyn Debuggee, vcpu: VcpuId) -> Result<Self, Error> {
        let has_simd = match debuggee.support_simd() {
            Some(simd) => is_there(simd.read_simd(vcpu))?,
            None => false,
        };
        let vector_bytes = match debuggee.support_sve().map(|sve| sve.vector_length(vcpu)) {
            Some(Ok(length)) if has_simd => Some(length.longest),
            Some(Err(error @ Error::Lost(_))) => return Err(error),
            _ => None,
        };
        let (mut system, mut has_pauth) = (Vec::new(), false);
        if let Some(registers) = debuggee.support_system_registers() {
            has_pauth = pauth::is_there(registers, vcpu)?;
            for register in SystemRegister::all() {
                if is_there(registers.read_system_register(vcpu, register.0))? {
                    system.push(register);
                }
            }
        }
        let mut set = Self { has_simd, vector_bytes, has_pauth, system, xml: String::new() };
        set.xml = set.describe();
        Ok(set)
    }

    /// Returns the description, as `target.xml` has it.
    #[must_use]
    pub fn xml(&self) -> &str {
        &self.xml
    }

    /// Tells whether the CPU authenticates pointers.
    pub(crate) const fn has_pauth(&self) -> bool {
        self.has_pauth
    }

    /// Returns the system registers, in the order of their numbers.
    #[must_use]
    pub fn system(&self) -> &[SystemRegister] {
        &self.system
    }

    /// Says what a number means.
    pub(crate) fn kind(&self, number: usize) -> Option<Kind> {
        Some(match number {
            0..=30 => Kind::X(number),
            31 => Kind::Sp,
            32 => Kind::Pc,
            PSTATE => Kind::Pstate,
            FIRST_VECTOR..FPSR if self.vector_bytes.is_some() => {
                Kind::Sve(SveRegister::Z((number - FIRST_VECTOR) as u8))
            }
            FIRST_PREDICATE..FFR if self.vector_bytes.is_some() => {
                Kind::Sve(SveRegister::P((number - FIRST_PREDICATE) as u8))
            }
            FFR if self.vector_bytes.is_some() => Kind::Sve(SveRegister::Ffr),
            VG if self.vector_bytes.is_some() => Kind::Vg,
            FIRST_VECTOR..FPSR if self.has_simd => Kind::V(number - FIRST_VECTOR),
            FPSR if self.has_simd => Kind::Fpsr,
            FPCR if self.has_simd => Kind::Fpcr,
            _ => {
                let behind = number.checked_sub(self.behind_vectors())?;
                match MASKS.get(behind) {
                    Some(&(_, pointer, half)) if self.has_pauth => Kind::Signature(pointer, half),
                    _ => {
                        let system = number.checked_sub(self.first_system())?;
                        Kind::System(*self.system.get(system)?)
                    }
                }
            }
        })
    }
}

impl RegisterSet {
    const fn behind_vectors(&self) -> usize {
        if self.vector_bytes.is_some() { BEHIND_SVE } else { BEHIND_SIMD }
    }

    const fn first_system(&self) -> usize {
        self.behind_vectors() + if self.has_pauth { MASKS.len() } else { 0 }
    }

    fn describe(&self) -> String {
        let mut xml = String::from(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n\
             <target version=\"1.0\">\n<architecture>aarch64</architecture>\n",
        );
        core(&mut xml);
        match self.vector_bytes {
            Some(bytes) => sve(&mut xml, bytes),
            None if self.has_simd => simd(&mut xml),
            None => {}
        }
        if self.has_pauth {
            xml.push_str("<feature name=\"org.gnu.gdb.aarch64.pauth_v2\">\n");
            for (number, (name, ..)) in (self.behind_vectors()..).zip(MASKS) {
                line(&mut xml, name, 64, number, "type=\"uint64\" save-restore=\"no\"");
            }
            xml.push_str("</feature>\n");
        }
        if !self.system.is_empty() {
            xml.push_str("<feature name=\"org.stepwell.system\">\n");
            for (number, register) in (self.first_system()..).zip(&self.system) {
                let attributes = "type=\"uint64\" group=\"system\" save-restore=\"no\"";
                line(&mut xml, &register.to_string(), 64, number, attributes);
            }
            xml.push_str("</feature>\n");
        }
        xml.push_str("</target>\n");
        xml
    }
}

fn is_there<T>(result: Result<T, Error>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fields of PSTATE in the format of SPSR_EL1: name, first bit, last bit.
const PSTATE_FIELDS: [(&str, u32, u32); 19] = [
    ("SP", 0, 0),
    ("EL", 2, 3),
    ("nRW", 4, 4),
    ("F", 6, 6),
    ("I", 7, 7),
    ("A", 8, 8),
    ("D", 9, 9),
    ("BTYPE", 10, 11),
    ("SSBS", 12, 12),
    ("IL", 20, 20),
    ("SS", 21, 21),
    ("PAN", 22, 22),
    ("UAO", 23, 23),
    ("DIT", 24, 24),
    ("TCO", 25, 25),
    ("V", 28, 28),
    ("C", 29, 29),
    ("Z", 30, 30),
    ("N", 31, 31),
];

fn core(xml: &mut String) {
    xml.push_str("<feature name=\"org.gnu.gdb.aarch64.core\">\n<flags id=\"pstate\" size=\"4\">\n");
    for (name, start, end) in PSTATE_FIELDS {
        add(xml, format_args!("<field name=\"{name}\" start=\"{start}\" end=\"{end}\"/>\n"));
    }
    xml.push_str("</flags>\n");
    for n in 0..31 {
        line(xml, &format!("x{n}"), 64, n, &format!("type=\"int\"{}", generic(n)));
    }
    line(xml, "sp", 64, 31, "type=\"data_ptr\" generic=\"sp\"");
    line(xml, "pc", 64, 32, "type=\"code_ptr\" generic=\"pc\"");
    line(xml, "cpsr", 32, PSTATE, "type=\"pstate\" generic=\"flags\"");
    xml.push_str("</feature>\n");
}

/// What LLDB wants to know of X0 to X30.
fn generic(n: usize) -> String {
    match n {
        0..8 => format!(" generic=\"arg{}\"", n + 1),
        29 => " generic=\"fp\"".to_owned(),
        30 => " generic=\"ra\"".to_owned(),
        _ => String::new(),
    }
}

/// Views of a vector register: field, bytes of a lane, and the types of a lane with their suffixes.
type View = (&'static str, usize, &'static [(&'static str, &'static str)]);
const VIEWS: [View; 5] = [
    ("d", 8, &[("f", "ieee_double"), ("u", "uint64"), ("s", "int64")]),
    ("s", 4, &[("f", "ieee_single"), ("u", "uint32"), ("s", "int32")]),
    ("h", 2, &[("f", "ieee_half"), ("u", "uint16"), ("s", "int16")]),
    ("b", 1, &[("u", "uint8"), ("s", "int8")]),
    ("q", 16, &[("u", "uint128"), ("s", "int128")]),
];

/// Describes the type of a vector of so many bytes.
fn vector(xml: &mut String, id: &str, bytes: usize) {
    for (view, lane_bytes, types) in VIEWS {
        let lanes = bytes / lane_bytes;
        for (suffix, lane) in types {
            let of_lanes = format!("{view}{lanes}{suffix}");
            add(
                xml,
                format_args!("<vector id=\"{of_lanes}\" type=\"{lane}\" count=\"{lanes}\"/>\n"),
            );
        }
        add(xml, format_args!("<union id=\"lanes_{view}\">\n"));
        for (suffix, _) in types {
            add(xml, format_args!("<field name=\"{suffix}\" type=\"{view}{lanes}{suffix}\"/>\n"));
        }
        xml.push_str("</union>\n");
    }
    add(xml, format_args!("<union id=\"{id}\">\n"));
    for (view, ..) in VIEWS {
        add(xml, format_args!("<field name=\"{view}\" type=\"lanes_{view}\"/>\n"));
    }
    xml.push_str("</union>\n");
}

fn simd(xml: &mut String) {
    xml.push_str("<feature name=\"org.gnu.gdb.aarch64.fpu\">\n");
    // LLDB knows vectors by this name.
    vector(xml, "aarch64v", 16);
    for n in 0..32 {
        line(xml, &format!("v{n}"), 128, FIRST_VECTOR + n, "type=\"aarch64v\"");
    }
    control(xml);
    xml.push_str("</feature>\n");
}

fn control(xml: &mut String) {
    line(xml, "fpsr", 32, FPSR, "type=\"int\" group=\"float\"");
    line(xml, "fpcr", 32, FPCR, "type=\"int\" group=\"float\"");
}

/// Describes what GDB demands of `org.gnu.gdb.aarch64.sve`, for vectors of so many bytes.
fn sve(xml: &mut String, bytes: usize) {
    xml.push_str("<feature name=\"org.gnu.gdb.aarch64.sve\">\n");
    // LLDB takes any type whose name begins like this for a vector.
    vector(xml, "vecz", bytes);
    add(xml, format_args!("<vector id=\"vecp\" type=\"uint8\" count=\"{}\"/>\n", bytes / 8));
    let bits = |bytes: usize| u32::try_from(8 * bytes).unwrap_or(u32::MAX);
    for n in 0..32 {
        let number = FIRST_VECTOR + n;
        line(xml, &format!("z{n}"), bits(bytes), number, "type=\"vecz\" group=\"vector\"");
    }
    control(xml);
    for n in 0..16 {
        let number = FIRST_PREDICATE + n;
        line(xml, &format!("p{n}"), bits(bytes / 8), number, "type=\"vecp\" group=\"vector\"");
    }
    line(xml, "ffr", bits(bytes / 8), FFR, "type=\"vecp\" group=\"vector\"");
    line(xml, "vg", 64, VG, "type=\"int\"");
    xml.push_str("</feature>\n");
}

fn line(xml: &mut String, name: &str, bits: u32, number: usize, attributes: &str) {
    let head = format_args!("<reg name=\"{name}\" bitsize=\"{bits}\" regnum=\"{number}\" ");
    add(xml, head);
    add(xml, format_args!("{attributes}/>\n"));
}

fn add(xml: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string does not fail.
    let _infallible = xml.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(set: RegisterSet) -> RegisterSet {
        RegisterSet { xml: set.describe(), ..set }
    }

    /// Demands that each register of a description has the number that it is known by.
    fn numbers_agree(set: &RegisterSet) -> usize {
        let lines = set.xml().lines().filter(|line| line.starts_with("<reg "));
        let mut count = 0;
        for (number, line) in lines.enumerate() {
            let name = line.split('"').nth(1).unwrap();
            assert!(line.contains(&format!("regnum=\"{number}\"")), "{line}");
            let expected = match set.kind(number).unwrap() {
                Kind::X(n) => format!("x{n}"),
                Kind::Sp => "sp".into(),
                Kind::Pc => "pc".into(),
                Kind::Pstate => "cpsr".into(),
                Kind::V(n) => format!("v{n}"),
                Kind::Fpsr => "fpsr".into(),
                Kind::Fpcr => "fpcr".into(),
                Kind::Sve(SveRegister::Z(n)) => format!("z{n}"),
                Kind::Sve(SveRegister::P(n)) => format!("p{n}"),
                Kind::Sve(SveRegister::Ffr) => "ffr".into(),
                Kind::Vg => "vg".into(),
                Kind::System(register) => register.to_string(),
                Kind::Signature(pointer, half) => {
                    let mask = MASKS.iter().find(|mask| (mask.1, mask.2) == (pointer, half));
                    mask.unwrap().0.into()
                }
            };
            assert_eq!(name, expected);
            count += 1;
        }
        assert_eq!(set.kind(count), None);
        count
    }

    #[test]
    fn numbers_are_those_of_the_description() {
        let system = vec![SystemRegister::VBAR_EL1, SystemRegister::ESR_EL1];
        let simd = RegisterSet { has_simd: true, system, ..RegisterSet::default() };
        let sve = RegisterSet { vector_bytes: Some(64), ..simd.clone() };
        assert_eq!(numbers_agree(&described(simd)), 70);
        let sve = described(sve);
        assert_eq!(numbers_agree(&sve), 88);
        let signed = described(RegisterSet { has_pauth: true, ..sve.clone() });
        assert_eq!(numbers_agree(&signed), 92);
        assert!(sve.xml().contains("<reg name=\"z31\" bitsize=\"512\" "), "{}", sve.xml());
        assert!(sve.xml().contains("<reg name=\"ffr\" bitsize=\"64\" "), "{}", sve.xml());
        assert!(!sve.xml().contains("aarch64.fpu"), "GDB takes one of the two");
    }

    #[test]
    fn what_is_not_there_is_not_described() {
        let set = described(RegisterSet::default());
        assert!(!set.xml().contains("fpu") && !set.xml().contains("sve"));
        assert!(!set.xml().contains("stepwell"));
        assert_eq!((set.kind(33), set.kind(34)), (Some(Kind::Pstate), None));
    }
}
