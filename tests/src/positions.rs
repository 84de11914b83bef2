//! Positions of a run, come to in every way that there is: a position is one state.
//!
//! The states at some positions are taken down in one run that goes straight on. Another machine then
//! goes from one to another of them at random: ahead by countdown, by steps that are recorded, or by
//! both; back to a moment that is kept, and on from there; to the beginning. Each time it comes to one,
//! the state is to be the same.
//!
//! In a run that is long, known states lie in clusters, with a moment kept before each: most ways are
//! short then, and lead anywhere all the same.

use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use stepwell_debuggee::{
    Checkpoint, Checkpoints, Debuggee, Error, Event, Moment, Refusal, StateHash, StopReason,
    TimeTravel,
};
use stepwell_link::Link;

/// How long one way may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// So far is stepped, at most.
const STEPPED_MAX: u64 = 3_000;
/// Moments that are kept at a time.
pub const KEPT_MAX: usize = 40;
/// Known states that a short way leads over, at most.
const NEAR: u64 = 5;
/// One way ahead in so many is as long as may be.
const FAR_EVERY: u64 = 16;

/// A state that is known, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its position.
    pub position: u64,
    /// Its hash.
    pub hash: StateHash,
}

/// How a position was come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Countdown,
    Steps,
    Both,
    Back,
}

/// How many ways there were of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// By countdown.
    pub run: u64,
    /// By steps.
    pub stepped: u64,
    /// By both.
    pub mixed: u64,
    /// By going back.
    pub back: u64,
}

impl Tally {
    /// How many ways there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.run + self.stepped + self.mixed + self.back
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.run += other.run;
        self.stepped += other.stepped;
        self.mixed += other.mixed;
        self.back += other.back;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, stepped, mixed, back } = self;
        write!(f, "{run} by countdown, {stepped} by steps, {mixed} by both, {back} by going back")
    }
}

/// Numbers by a seed: xorshift.
pub struct Random(u64);

impl Random {
    /// Begins with a seed that is not 0.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(if seed == 0 { 1 } else { seed })
    }

    /// The next one below a bound that is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// So many positions below a bound, in order.
    pub fn positions(&mut self, count: usize, end: u64) -> Vec<u64> {
        let mut positions: Vec<_> = (0..count).map(|_| 1 + self.below(end)).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// As [`Self::positions`], so many each in clusters of this width.
    pub fn clusters(
        &mut self,
        clusters: usize,
        count: usize,
        width: u64,
        end: u64,
    ) -> Vec<Vec<u64>> {
        let starts = self.positions(clusters, end.saturating_sub(width).max(1));
        let cluster = |start| {
            let within = self.positions(count, width);
            within.into_iter().map(|position| start + position).collect()
        };
        starts.into_iter().map(cluster).collect()
    }
}

/// # Errors
/// The machine's.
///
/// # Panics
/// Where it does not count instructions.
fn travel(link: &mut Link) -> &mut dyn TimeTravel {
    link.support_time_travel().expect("the machine counts instructions")
}

fn checkpoints(link: &mut Link) -> &mut dyn Checkpoints {
    travel(link).support_checkpoints().expect("the machine keeps moments")
}

/// Goes on to a position, and returns the state's hash.
///
/// # Errors
/// The machine's.
///
/// # Panics
/// Where it does not come there.
pub fn go(link: &mut Link, position: u64, by_steps: bool) -> Result<StateHash, Error> {
    let mut records = Vec::new();
    let begun = Instant::now();
    loop {
        match by_steps {
            true => travel(link).record_until(0, Moment::at(position))?,
            false => travel(link).run_until(0, Moment::at(position))?,
        }
        let reason = loop {
            match link.wait(Duration::from_secs(1))? {
                // That it was at reset nobody may have taken note of yet.
                Some(Event::Stopped(stop)) if stop.reason != StopReason::Reset => {
                    break stop.reason;
                }
                Some(Event::Ended { ending, .. }) => panic!("before {position}: {ending:?}"),
                _ => assert!(begun.elapsed() < PATIENCE, "never at {position}"),
            }
        };
        if let Some(trace) = link.support_trace() {
            trace.drain(&mut records)?;
        }
        match reason {
            StopReason::Reached => break,
            StopReason::RingFull => records.clear(),
            reason => panic!("before {position}: {reason:?}"),
        }
    }
    assert_eq!(travel(link).moment(0)?.position, position);
    travel(link).state_hash(0)
}

