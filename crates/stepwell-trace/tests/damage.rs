//! What is read of a damaged recording when asked to salvage it, and that nothing else happens.

mod samples;

use proptest::prelude::*;
use samples::{any_records, config, flatten, recording, sample};
use std::io::Cursor;
use stepwell_trace::{Damage, Ending, Error, Reader, Record};

type Salvaged = (Vec<Record>, Vec<Damage>, Option<Ending>);

/// Reads what can be read.
fn salvage(bytes: &[u8]) -> Result<Salvaged, Error> {
    let mut reader = Reader::salvage(Cursor::new(bytes))?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    reader.code_pages()?;
    reader.symbols()?;
    Ok((records, reader.damages().to_vec(), reader.ending()))
}

fn instructions(records: &[Record]) -> Vec<Record> {
    flatten(records).into_iter().filter(|record| matches!(record, Record::Run { .. })).collect()
}

/// Offsets of the chunks of a recording.
fn chunks(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 16;
    while at < bytes.len() {
        found.push(at);
        let length: [u8; 4] = bytes[at + 8..at + 12].try_into().expect("four bytes");
        at += 40 + u32::from_le_bytes(length) as usize;
    }
    found
}

/// Tells whether `part` is `whole` with something left out.
fn is_part(part: &[Record], whole: &[Record]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|record| rest.any(|other| other == record))
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn a_good_recording_has_no_damage(records in any_records(), chunk in 1..8usize) {
        let (found, damages, ending) = salvage(&recording(&records, chunk)).expect("it is whole");
        prop_assert_eq!(flatten(&found), flatten(&records));
        prop_assert_eq!(damages, []);
        prop_assert!(matches!(ending, Some(Ending::Finished(_))));
    }

    #[test]
    fn a_damaged_chunk_costs_no_other(
        records in any_records(),
        chunk in 1..8usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
    ) {
        let good = recording(&records, chunk);
        let places = chunks(&good);
        let mut bad = good.clone();
        let mut hit = Vec::new();
        for (place, value) in flips {
            let place = place.index(bad.len() - 16) + 16;
            bad[place] ^= value;
            if bad[place] != good[place] {
                hit.push(places.partition_point(|&start| start <= place) - 1);
            }
        }
        let (found, damages, _) = salvage(&bad).expect("chunks are left, or damage is told");
        let whole = instructions(&records);
        let found = instructions(&found);
        prop_assert!(is_part(&found, &whole));
        if found.len() < whole.len() {
            let offsets: Vec<usize> = hit.iter().map(|&chunk| places[chunk]).collect();
            prop_assert!(!damages.is_empty());
            for damage in &damages {
                prop_assert!(offsets.contains(&(damage.offset as usize)), "{damage:?}");
            }
            let missing: Option<u64> =
                damages.iter().map(|damage| damage.missing_instructions).sum();
            if let Some(missing) = missing {
                prop_assert_eq!(missing, (whole.len() - found.len()) as u64);
            }
        }
    }

    #[test]
    fn a_cut_leaves_what_was_before(records in any_records(), cut in any::<prop::sample::Index>()) {
        let good = recording(&records, 2);
        let length = cut.index(good.len());
        match salvage(&good[..length]) {
            Ok((found, ..)) => {
                let (whole, found) = (flatten(&records), flatten(&found));
                prop_assert_eq!(&found[..], &whole[..found.len()]);
            }
            Err(Error::NotARecording) => prop_assert_eq!(length, 0),
            Err(Error::Truncated { offset }) => prop_assert!(offset <= length as u64),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn random_bytes_are_an_answer(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        start in 0..4usize,
    ) {
        let (good, _) = sample();
        bytes.splice(0..0, good[..[0, 16, 16 + 40, good.len() / 2][start]].iter().copied());
        if let Ok((_, damages, ending)) = salvage(&bytes) {
            let is_unfinished = matches!(ending, Some(Ending::Unfinished { .. }));
            prop_assert!(is_unfinished || !damages.is_empty());
        }
    }

    #[test]
    fn seeking_in_damage_ends(
        records in any_records(),
        flip in any::<prop::sample::Index>(),
        target in 0..500u64,
    ) {
        let mut bytes = recording(&records, 3);
        let place = flip.index(bytes.len() - 16) + 16;
        bytes[place] ^= 0x10;
        let whole = instructions(&records);
        let Ok(mut reader) = Reader::salvage(Cursor::new(&bytes)) else { return Ok(()) };
        reader.seek(target).expect("it salvages");
        let mut found = Vec::new();
        while let Some(record) = reader.next_record().expect("it salvages") {
            found.push(record);
        }
        let found = instructions(&found);
        prop_assert!(is_part(&found, &whole[whole.len().min(target as usize)..]));
    }
}

#[test]
fn each_damage_is_told_with_its_place_and_its_cost() {
    let (good, records) = sample();
    let places = chunks(&good);
    // Header, then code and records five times.
    let third = places[6];
    let mut bad = good.clone();
    bad[third + 41] ^= 1;
    let strict = {
        let mut reader = Reader::new(Cursor::new(&bad)).expect("the header is whole");
        std::iter::from_fn(|| reader.next_record().transpose()).last()
    };
    let Some(Err(error)) = strict else { panic!("{strict:?}") };
    let text = format!("recording is damaged at byte {third}: the chunk's checksum is wrong");
    assert_eq!(error.to_string(), text);

    let (found, damages, _) = salvage(&bad).expect("most is whole");
    assert_eq!(found, [&records[..2], &records[3..]].concat());
    let damage = Damage {
        offset: third as u64,
        what: "the chunk's checksum is wrong",
        resumed_at: Some(places[7] as u64),
        missing_instructions: Some(3),
    };
    assert_eq!(damages, [damage]);

    // A chunk that is gone altogether leaves no damage, but a gap.
    let mut gone = good.clone();
    gone.drain(third..places[7]);
    let (found, damages, _) = salvage(&gone).expect("most is whole");
    assert_eq!(found, [&records[..2], &records[3..]].concat());
    assert_eq!(
        damages.iter().map(|damage| damage.missing_instructions).collect::<Vec<_>>(),
        [Some(3)]
    );

    // Without its beginning.
    let (found, damages, _) = salvage(&good[places[3]..]).expect("most is whole");
    assert_eq!(found, records[1..]);
    assert_eq!((damages[0].offset, damages[0].missing_instructions), (0, Some(3)));
}

#[test]
fn a_recording_of_a_later_version_is_refused_even_then() {
    let (mut newer, _) = sample();
    newer[8] = 2;
    let checksum = crc32fast::hash(&newer[..12]);
    newer[12..16].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(salvage(&newer), Err(Error::FutureVersion { found: 2, ours: 1 })));
}
