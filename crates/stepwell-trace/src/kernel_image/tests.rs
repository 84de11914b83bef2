//! Kernels of every kind, made here, and what people name by mistake.

use super::*;
use proptest::prelude::*;
use std::io::Write;

/// An arm64 Image without EFI stub.
fn image() -> Vec<u8> {
    let mut bytes = vec![0x1f; 4096];
    bytes[..64].fill(0);
    bytes[..4].copy_from_slice(&[0x01, 0, 0, 0x14]);
    bytes[16..24].copy_from_slice(&0x2_0000u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&0xau64.to_le_bytes());
    bytes[0x38..0x3c].copy_from_slice(b"ARM\x64");
    bytes
}

/// The same with an EFI stub whose only section ends at `end`.
fn efi_image(end: u32) -> Vec<u8> {
    let mut bytes = image();
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c..0x40].copy_from_slice(&0x40u32.to_le_bytes());
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x46..0x48].copy_from_slice(&1u16.to_le_bytes());
    bytes[0x54..0x56].copy_from_slice(&0xa0u16.to_le_bytes());
    let section = 0x40 + 24 + 0xa0;
    bytes[section + 16..section + 20].copy_from_slice(&(end - 0x200).to_le_bytes());
    bytes[section + 20..section + 24].copy_from_slice(&0x200u32.to_le_bytes());
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).expect("memory takes everything");
    packer.finish().expect("memory takes everything")
}

fn zboot(packing: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[4..8].copy_from_slice(b"zimg");
    bytes[8..12].copy_from_slice(&64u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[24..24 + packing.len()].copy_from_slice(packing);
    bytes.extend_from_slice(payload);
    bytes
}

/// An ELF of two segments, at 0x4008_0000 and 0x4008_1000, entered 8 bytes into the first.
fn elf(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 2;
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[24..32].copy_from_slice(&0xffff_0000_0008_0008u64.to_le_bytes());
    bytes[32] = 64;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[56] = 2;
    let start = 64 + 2 * 56;
    for (index, offset) in [(0, 0), (1, 0x1000u64)] {
        let fields =
            [start + index * 16, 0xffff_0000_0008_0000 + offset, 0x4008_0000 + offset, 16, 64, 4];
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(5u32.to_le_bytes());
        fields.iter().for_each(|field| bytes.extend(field.to_le_bytes()));
    }
    bytes.extend([0x11; 16]);
    bytes.extend([0x22; 16]);
    bytes
}

fn recognise(bytes: &[u8]) -> Result<KernelImage, KernelError> {
    KernelImage::recognise(bytes.to_vec(), RawPolicy::Refuse)
}

#[test]
fn images_of_every_packing() {
    let plan = LoadPlan::Image { text_offset: 0, image_size: 0x2_0000, flags: 0xa };
    let zstd = zstd::bulk::compress(&image(), 3).expect("memory takes everything");
    let files = [
        (KernelKind::Image, image()),
        (KernelKind::ImageGz, gzip(&image())),
        (KernelKind::EfiZboot, zboot(b"gzip", &gzip(&image()))),
        (KernelKind::EfiZboot, zboot(b"zstd", &zstd)),
        (KernelKind::EfiZboot, zboot(b"zstd22", &zstd)),
    ];
    for (kind, file) in files {
        let kernel = recognise(&file).expect("a good kernel");
        assert_eq!((kernel.kind, kernel.load), (kind, plan));
        assert_eq!(kernel.bytes, image());
        assert_eq!(kernel.symbols(), None);
    }
}

#[test]
fn elf_is_flattened() {
    let kernel = recognise(&elf(183)).expect("a good ELF");
    assert_eq!(kernel.kind, KernelKind::Elf);
    assert_eq!(kernel.load, LoadPlan::Fixed { address: 0x4008_0000, entry: 0x4008_0008 });
    assert_eq!(kernel.bytes.len(), 0x1010);
    assert_eq!((kernel.bytes[15], kernel.bytes[16], kernel.bytes[0x1000]), (0x11, 0, 0x22));
}

#[test]
fn a_cut_off_image_is_noticed_by_its_sections() {
    assert!(recognise(&efi_image(4096)).is_ok());
    let error = recognise(&efi_image(0x9000)).expect_err("bytes are missing");
    assert_eq!(error, KernelError::Truncated { expected: 0x9000, found: 4096 });
    let error = recognise(&image()[..64]).expect_err("bytes are missing");
    assert_eq!(error, KernelError::Truncated { expected: 68, found: 64 });
    let cut = gzip(&image());
    assert!(matches!(recognise(&cut[..cut.len() - 20]), Err(KernelError::Unpacking(_))));
    let cut = zboot(b"gzip", &gzip(&image()));
    assert!(matches!(recognise(&cut[..cut.len() - 1]), Err(KernelError::Truncated { .. })));
    let cut = elf(183);
    assert!(matches!(recognise(&cut[..cut.len() - 1]), Err(KernelError::Truncated { .. })));
}

#[test]
fn strangers_are_refused_by_what_they_are() {
    let mut bzimage = vec![0; 0x400];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    let mut zimage = vec![0; 0x100];
    zimage[0x24..0x28].copy_from_slice(&0x016f_2818u32.to_le_bytes());
    let mut big_endian = image();
    big_endian[24] |= 1;
    let cases: [(&[u8], &str); 9] = [
        (b"", "is empty"),
        (&bzimage, "is an x86 bzImage, not an arm64 kernel"),
        (&zimage, "is an arm (32-bit) zImage, not an arm64 kernel"),
        (&big_endian, "is a big-endian arm64 kernel, which is not supported"),
        (b"\xfd7zXZ\0\0", "is packed with xz: unpack it first"),
        (b"#!/bin/sh\nexit 1\n", "is not a kernel: it starts with \"#!/bin/sh\\nexit 1\""),
        (&[0xde, 0xad], "is not a kernel: it starts with de ad"),
        (&gzip(b"hello"), "is not a kernel: it starts with a packed file, and that with \"hello\""),
        (&elf(62), "is an ELF that cannot be loaded: it is for X86_64"),
    ];
    for (bytes, expected) in cases {
        let error = recognise(bytes).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn raw_bytes_are_taken_if_asked_for() {
    let kernel = KernelImage::recognise(vec![0xde, 0xad], RawPolicy::Accept).expect("raw");
    assert_eq!((kernel.kind, kernel.load), (KernelKind::Raw, LoadPlan::Anywhere));
}

proptest! {
    #[test]
    fn damage_is_an_answer(
        file in 0..5usize,
        flips in prop::collection::vec((0..300usize, any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = match file {
            0 => image(),
            1 => efi_image(4096),
            2 => zboot(b"gzip", &gzip(&image())),
            3 => elf(183),
            _ => gzip(&elf(183)),
        };
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = recognise(&bytes);
        let _ = KernelImage::recognise(bytes, RawPolicy::Accept);
    }
}
