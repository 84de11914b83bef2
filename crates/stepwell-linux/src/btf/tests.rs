//! Tables made by hand, sound and hostile.

use super::*;
use crate::sample::types::Builder;
use proptest::prelude::*;

fn finish(builder: Builder) -> Btf {
    Btf::parse(&builder.bytes()).unwrap()
}

#[test]
fn members_are_found_through_what_has_no_name() {
    let mut builder = Builder::default();
    let int = builder.int("int", 4);
    let inner = builder.structure("", 8, &[("low", int, 0), ("high", int, 4)]);
    let constant = builder.add("", 10, 0, int, &[]);
    let typed = builder.add("count_t", 8, 0, constant, &[]);
    let array = builder.array(typed, 3);
    let outer =
        builder.structure("outer", 32, &[("first", int, 0), ("", inner, 8), ("many", array, 16)]);
    let btf = finish(builder);
    assert_eq!(btf.structure("outer"), Some(TypeId(outer)));
    let at = |path: &str| btf.member(TypeId(outer), path).map(|field| (field.offset, field.size));
    assert_eq!(at("first"), Some((0, 4)));
    assert_eq!(at("high"), Some((12, 4)));
    assert_eq!(at("many"), Some((16, 12)));
    assert_eq!(at("many.2"), Some((24, 4)));
    assert_eq!(at("many.3"), None);
    assert_eq!(at("first.low"), None);
    assert_eq!(btf.named("count_t"), Some(TypeId(typed)));
}

#[test]
fn bit_fields_have_their_bits() {
    let mut builder = Builder::default();
    let int = builder.int("unsigned int", 4);
    let name = builder.name("flag");
    let rest = [name, int, 3 << 24 | (32 + 5)];
    let id = builder.add("bits", 4, 1 | 1 << 31, 8, &rest);
    let field = finish(builder).member(TypeId(id), "flag").unwrap();
    assert_eq!((field.offset, field.size, field.bits), (4, 4, Some((5, 3))));
    let mut memory = crate::sample::Sparse::default();
    memory.write_u64(0x1000, 0xffff_ffff_0000_0000 & !(0b010 << 37));
    assert_eq!(field.read(&mut memory, 0x1000).unwrap(), 0b101);
}

#[test]
fn what_refers_to_itself_ends() {
    let mut builder = Builder::default();
    let typedef = builder.add("loop", 8, 0, 1, &[]);
    let array = builder.array(2, u32::MAX);
    let nested = builder.structure("nested", 8, &[("", 3, 0), ("", 3, 0), ("", 3, 0)]);
    let btf = finish(builder);
    assert_eq!(btf.size_of(TypeId(typedef)), None);
    assert_eq!(btf.size_of(TypeId(array)), None);
    assert_eq!(btf.member(TypeId(nested), "x"), None);
    assert_eq!(btf.member(TypeId(array), &"0.".repeat(100_000)), None);
    assert_eq!(btf.size_of(TypeId(u32::MAX)), None);
}

#[test]
fn tables_are_found_and_damage_is_told() {
    let mut builder = Builder::default();
    builder.int("int", 4);
    let bytes = builder.bytes();
    let image = [&[0; 64][..], &[0x9f, 0xeb, 1, 0][..], &[0xff; 60][..], &bytes[..]].concat();
    assert_eq!(Btf::find(&image).unwrap().len(), 1);
    assert_eq!(Btf::find(&image[..64]).unwrap_err(), BtfError::Absent);
    let mut wrong = bytes.clone();
    wrong[24 + 7] = 31;
    assert!(matches!(Btf::find(&wrong), Err(BtfError::Damaged("a type of unknown kind"))));
    assert!(matches!(Btf::parse(&bytes[..40]), Err(BtfError::Damaged(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        types in proptest::collection::vec(any::<u8>(), 12..400),
        strings in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let strings = [&[0][..], &strings[..]].concat();
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let length = types.len() as u32;
        for word in [24, 0, length, length, strings.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(types.into_iter().enumerate().map(|(at, byte)| match at % 12 {
            // Most of the time a kind that exists.
            7 => byte % 20,
            5 | 6 => 0,
            _ => byte,
        }));
        bytes.extend(strings);
        if let Ok(btf) = Btf::parse(&bytes) {
            for (id, _) in btf.iter() {
                prop_assert!(btf.member(id, "a.0.b").is_none_or(|field| field.size <= u64::MAX / 2));
                let _size = btf.size_of(id);
            }
            let (_variable, _structure) = (btf.per_cpu("x"), btf.structure("task_struct"));
        }
    }
}
