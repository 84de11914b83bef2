//! The words of the trace ring and its header, so that a change of the layout is seen to be one.

use stepwell_wire::ring::{
    BadRecord, Decoder, Encoder, HEADER_BYTES, MAGIC, MAX_RUN, OFFSET_CAPACITY, OFFSET_HEAD,
    OFFSET_MAGIC, OFFSET_TAIL, OFFSET_VERSION, Record,
};

#[test]
fn the_header() {
    assert_eq!(MAGIC.to_le_bytes(), *b"STEPRING");
    let offsets = [OFFSET_MAGIC, OFFSET_VERSION, OFFSET_CAPACITY, OFFSET_HEAD, OFFSET_TAIL];
    assert_eq!(offsets, [0, 8, 16, 64, 128]);
    assert_eq!(HEADER_BYTES, 4096);
    assert_eq!(MAX_RUN, 0x7fff);
}

#[test]
fn golden_words() {
    let mut encoder = Encoder::default();
    let run = |pc, length| Record::Run { vcpu: 3, pc, length };
    let pc = 0xffff_8000_0801_2340;
    assert_eq!(encoder.encode(run(pc, 5)), [0x2180_0500_0000_0000, pc], "full");
    let near = 0xffff_8000_0801_0000;
    assert_eq!(encoder.encode(run(near, 0x7fff)), [0x11ff_ff00_0200_4000], "near");
    let interrupt = Record::Interrupt { vcpu: 3, pc: 4 };
    assert_eq!(encoder.encode(interrupt), [0x3180_0000_0000_0000, 4], "interrupt");
    assert_eq!(encoder.encode(run(0x4000_0000, 1)), [0x2180_0100_0000_0000, 0x4000_0000]);
}

#[test]
fn golden_words_of_details() {
    let mut encoder = Encoder::default();
    let entry = Record::ExceptionEntry {
        vcpu: 3,
        cause: 1,
        return_address: 8,
        vector: 0x280,
        syndrome: 0,
        intid: Some(27),
    };
    assert_eq!(encoder.encode(entry), [0x4180_0100_0000_001c, 8, 0x280, 0]);
    let back = Record::ExceptionReturn { vcpu: 3, to: 8, el: 1 };
    assert_eq!(encoder.encode(back), [0x5180_0100_0000_0000, 8]);
    let exclusive = Record::Exclusive { vcpu: 3, pc: 8, stored: true };
    assert_eq!(encoder.encode(exclusive), [0x6180_0100_0000_0000, 8]);
    let context = Record::Context { vcpu: 3, el: 1, vmid: 2, asid: 9, ttbr0: 0x4000 };
    assert_eq!(encoder.encode(context), [0x7180_0100_0002_0009, 0x4000]);
    let time = Record::Time { vcpu: 3, ns: 77 };
    assert_eq!(encoder.encode(time), [0x8180_0000_0000_0000, 77]);
    let register = Record::Register { vcpu: 3, register: 31, value: 5, found: true };
    assert_eq!(encoder.encode(register), [0x9181_1f00_0000_0000, 5]);
    let memory = |size, value| Record::Memory { vcpu: 3, access: 1, address: 0x100, size, value };
    assert_eq!(encoder.encode(memory(64, None)), [0xa180_0100_0000_0040, 0x100]);
    assert_eq!(encoder.encode(memory(8, Some(6))), [0xa180_0500_0000_0008, 0x100, 6]);
    let wide = Some(7 << 64 | 6);
    assert_eq!(encoder.encode(memory(16, wide)), [0xa180_0500_0000_0010, 0x100, 6, 7]);
}

#[test]
fn a_misaligned_pc_takes_the_full_form() {
    let mut encoder = Encoder::default();
    encoder.encode(Record::Run { vcpu: 0, pc: 0x1000, length: 1 });
    let words = encoder.encode(Record::Run { vcpu: 0, pc: 0x1002, length: 1 });
    assert_eq!(words.get(1), Some(&0x1002));
}

#[test]
fn words_that_no_encoder_writes_are_refused() {
    let empty_near = 0x1000_0000_0000_0400;
    let empty_full = 0x2000_0000_0000_0000;
    let kind_0 = 0x0000_0100_0000_0000;
    let kind_13 = 0xd000_0100_0000_0000;
    let kind_15 = u64::MAX;
    for word in [empty_near, empty_full, kind_0, kind_13, kind_15] {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(word), Err(BadRecord { word }), "{word:#018x}");
        // And the decoder is at the beginning of a record again.
        assert_eq!(decoder.push(0x2000_0100_0000_0000), Ok(None));
        let expected = Record::Run { vcpu: 0, pc: 8, length: 1 };
        assert_eq!(decoder.push(8), Ok(Some(expected)));
    }
}

#[test]
fn each_vcpu_has_its_own_base() {
    let mut encoders = [Encoder::default(), Encoder::default()];
    let mut decoder = Decoder::default();
    let records = [
        Record::Run { vcpu: 0, pc: 0xffff_8000_0000_1000, length: 1 },
        Record::Run { vcpu: 1, pc: 0x4000_0000, length: 2 },
        Record::Run { vcpu: 0, pc: 0xffff_8000_0000_2000, length: 3 },
        Record::Run { vcpu: 1, pc: 0x4000_1000, length: 4 },
    ];
    let mut got = Vec::new();
    for record in records {
        let Record::Run { vcpu, .. } = record else { unreachable!("runs only") };
        for word in encoders[usize::from(vcpu)].encode(record) {
            got.extend(decoder.push(word).expect("an encoder wrote it"));
        }
    }
    assert_eq!(got, records);
}
