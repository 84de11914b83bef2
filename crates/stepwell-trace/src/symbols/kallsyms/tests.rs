//! A synthetic kernel in each layout, garbage, and a real kernel if the environment names one.

use super::*;
use proptest::prelude::*;
use stepwell_arch::address::Va;

/// How a generation of kernels lays its table out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    offsets_first: bool,
    sequences: bool,
    marker_width: usize,
}

const LAYOUTS: [Layout; 4] = [
    Layout { offsets_first: true, sequences: false, marker_width: 8 },
    Layout { offsets_first: true, sequences: false, marker_width: 4 },
    Layout { offsets_first: true, sequences: true, marker_width: 4 },
    Layout { offsets_first: false, sequences: true, marker_width: 4 },
];

/// Where the Image was linked, and how far into it the lowest symbol is.
const LINK: u64 = 0xffff_8000_0800_0000;
const LOWEST: u64 = 0x1000;

/// The value of `relative_base`.
#[derive(Clone, Copy, Debug)]
enum Base {
    InPlace,
    Relocated,
    Unknown,
}

fn symbols(count: usize) -> Vec<(u32, String)> {
    let mut list = vec![(0, "T_stext".to_owned()), (0, "tprimary_entry".to_owned())];
    list.extend((2..count).map(|n| {
        (
            n as u32 * 16,
            format!("t{}_{n}", "long_name_".repeat(if n % 9 == 0 { 14 } else { n % 3 })),
        )
    }));
    list
}

fn pad(image: &mut Vec<u8>) {
    image.resize(align(image.len()), 0);
}

/// Tokens that stand for themselves, but for one that is longer.
fn token(byte: u8) -> Vec<u8> {
    match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' => vec![byte],
        0x80 => b"long_name_".to_vec(),
        _ => format!("unused{byte}").into_bytes(),
    }
}

fn spell(name: &str) -> Vec<u8> {
    let mut tokens = Vec::new();
    let mut rest = name.as_bytes();
    while let Some(first) = rest.first() {
        let long = rest.starts_with(b"long_name_") && name.len().is_multiple_of(3);
        tokens.push(if long { 0x80 } else { *first });
        rest = &rest[if long { 10 } else { 1 }..];
    }
    let mut out = vec![];
    if tokens.len() < 0x80 {
        out.push(tokens.len() as u8);
    } else {
        out.extend([tokens.len() as u8 | 0x80, (tokens.len() >> 7) as u8]);
    }
    out.extend(tokens);
    out
}

fn put_addresses(image: &mut Vec<u8>, list: &[(u32, String)], base: u64) -> usize {
    pad(image);
    for (offset, _) in list {
        image.extend(offset.to_le_bytes());
    }
    pad(image);
    image.extend(base.to_le_bytes());
    image.len() - 8
}

fn put_names(image: &mut Vec<u8>, list: &[(u32, String)], layout: Layout) {
    image.extend((list.len() as u64).to_le_bytes());
    let start = image.len();
    let mut marks = Vec::new();
    for (index, (_, name)) in list.iter().enumerate() {
        if index % 256 == 0 {
            marks.push((image.len() - start) as u64);
        }
        image.extend(spell(name));
    }
    pad(image);
    for mark in marks {
        image.extend(&mark.to_le_bytes()[..layout.marker_width]);
    }
    pad(image);
    if layout.sequences {
        image.extend(std::iter::repeat_n(7, list.len() * 3));
        pad(image);
    }
}

fn put_tokens(image: &mut Vec<u8>) {
    let start = image.len();
    let mut index = Vec::new();
    for byte in 0..=255u8 {
        index.extend(((image.len() - start) as u16).to_le_bytes());
        image.extend(token(byte));
        image.push(0);
    }
    pad(image);
    image.extend(index);
}

