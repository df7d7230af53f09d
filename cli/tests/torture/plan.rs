//! The events of a pair, and when they come: all of it from one seed.

use std::time::Duration;

use super::random::Random;

/// One device, or both at the same moment.
pub type Which = [bool; 2];

#[derive(Clone, Debug)]
pub enum Event {
    /// kill -9; they start again after a while.
    Kill(Which, Duration),
    /// SIGTERM, and started again at once.
    Restart(usize),
    /// SIGSTOP for a while: a machine or a disk that stands still.
    Freeze(usize, Duration),
    TakeOver(Which),
    HandOver(usize),
    /// All connections are cut, perhaps only after so many bytes.
    Cut(Option<u64>),
    /// The line is down for a while.
    Down(Duration),
    /// Bytes wait for a while, from the dialling end, the other one or both.
    Silence(Which, Duration),
    /// The line is slow, until it is so no more.
    Slow(Duration, u64),
    Rate(u64),
}

/// How a pair is made and served.
#[derive(Clone, Debug)]
pub struct Make {
    pub is_differential: bool,
    pub is_shared: bool,
    /// After so long without a line bits take the place of the order.
    pub suspend_after_ms: u64,
    pub pacing_ms: u64,
    pub reads_wait_ms: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// Each event, after so long.
    pub events: Vec<(Duration, Event)>,
    /// The round ends with the loss of the device that serves.
    pub is_forced: bool,
    /// Both close, are compared and opened again.
    pub is_compared: bool,
}

impl Make {
    pub fn draw(random: &mut Random) -> Make {
        Make {
            is_differential: random.once_in(5),
            is_shared: random.once_in(2),
            suspend_after_ms: random.pick(&[0, 0, 150]),
            pacing_ms: random.pick(&[0, 2]),
            reads_wait_ms: random.pick(&[300, 5000]),
        }
    }
}

impl Plan {
    pub fn draw(random: &mut Random) -> Plan {
        let events = (0..random.within(3..10))
            .map(|_| (Duration::from_millis(random.within(0..150)), Event::draw(random)))
            .collect();
        Plan { events, is_forced: random.once_in(4), is_compared: random.once_in(3) }
    }
}

impl Event {
    fn draw(random: &mut Random) -> Event {
        let which =
            |random: &mut Random| random.pick(&[[true, false], [false, true], [true, true]]);
        let ms = Duration::from_millis;
        let at = random.within(0..2) as usize;
        match random.within(0..20) {
            0..3 => Event::Kill(which(random), ms(random.within(0..300))),
            3 => Event::Restart(at),
            4 => Event::Freeze(at, ms(random.within(1..300))),
            5..10 => Event::TakeOver(which(random)),
            10..12 => Event::HandOver(at),
            12..14 => Event::Cut(random.once_in(2).then(|| random.within(0..100_000))),
            14 => Event::Down(ms(random.within(1..400))),
            // Long enough for a small journal to fill.
            15 => Event::Down(ms(random.within(500..1500))),
            16 => Event::Silence(which(random), ms(random.within(1..500))),
            17 => Event::Slow(ms(random.within(0..10)), random.pick(&[0, 100_000, 1_000_000])),
            18 => Event::Slow(ms(0), 0),
            _ => Event::Rate(random.pick(&[0, 1 << 20, 4 << 20])),
        }
    }
}