/// The states at positions, which are in order, in a run that goes straight on.
///
/// # Errors
/// The machine's.
pub fn straight(link: &mut Link, positions: &[u64]) -> Result<Vec<Known>, Error> {
    let known = |&position| Ok(Known { position, hash: go(link, position, false)? });
    positions.iter().map(known).collect()
}

/// Comes to known states in every way, `count` times. Before that a moment is kept at each of `first`,
/// which are positions in order.
///
/// # Errors
/// The machine's.
///
/// # Panics
/// Where a state is another one.
pub fn walk(
    link: &mut Link,
    known: &[Known],
    first: &[u64],
    count: u64,
    seed: u64,
) -> Result<Tally, Error> {
    let mut walk =
        Walk { known, random: Random::new(seed), kept: Vec::new(), tally: Tally::default() };
    let begin = checkpoints(link).keep(0)?;
    walk.kept.push((0, begin));
    let mut now = 0;
    for &position in first {
        now = position;
        let _state = go(link, position, false)?;
        walk.kept.push((position, checkpoints(link).keep(0)?));
    }
    for n in 0..count {
        let from = now;
        let (way, at) = walk.go_somewhere(link, &mut now)?;
        assert_eq!(at.0, at.1, "{n} of seed {seed:#x}: {way:?} from {from} to {now}");
        if walk.kept.len() < KEPT_MAX && walk.random.below(3) == 0 {
            walk.kept.push((now, checkpoints(link).keep(0)?));
        }
    }
    Ok(walk.tally)
}

struct Walk<'a> {
    known: &'a [Known],
    random: Random,
    kept: Vec<(u64, Checkpoint)>,
    tally: Tally,
}

impl Walk<'_> {
    /// Goes to a known state. Returns how, the state there, and what it is to be.
    fn go_somewhere(
        &mut self,
        link: &mut Link,
        now: &mut u64,
    ) -> Result<(Way, (StateHash, StateHash)), Error> {
        let ahead = self.known.partition_point(|known| known.position <= *now);
        let left = (self.known.len() - ahead) as u64;
        // Half of the time back, and then a little ahead as often as far.
        if left == 0 || self.random.below(2) == 0 {
            return self.go_back(link, now);
        }
        let reach = if self.random.below(FAR_EVERY) == 0 { left } else { left.min(NEAR) };
        let to = self.known[ahead + self.random.below(reach) as usize];
        let distance = to.position - *now;
        let way = match self.random.below(3) {
            0 if distance <= STEPPED_MAX => Way::Steps,
            0 | 1 => Way::Both,
            _ => Way::Countdown,
        };
        let hash = match way {
            Way::Both => {
                let stepped = self.random.below(distance.min(STEPPED_MAX)) + 1;
                let _between = go(link, to.position - stepped, false)?;
                self.tally.mixed += 1;
                go(link, to.position, true)?
            }
            Way::Steps => {
                self.tally.stepped += 1;
                go(link, to.position, true)?
            }
            Way::Countdown | Way::Back => {
                self.tally.run += 1;
                go(link, to.position, false)?
            }
        };
        *now = to.position;
        Ok((way, (hash, to.hash)))
    }

    /// Goes to a moment that is kept, or to a known state behind it.
    fn go_back(
        &mut self,
        link: &mut Link,
        now: &mut u64,
    ) -> Result<(Way, (StateHash, StateHash)), Error> {
        // Early ones more often: there is more ahead of them.
        let (chosen, (position, _)) = loop {
            let bound = self.random.below(self.kept.len() as u64) + 1;
            let chosen = self.random.below(bound) as usize;
            let one = self.kept[chosen];
            match checkpoints(link).go_to(0, one.1) {
                Ok(()) => break (chosen, one),
                // The memory for it was needed for others. The first one stays.
                Err(Error::Refused(Refusal::NoSuchCheckpoint)) if chosen > 0 => {
                    let _lost = self.kept.swap_remove(chosen);
                }
                Err(error) => return Err(error),
            }
        };
        assert_eq!(travel(link).moment(0)?.position, position);
        if chosen > 0 && self.kept.len() == KEPT_MAX {
            let (_, forgotten) = self.kept.swap_remove(chosen);
            checkpoints(link).forget(forgotten);
        }
        self.tally.back += 1;
        let place = self.known.partition_point(|known| known.position < position);
        let there = self.known.get(place).filter(|known| known.position == position);
        let (to, hash) = match there {
            Some(&there) => (there, travel(link).state_hash(0)?),
            // The beginning: it has no state of its own.
            None => (self.known[place], go(link, self.known[place].position, false)?),
        };
        *now = to.position;
        Ok((Way::Back, (hash, to.hash)))
    }
}