fn image(list: &[(u32, String)], layout: Layout, base: Base) -> Vec<u8> {
    let mut image: Vec<u8> = (0..5000u32).flat_map(|n| (n * 0x01_0203).to_le_bytes()).collect();
    let in_place = if matches!(base, Base::InPlace) { LINK + LOWEST } else { 0 };
    image[..64].fill(0);
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let mut base_at = 0;
    if layout.offsets_first {
        base_at = put_addresses(&mut image, list, in_place);
    }
    put_names(&mut image, list, layout);
    put_tokens(&mut image);
    if !layout.offsets_first {
        base_at = put_addresses(&mut image, list, in_place);
    }
    if matches!(base, Base::Relocated) {
        for (place, value) in [(0x100, 0x5000), (base_at, LOWEST), (0x108, 0x6000)] {
            image.extend((LINK + place as u64).to_le_bytes());
            image.extend(0x403u64.to_le_bytes());
            image.extend((LINK + value).to_le_bytes());
        }
    }
    image.extend([0; 64]);
    image
}

#[test]
fn every_layout_is_read() {
    for layout in LAYOUTS {
        for (base, link) in
            [(Base::InPlace, Some(LINK)), (Base::Relocated, Some(LINK)), (Base::Unknown, None)]
        {
            let list = symbols(700);
            let found = from_image(&image(&list, layout, base))
                .unwrap_or_else(|error| panic!("{layout:?} {base:?}: {error}"));
            assert_eq!(found.len(), list.len(), "{layout:?}");
            assert_eq!(found.link_base(), link, "{layout:?} {base:?}");
            let lowest = link.map_or(0, |link| link + LOWEST);
            for (offset, name) in &list {
                let address = found.address_of(&name[1..]);
                assert_eq!(address, Some(Va(lowest + u64::from(*offset))), "{name}");
            }
            assert_eq!(found.lookup(Va(lowest + 4)), Some(("primary_entry", 4)));
        }
    }
}

#[test]
fn each_missing_part_has_its_error() {
    let list = symbols(300);
    let whole = image(&list, LAYOUTS[1], Base::InPlace);
    assert_eq!(from_image(&[]), Err(KallsymsError::NoTokens));
    assert_eq!(from_image(&whole[..whole.len() - 300]), Err(KallsymsError::NoTokens));
    let mut tokens_only = Vec::new();
    put_tokens(&mut tokens_only);
    assert_eq!(from_image(&tokens_only), Err(KallsymsError::NoNames));
    let mut no_addresses = vec![0xff; 4096];
    put_names(&mut no_addresses, &list, LAYOUTS[1]);
    put_tokens(&mut no_addresses);
    assert_eq!(from_image(&no_addresses), Err(KallsymsError::NoAddresses));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_tables_are_an_answer(
        layout in 0..LAYOUTS.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut image = image(&symbols(300), LAYOUTS[layout], Base::Relocated);
        for (at, value) in flips {
            let at = at.index(image.len());
            image[at] = value;
        }
        let _ = from_image(&image);
        image.truncate(cut.index(image.len()));
        let _ = from_image(&image);
    }
}

/// `STEPWELL_KERNEL=/boot/vmlinuz-… cargo test -p stepwell-trace real_kernel -- --nocapture`
#[test]
fn real_kernel() {
    use crate::kernel_image::{KernelImage, RawPolicy};
    let Some(path) = std::env::var_os("STEPWELL_KERNEL") else { return };
    let file = std::fs::read(path).expect("STEPWELL_KERNEL names a readable file");
    let kernel = KernelImage::recognise(file, RawPolicy::Refuse).expect("a kernel");
    let table = from_image(&kernel.bytes).expect("its symbols");
    println!("{} symbols, link base {:x?}", table.len(), table.link_base());
    for name in ["_stext", "primary_entry", "start_kernel", "vectors", "el1h_64_irq_handler"] {
        println!("{name}: {:x?} +{:x?}", table.address_of(name), table.image_offset(name));
    }
    assert!(table.len() > 10_000);
    assert!(table.image_offset("_stext").is_some_and(|offset| offset <= 0x1_0000));
    let start = table.address_of("start_kernel").expect("every kernel has it");
    assert_eq!(table.lookup(start), Some(("start_kernel", 0)));
}
