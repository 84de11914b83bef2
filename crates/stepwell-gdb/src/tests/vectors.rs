//! FP/SIMD and SVE registers.

use super::{Client, with, with_guest};
use stepwell_debuggee::fake::Fake;
use stepwell_debuggee::{VectorLength, contract};

const V1: &str = "23";
const FPSR: &str = "42";
const FPCR: &str = "43";

fn with_sve(test: impl FnOnce(&mut Client<'_>)) {
    let length = VectorLength { longest: 64, current: 32 };
    with_guest(Fake::with_sve(&contract::guest_bytes(), length), test);
}

/// Writes a register, and demands that it reads as written.
fn kept(client: &mut Client<'_>, number: &str, digits: &str) {
    assert_eq!(client.answer(&format!("P{number}={digits}")), "OK", "{number}");
    assert_eq!(client.answer(&format!("p{number}")), digits, "{number}");
}

#[test]
fn simd_registers_are_written_one_by_one() {
    with(|client| {
        let v1 = "0102030405060708090a0b0c0d0e0f10";
        kept(client, V1, v1);
        kept(client, FPSR, "00000008");
        kept(client, FPCR, "0000c000");
        assert_eq!(client.answer(&format!("p{V1}")), v1, "the others leave it alone");
        assert_eq!(client.answer("p22"), "0".repeat(32));
        assert_eq!(client.answer(&format!("P{V1}=0102")), "E16", "it has 16 bytes");
        assert_eq!(client.answer(&format!("P{FPSR}=0102030405060708")), "E16", "it has 4 bytes");
        assert_eq!(client.answer("p44"), "E06", "there is no SVE");
    });
}

#[test]
fn sve_registers_stand_in_for_simd() {
    with_sve(|client| {
        let xml = client.answer("qXfer:features:read:target.xml:0,3fff");
        assert!(xml.contains("aarch64.sve") && !xml.contains("aarch64.fpu"), "{xml}");
        let reachable = "5a".repeat(32);
        let whole = format!("{reachable}{}", "00".repeat(32));
        kept(client, V1, &whole);
        // A client that goes by `vg` writes what the guest can reach.
        assert_eq!(client.answer(&format!("P{V1}={reachable}")), "OK");
        assert_eq!(client.answer(&format!("p{V1}")), whole);
        assert_eq!(client.answer(&format!("P{V1}={}", "5a".repeat(64))), "E16", "out of reach");
        assert_eq!(client.answer(&format!("P{V1}={}", "00".repeat(65))), "E16", "too long");
        kept(client, "44", "ff55aa0000000000");
        kept(client, "53", "0100000000000000");
        kept(client, "54", "ffff000000000000");
        assert_eq!(client.answer("p55"), "0400000000000000", "vg: four doublewords");
        assert_eq!(client.answer("P55=0200000000000000"), "E06", "EL1 chooses it");
        kept(client, FPCR, "0000c000");
        assert_eq!(client.answer(&format!("p{V1}")), whole, "what is beyond V1 stays");
    });
}
