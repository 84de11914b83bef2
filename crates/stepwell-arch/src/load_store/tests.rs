//! The decoder against a full disassembler as oracle.

use super::*;
use capstone::prelude::*;

fn oracle() -> Capstone {
    let builder = Capstone::new().arm64().mode(arch::arm64::ArchMode::Arm);
    builder.build().expect("the oracle is built in")
}

fn text_of(oracle: &Capstone, word: u32) -> Option<(String, String)> {
    let instructions = oracle.disasm_count(&word.to_le_bytes(), 0x1000, 1).ok()?;
    let instruction = instructions.first()?;
    Some((instruction.mnemonic()?.to_owned(), instruction.op_str().unwrap_or_default().to_owned()))
}

fn bytes_of_letter(register: &str) -> Option<u8> {
    Some(match register.trim_start_matches(['{', ' ']).chars().next()? {
        'b' => 1,
        'h' => 2,
        'w' | 's' => 4,
        'x' | 'd' => 8,
        'q' => 16,
        _ => return None,
    })
}

fn is_atomic(mnemonic: &str) -> bool {
    let names = ["add", "clr", "eor", "set", "smax", "smin", "umax", "umin"];
    let body = mnemonic.strip_prefix("ld").or_else(|| mnemonic.strip_prefix("st"));
    mnemonic.starts_with("cas")
        || mnemonic.starts_with("swp")
        || body.is_some_and(|body| names.iter().any(|name| body.starts_with(name)))
}

/// What the oracle says of direction, bytes for each register, and count.
fn size_in_words(mnemonic: &str, operands: &str) -> Option<(Direction, u8, u8)> {
    let direction = if is_atomic(mnemonic) {
        Direction::Both
    } else if mnemonic.starts_with("ld") {
        Direction::Load
    } else {
        Direction::Store
    };
    if let Some(count) = mnemonic.strip_prefix("ld").or(mnemonic.strip_prefix("st"))
        && count.starts_with(['1', '2', '3', '4'])
    {
        let list = operands.split('}').next()?;
        let arrangement = list.rsplit('.').next()?;
        let count = list.matches('v').count() as u8;
        let element = bytes_of_letter(arrangement.trim_start_matches(char::is_numeric))?;
        let is_single = operands.contains("}[") || mnemonic.ends_with('r');
        let lanes: u8 = arrangement.trim_end_matches(char::is_alphabetic).parse().unwrap_or(1);
        return Some((direction, if is_single { element } else { lanes * element }, count));
    }
    let is_status_first = mnemonic.starts_with("stx") || mnemonic.starts_with("stlx");
    let register = operands.split(',').nth(usize::from(is_status_first))?;
    let count = match mnemonic.trim_end_matches(['a', 'l']) {
        "ldp" | "stp" | "ldnp" | "stnp" | "ldpsw" | "ldxp" | "ldaxp" | "stxp" | "stlxp"
        | "casp" | "stgp" => 2,
        _ => 1,
    };
    let bytes = match mnemonic {
        "ldraa" | "ldrab" => 8,
        _ if mnemonic.ends_with("sw") => 4,
        _ if mnemonic.ends_with('b') => 1,
        _ if mnemonic.ends_with('h') => 2,
        _ => bytes_of_letter(register)?,
    };
    Some((direction, bytes, count))
}

fn general(n: u8, zero: &str) -> String {
    if n == 31 { zero.into() } else { format!("{}{n}", zero.chars().next().expect("a name")) }
}

fn base_name(rn: u8) -> String {
    if rn == 31 { "sp".into() } else { format!("x{rn}") }
}

/// The address as the oracle writes it, within its brackets or without any.
fn address_in_words(address: Address, word: u32) -> String {
    let with = |rn, offset: i64| match offset {
        0 => base_name(rn),
        offset if offset < 0 && offset > -10 => format!("{}, #-{}", base_name(rn), -offset),
        offset if offset < 0 => format!("{}, #-{:#x}", base_name(rn), -offset),
        offset if offset < 10 => format!("{}, #{offset}", base_name(rn)),
        offset => format!("{}, #{offset:#x}", base_name(rn)),
    };
    match address {
        Address::Base { rn, offset } | Address::Authenticated { rn, offset } => with(rn, offset),
        Address::Indexed { rn, rm, extend, shift } => {
            let index = general(rm, if word & 1 << 13 == 0 { "wzr" } else { "xzr" });
            let is_sxtx = word >> 13 & 7 == 7;
            let has_amount = word & 1 << 12 != 0;
            let extend = match (extend, shift) {
                (Extend::Uxtx, _) if is_sxtx => ", sxtx",
                (Extend::Uxtx, _) if has_amount => ", lsl",
                (Extend::Uxtx, _) => "",
                (Extend::Uxtw, _) => ", uxtw",
                (Extend::Sxtw, _) => ", sxtw",
            };
            let amount = if has_amount { format!(" #{shift}") } else { String::new() };
            format!("{}, {index}{extend}{amount}", base_name(rn))
        }
        Address::Literal { offset } => format!("#{:#x}", 0x1000_i64.wrapping_add(offset)),
        Address::Block { rn } => general(rn, "xzr"),
    }
}

/// Random ones, and some that are rare among them: ldxr, stlr, ldapr, stadd.
fn words() -> impl Iterator<Item = u32> {
    let rare = [0xc85f_7c20, 0xc89f_fc20, 0xf8bf_c020, 0xf821_003f];
    rare.into_iter().chain(random_words())
}

