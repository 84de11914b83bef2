//! A random program: its blocks, and the ground's image with the program appended.

use std::path::Path;

use super::blocks::Block;
use super::chance::Chance;
use super::code::{Code, word};

/// Fixed registers of a program; X0 to X15 are for data.
pub mod reg {
    /// The data that EL1 sees.
    pub const DATA: u32 = 16;
    /// For the SGI that a program sends to itself.
    pub const SCRATCH: u32 = 17;
    /// A loop's count.
    pub const COUNT: u32 = 19;
    /// A store-exclusive's status.
    pub const STATUS: u32 = 20;
    /// An address; where an exception return leads.
    pub const A: u32 = 21;
    /// Another; with which PSTATE.
    pub const B: u32 = 22;
    /// A third.
    pub const C: u32 = 23;
    /// The handlers' own data.
    pub const OWN: u32 = 24;
    /// An address that is not mapped.
    pub const UNMAPPED: u32 = 25;
    /// The data as EL0 sees them.
    pub const EL0_DATA: u32 = 26;
    /// The data, read-only.
    pub const READ_ONLY: u32 = 27;
    /// The UART.
    pub const UART: u32 = 28;
}

/// Where the program is loaded.
pub const PROGRAM: u64 = 0x4030_0000;
/// Added to an address: the same memory for EL0. As `guests/src/translation.rs` maps it.
pub const EL0_ALIAS: u64 = 0x4000_0000;
/// Added to an address: the same memory, read-only.
pub const READ_ONLY_ALIAS: u64 = 0x8000_0000;
/// An address that is not mapped.
pub const UNMAPPED: u64 = 0x1_4000_0000;
const UART: u64 = 0x0900_0000;
/// A stepped run prints and compares in the blink of an eye up to here.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

/// The ground's places, from the table in its image.
#[derive(Clone, Debug)]
pub struct Places {
    /// The table's offset in the image, and the load address of the image.
    notes: usize,
    /// The exception vectors.
    pub vectors: u64,
    /// First instruction of the handler of interrupts.
    pub interrupt: u64,
    /// Its last, an ERET.
    pub interrupt_end: u64,
    /// The restartable exception return: four instructions.
    pub exception_return: u64,
    /// Where a program ends.
    pub finish: u64,
    data: u64,
    own: u64,
    /// First instruction and last of the handler of fast interrupts.
    pub fast_interrupt: (u64, u64),
    /// First instruction and last of the handler of SErrors.
    pub error: (u64, u64),
}

/// Why an image is no ground.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// It cannot be read.
    #[error("{0}: {1}: build the guests with `cargo xtask guests`")]
    File(String, std::io::Error),
    /// It has no table, or not the expected one.
    #[error("the guest `random` has no table of addresses")]
    NoNotes,
}

/// The ground that programs share: the guest `random`.
#[derive(Clone, Debug)]
pub struct Ground {
    image: Vec<u8>,
    /// Its places.
    pub places: Places,
}

impl Ground {
    /// Reads the guest's image.
    ///
    /// # Errors
    /// [`GroundError`].
    pub fn read(path: &Path) -> Result<Self, GroundError> {
        let image = std::fs::read(path)
            .map_err(|error| GroundError::File(path.display().to_string(), error))?;
        let places = places(&image).ok_or(GroundError::NoNotes)?;
        Ok(Self { image, places })
    }

    /// The instructions of the handler that unmask and mask interrupts.
    #[must_use]
    pub fn window(&self) -> (u64, u64) {
        let find = |wanted: u32| {
            let mut handler = (self.places.interrupt..self.places.interrupt_end).step_by(4);
            handler.find(|&pc| {
                let at = (pc - crate::guest::LOAD) as usize;
                self.image.get(at..at + 4) == Some(&wanted.to_le_bytes())
            })
        };
        (find(word::UNMASK_IRQ).unwrap_or(0), find(word::MASK_IRQ).unwrap_or(0))
    }

    /// The image with a program appended.
    #[must_use]
    pub fn with(&self, program: &Program) -> Vec<u8> {
        const IMAGE_SIZE: usize = 16;
        let mut image = self.image.clone();
        let start = (PROGRAM - crate::guest::LOAD) as usize;
        image.resize(start, 0);
        image.extend(program.code.words.iter().flat_map(|word| word.to_le_bytes()));
        let size = (image.len() as u64).to_le_bytes();
        image[IMAGE_SIZE..IMAGE_SIZE + 8].copy_from_slice(&size);
        let notes = self.places.notes;
        image[notes + 8..notes + 16].copy_from_slice(&PROGRAM.to_le_bytes());
        image
    }
}

