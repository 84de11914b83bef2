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
    assert_eq!(encoder.encode(run(pc, 5)), (0x2180_0500_0000_0000, Some(pc)), "full");
    let near = 0xffff_8000_0801_0000;
    assert_eq!(encoder.encode(run(near, 0x7fff)), (0x11ff_ff00_0200_4000, None), "near");
    let interrupt = Record::Interrupt { vcpu: 3, pc: 4 };
    assert_eq!(encoder.encode(interrupt), (0x3180_0000_0000_0000, Some(4)), "interrupt");
    assert_eq!(encoder.encode(run(0x4000_0000, 1)), (0x2180_0100_0000_0000, Some(0x4000_0000)));
}

#[test]
fn a_misaligned_pc_takes_the_full_form() {
    let mut encoder = Encoder::default();
    encoder.encode(Record::Run { vcpu: 0, pc: 0x1000, length: 1 });
    let (_, second) = encoder.encode(Record::Run { vcpu: 0, pc: 0x1002, length: 1 });
    assert_eq!(second, Some(0x1002));
}

#[test]
fn words_that_no_encoder_writes_are_refused() {
    let empty_near = 0x1000_0000_0000_0400;
    let empty_full = 0x2000_0000_0000_0000;
    let kind_0 = 0x0000_0100_0000_0000;
    let kind_4 = 0x4000_0100_0000_0000;
    let kind_15 = u64::MAX;
    for word in [empty_near, empty_full, kind_0, kind_4, kind_15] {
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
        let (first, second) = encoders[usize::from(vcpu)].encode(record);
        for word in [Some(first), second].into_iter().flatten() {
            got.extend(decoder.push(word).expect("an encoder wrote it"));
        }
    }
    assert_eq!(got, records);
}