fn random_words() -> impl Iterator<Item = u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..400_000).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Loads and stores have bit 27 set and bit 25 clear.
        (state >> 16) as u32 & !(1 << 25) | 1 << 27
    })
}

/// Mnemonics that access no data, or data that nobody here has.
fn is_left_out(mnemonic: &str) -> bool {
    let tags = ["stg", "st2g", "stzg", "stz2g", "ldg", "ldgm", "stgm", "stzgm"];
    let others = ["ld64b", "st64b", "st64bv", "st64bv0", "prfm", "prfum"];
    let prefixes = ["cpy", "set", "rprfm", "ldtp", "rcw", "ldiapp", "stilp", "ldap1", "stl1"];
    tags.contains(&mnemonic)
        || others.contains(&mnemonic)
        || prefixes.iter().any(|prefix| mnemonic.starts_with(prefix))
}

#[test]
fn every_load_and_store_is_as_the_oracle_says() {
    let oracle = oracle();
    let mut seen = std::collections::BTreeSet::new();
    for word in words() {
        let ours = LoadStore::decode(word);
        let Some((mnemonic, operands)) = text_of(&oracle, word) else {
            // Cores execute exclusives whose should-be-one bits are not, and pairs that load twice
            // into one register; the oracle refuses.
            continue;
        };
        if word & 1 << 27 == 0 || is_left_out(&mnemonic) {
            assert_eq!(ours, None, "{word:#010x} {mnemonic} {operands}");
            continue;
        }
        let Some(found) = ours else { panic!("{word:#010x} {mnemonic} {operands}: not decoded") };
        let size = (found.direction, found.bytes, found.count);
        let theirs = size_in_words(&mnemonic, &operands);
        assert_eq!(Some(size), theirs, "{word:#010x} {mnemonic} {operands}");
        let address = address_in_words(found.address, word);
        let in_brackets = operands.split('[').next_back().and_then(|rest| rest.split(']').next());
        let theirs = match found.address {
            Address::Literal { .. } => operands.rsplit(", ").next(),
            _ => in_brackets.map(|text| text.strip_suffix(", #0").unwrap_or(text)),
        };
        assert_eq!(Some(&address[..]), theirs, "{word:#010x} {mnemonic} {operands}");
        seen.insert(mnemonic);
    }
    // Each class is there.
    let wanted = [
        "ldp", "stp", "ldpsw", "ldnp", "ldxr", "stlxrb", "ldaxp", "casp", "cas", "casalb", "ldar",
        "stlr", "swp", "ldaddal", "stadd", "ldumaxh", "ldapr", "ldapurb", "stlur", "ldr", "ldrsw",
        "ldrsb", "ldur", "sturh", "ldtr", "sttrb", "ld1", "st4", "ld2r", "ld4r", "st3", "ldraa",
        "str", "strb",
    ];
    let missing: Vec<_> = wanted.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:?}");
}

#[test]
fn what_does_not_load_or_store_is_nothing() {
    for word in words() {
        let word = word & !(1 << 27);
        assert!(LoadStore::decode(word).is_none_or(|found| found.bytes == 0), "{word:#010x}");
    }
}

#[test]
fn addresses_are_computed() {
    let base = |n: u8| if n == 31 { 0x8000 } else { 0x1000 };
    let index = |n: u8| if n == 31 { 0 } else { 0xffff_ffff_ffff_fffe };
    let address = |word| LoadStore::decode(word).unwrap().address(0x4000, base, index).unwrap();
    assert_eq!(address(0xf940_07e1), 0x8008, "ldr x1, [sp, #8]");
    assert_eq!(address(0xf840_8421), 0x1000, "ldr x1, [x1], #8");
    assert_eq!(address(0xf81f_0c21), 0xff0, "str x1, [x1, #-16]!");
    assert_eq!(address(0xf862_7821), 0xff0, "ldr x1, [x1, x2, lsl #3]");
    assert_eq!(address(0xb862_4821), 0x1_0000_0ffe_u64, "ldr w1, [x1, w2, uxtw]");
    assert_eq!(address(0xb862_d821), 0xff8, "ldr w1, [x1, w2, sxtw #2]");
    assert_eq!(address(0x5800_0041), 0x4008, "ldr x1, #8");
    assert_eq!(address(0xd50b_7421), 0xffff_ffff_ffff_fffe, "dc zva, x1");
    let authenticated = LoadStore::decode(0xf820_0421).unwrap();
    assert_eq!(authenticated.address(0x4000, base, index), None, "ldraa x1, [x1]");
}

#[test]
fn accesses_with_el0s_rights_are_told() {
    let rows = [
        (0xf840_0801, true, "ldtr x1, [x0]"),
        (0x3800_0801, true, "sttrb w1, [x0]"),
        (0xb880_0801, true, "ldtrsw x1, [x0]"),
        (0xf840_0001, false, "ldur x1, [x0]"),
        (0xf940_0801, false, "ldr x1, [x0, #16]"),
        (0x3c40_0801, false, "nothing, of SIMD registers"),
        (0xf8e0_0801, false, "nothing, of atomics"),
    ];
    for (word, expected, text) in rows {
        assert_eq!(is_unprivileged(word), expected, "{text}");
    }
}