fn places(image: &[u8]) -> Option<Places> {
    const MAGIC: &[u8] = b"RNDNOTES";
    let notes = (0..image.len()).step_by(8).find(|&at| image[at..].starts_with(MAGIC))?;
    let word = |n: usize| {
        let bytes = image.get(notes + 8 * n..notes + 8 * n + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    };
    Some(Places {
        notes,
        vectors: word(2)?,
        interrupt: word(3)?,
        interrupt_end: word(4)?,
        exception_return: word(5)?,
        finish: word(6)?,
        data: word(7)?,
        own: word(8)?,
        fast_interrupt: (word(9)?, word(10)?),
        error: (word(11)?, word(12)?),
    })
}

/// A loop around a load- and a store-exclusive: the addresses of its instructions at EL1, or, with
/// `el0`, to be read by the alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exclusive {
    /// Its first instruction.
    pub start: u64,
    /// The load-exclusive.
    pub load: u64,
    /// The store-exclusive.
    pub store: u64,
    /// The branch that leads to the start again.
    pub end: u64,
    /// The instruction between the two by which the loop sends itself an SGI, in one turn only. 0
    /// where there is none.
    pub trap: u64,
    /// It executes at EL0.
    pub el0: bool,
}

impl Exclusive {
    /// The instructions by which it sends itself an SGI: from where it masks interrupts to where it
    /// has unmasked them.
    pub fn poke(&self) -> impl Iterator<Item = u64> + use<> {
        let words = if self.trap == 0 { 0 } else { 5 };
        let first = self.trap.wrapping_sub(4);
        (0..words).map(move |n| first + 4 * n)
    }
}

/// What makes a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The seed of all its random numbers.
    pub seed: u64,
    /// The numbers of its blocks: all of them, unless some were dropped.
    pub blocks: Vec<u32>,
    /// Atomics may be used.
    pub has_atomics: bool,
    /// Exception returns are made with interrupts unmasked.
    pub restartable: bool,
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    code: Code,
    /// Its exclusive loops, where they execute.
    pub exclusives: Vec<Exclusive>,
}

impl Program {
    /// Writes the program of a recipe. Each block has its own random numbers, so that dropping one
    /// leaves the others as they are.
    #[must_use]
    pub fn new(recipe: &Recipe, places: &Places) -> Self {
        let mut code = Code::at(PROGRAM);
        for (register, value) in [
            (reg::DATA, places.data),
            (reg::OWN, places.own),
            (reg::UNMAPPED, UNMAPPED),
            (reg::EL0_DATA, places.data + EL0_ALIAS),
            (reg::READ_ONLY, places.data + READ_ONLY_ALIAS),
            (reg::UART, UART),
        ] {
            code.constant(register, value);
        }
        let mut block = Block {
            code,
            chance: Chance::new(recipe.seed),
            places: places.clone(),
            has_atomics: recipe.has_atomics,
            restartable: recipe.restartable,
            exclusives: Vec::new(),
        };
        for &number in &recipe.blocks {
            block.chance = Chance::fork(recipe.seed, number.into());
            block.write();
        }
        let Block { mut code, mut exclusives, .. } = block;
        code.branch_to(word::B, places.finish);
        assert!(4 * code.words.len() <= PROGRAM_BYTES_MAX, "fewer blocks, please");
        for exclusive in exclusives.iter_mut().filter(|exclusive| exclusive.el0) {
            for place in [
                &mut exclusive.start,
                &mut exclusive.load,
                &mut exclusive.store,
                &mut exclusive.end,
            ] {
                *place += EL0_ALIAS;
            }
        }
        Self { code, exclusives }
    }

    /// Its instructions.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.code.words
    }
}

/// Places that no image has.
#[cfg(test)]
pub(super) const fn test_places() -> Places {
    Places {
        notes: 0,
        vectors: 0x4020_1000,
        interrupt: 0x4020_2000,
        interrupt_end: 0x4020_2100,
        exception_return: 0x4020_3000,
        finish: 0x4020_4000,
        data: 0x4060_0000,
        own: 0x4070_0000,
        fast_interrupt: (0x4020_5000, 0x4020_500c),
        error: (0x4020_6000, 0x4020_6008),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(seed: u64, blocks: u32) -> Recipe {
        Recipe { seed, blocks: (0..blocks).collect(), has_atomics: true, restartable: true }
    }

    #[test]
    fn a_seed_makes_the_same_program_and_another_does_not() {
        let words = |seed| Program::new(&recipe(seed, 50), &test_places()).words().to_vec();
        assert_eq!(words(1), words(1));
        assert_ne!(words(1), words(2));
    }

    #[test]
    fn dropping_a_block_leaves_the_others() {
        let whole = Program::new(&recipe(9, 3), &test_places());
        let mut less = recipe(9, 3);
        less.blocks.remove(1);
        let less = Program::new(&less, &test_places());
        let first = Program::new(&recipe(9, 1), &test_places()).words().len() - 1;
        assert_eq!(whole.words()[..first], less.words()[..first]);
        assert!(less.words().len() < whole.words().len());
    }

    #[test]
    fn any_number_of_blocks_fits() {
        for seed in 0..20 {
            let program = Program::new(&recipe(seed, 400), &test_places());
            assert!(program.exclusives.iter().all(|one| one.start <= one.load));
            assert!(program.exclusives.iter().all(|one| one.load < one.store));
        }
    }
}
