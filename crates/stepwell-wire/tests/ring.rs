//! The words of the trace ring and its header, so that a change of the layout is seen to be one.

use stepwell_arch::Va;
use stepwell_protocol::{
    Context, ExceptionCause, ExceptionEntry, MemoryAccess, MemoryAccessKind, Register, TraceRecord,
};
use stepwell_wire::ring::{
    BadRecord, Decoder, Encoder, HEADER_BYTES, MAGIC, MAX_RUN, OFFSET_CAPACITY, OFFSET_HEAD,
    OFFSET_MAGIC, OFFSET_TAIL, OFFSET_VERSION,
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
    let run = |pc, length| TraceRecord::Run { vcpu: 3, pc: Va(pc), length };
    let pc = 0xffff_8000_0801_2340;
    assert_eq!(encoder.encode(run(pc, 5)), [0x2180_0500_0000_0000, pc], "full");
    let near = 0xffff_8000_0801_0000;
    assert_eq!(encoder.encode(run(near, 0x7fff)), [0x11ff_ff00_0200_4000], "near");
    let interrupt = TraceRecord::Interrupt { vcpu: 3, pc: Va(4) };
    assert_eq!(encoder.encode(interrupt), [0x3180_0000_0000_0000, 4], "interrupt");
    assert_eq!(encoder.encode(run(0x4000_0000, 1)), [0x2180_0100_0000_0000, 0x4000_0000]);
}

#[test]
fn golden_words_of_details() {
    let mut encoder = Encoder::default();
    let entry = TraceRecord::ExceptionEntry(ExceptionEntry {
        vcpu: 3,
        cause: ExceptionCause::Irq,
        return_address: Va(8),
        vector: Va(0x280),
        syndrome: 0,
        intid: Some(27),
    });
    assert_eq!(encoder.encode(entry), [0x4180_0100_0000_001c, 8, 0x280, 0]);
    let back = TraceRecord::ExceptionReturn { vcpu: 3, to: Va(8), el: 1 };
    assert_eq!(encoder.encode(back), [0x5180_0100_0000_0000, 8]);
    let exclusive = TraceRecord::Exclusive { vcpu: 3, pc: Va(8), stored: true };
    assert_eq!(encoder.encode(exclusive), [0x6180_0100_0000_0000, 8]);
    let context = TraceRecord::Context(Context { vcpu: 3, el: 1, vmid: 2, asid: 9, ttbr0: 0x4000 });
    assert_eq!(encoder.encode(context), [0x7180_0100_0002_0009, 0x4000]);
    let time = TraceRecord::Time { ns: 77 };
    assert_eq!(encoder.encode(time), [0x8000_0000_0000_0000, 77]);
    let register = TraceRecord::Register { vcpu: 3, register: Register::SP, value: 5, found: true };
    assert_eq!(encoder.encode(register), [0x9181_1f00_0000_0000, 5]);
    let access = MemoryAccessKind::Store;
    let memory = |size, value| {
        TraceRecord::Memory(MemoryAccess { vcpu: 3, access, address: Va(0x100), size, value })
    };
    assert_eq!(encoder.encode(memory(64, None)), [0xa180_0100_0000_0040, 0x100]);
    assert_eq!(encoder.encode(memory(8, Some(6))), [0xa180_0500_0000_0008, 0x100, 6]);
    let wide = Some(7 << 64 | 6);
    assert_eq!(encoder.encode(memory(16, wide)), [0xa180_0500_0000_0010, 0x100, 6, 7]);
}

#[test]
fn a_misaligned_pc_takes_the_full_form() {
    let mut encoder = Encoder::default();
    encoder.encode(TraceRecord::Run { vcpu: 0, pc: Va(0x1000), length: 1 });
    let words = encoder.encode(TraceRecord::Run { vcpu: 0, pc: Va(0x1002), length: 1 });
    assert_eq!(words.get(1), Some(&0x1002));
}

#[test]
fn words_that_no_encoder_writes_are_refused() {
    let empty_near = 0x1000_0000_0000_0400;
    let empty_full = 0x2000_0000_0000_0000;
    let kind_0 = 0x0000_0100_0000_0000;
    let kind_13 = 0xd000_0100_0000_0000;
    let kind_15 = u64::MAX;
    let set_3 = 0xc000_0300_0000_0000;
    for word in [empty_near, empty_full, kind_0, kind_13, kind_15, set_3] {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(word), Err(BadRecord { word }), "{word:#018x}");
        // And the decoder is at the beginning of a record again.
        assert_eq!(decoder.push(0x2000_0100_0000_0000), Ok(None));
        let expected = TraceRecord::Run { vcpu: 0, pc: Va(8), length: 1 };
        assert_eq!(decoder.push(8), Ok(Some(expected)));
    }
}

#[test]
fn each_vcpu_has_its_own_base() {
    let mut encoders = [Encoder::default(), Encoder::default()];
    let mut decoder = Decoder::default();
    let records = [
        TraceRecord::Run { vcpu: 0, pc: Va(0xffff_8000_0000_1000), length: 1 },
        TraceRecord::Run { vcpu: 1, pc: Va(0x4000_0000), length: 2 },
        TraceRecord::Run { vcpu: 0, pc: Va(0xffff_8000_0000_2000), length: 3 },
        TraceRecord::Run { vcpu: 1, pc: Va(0x4000_1000), length: 4 },
    ];
    let mut got = Vec::new();
    for record in records {
        let TraceRecord::Run { vcpu, .. } = record else { unreachable!("runs only") };
        for word in encoders[usize::from(vcpu)].encode(record) {
            got.extend(decoder.push(word).expect("an encoder wrote it"));
        }
    }
    assert_eq!(got, records);
}
