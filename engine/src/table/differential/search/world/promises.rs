//! The promises, P1 to P10; P1 and P5 are looked at where they could break.

use super::*;
use crate::table::differential::Stage;

impl World {
    pub(super) fn is_prefix(&self, image: &Image) -> bool {
        let mut at = self.base;
        let mut is_one = at == *image;
        for &(w, block) in &self.history {
            at[block] = w;
            is_one |= at == *image;
        }
        is_one
    }

    /// Steps that a device takes by itself, and the promises of every moment.
    pub(super) fn check(&mut self) -> Held {
        for d in 0..2 {
            let dev = &mut self.dev[d];
            if dev.m.mode() == Mode::Ordered && dev.hi >= dev.need {
                dev.reflect_all();
            }
            dev.m.received(stamp(dev.hi));
            if dev.is_consistent() {
                dev.side = None;
            }
            if dev.dead {
                continue;
            }
            if self.unsynced_at != d || self.unsynced.is_empty() {
                let work = self.dev[d].m.synced();
                self.work(d, work);
            }
            // A message that will be ignored may as well be gone: fewer states.
            let round = self.dev[d].m.round();
            if holds(Clause::RoundCounts) && holds(Clause::SumsOfRound) {
                let counts = |sent: &mut Sent| !sent.is_of_round() || *sent.round() >= round;
                self.data[d].retain_mut(counts);
                self.control[d].retain_mut(counts);
            }
        }
        for (d, dev) in self.dev.iter().enumerate().filter(|(_, dev)| !dev.dead) {
            let mut image = dev.n;
            if dev.m.mode() != Mode::Ordered {
                image = std::array::from_fn(|block| dev.newest(block));
            }
            if dev.is_consistent() && !self.is_prefix(&image) {
                return Err(format!(
                    "P3 a device says consistent and is no prefix: {d}, {image:?}"
                ));
            }
            let has_r = matches!(dev.m.mode(), Mode::Ordered | Mode::Copying);
            let live = |r: &&Written| has_r && stamp(r.0) > dev.m.cut().max(stamp(dev.acked));
            if !dev.r.iter().eq(dev.wrote.iter().filter(live)) {
                return Err(format!("P8 R is not what the log says: device {d}, {:?}", dev.r));
            }
        }
        for (dev, peer) in [(&self.dev[0], &self.dev[1]), (&self.dev[1], &self.dev[0])] {
            let has_r = |dev: &Dev| matches!(dev.m.mode(), Mode::Ordered | Mode::Copying);
            let ships = dev.m.mode() == Mode::Ordered || !dev.fenced && dev.m.is_open();
            let is_one = dev.m.round() == peer.m.round() && has_r(dev) && has_r(peer);
            let before = dev.m.cut().max(stamp(dev.acked));
            if is_one && ships && stamp(peer.hi) < before {
                return Err(format!(
                    "P9 a first ship would follow what the peer never had: {before}"
                ));
            }
        }
        let are_old = self.dev.iter().all(|dev| dev.m.generation() == 0);
        let [a, b] = &self.dev;
        if !self.are_both_up() {
            return Ok(());
        }
        if !a.fenced && !b.fenced {
            return Err("P7 both serve".into());
        }
        for (dev, peer) in [(a, b), (b, a)] {
            let is_told = dev.m.lacks_consistent_copy(dev.side());
            let is_so = !dev.is_consistent() && !peer.is_consistent();
            if is_told && !is_so {
                return Err(
                    "P10 there is a consistent copy, and a device says there is none".into()
                );
            }
            let are_in = dev.side() == Side::Active && dev.m.stage >= Stage::Open;
            if is_so && are_in && !is_told {
                return Err(
                    "P10 no copy is consistent, and the active device does not say so".into()
                );
            }
        }
        if self.options.p6 && are_old && !a.is_consistent() && !b.is_consistent() {
            return Err("P6 neither device is consistent".into());
        }
        Ok(())
    }

    /// The promises once nothing is left to do.
    pub fn at_rest(&self) -> Held {
        let rests_in = if self.options.always { Mode::Sending } else { Mode::Ordered };
        let is_empty = |dev: &Dev| {
            let of_bits = [dev.m.table(), dev.m.owed(), dev.m.flying()];
            let records = dev.r.len() + dev.l.len();
            of_bits.iter().all(|bits| bits.is_empty()) && records == 0 && dev.pend == [0; 3]
        };
        let [a, b] = &self.dev;
        let is_level = self.active.is_some_and(|active| self.dev[active].m.is_level());
        let holds = [
            (self.active.is_some() && self.asks.is_none(), "P4 a takeover never completes"),
            (self.reading.is_none(), "P4 a read is stuck"),
            (self.dev.iter().all(|dev| dev.m.mode() == rests_in), "P2 not in the mode of rest"),
            (is_level == self.options.always, "P2 level is not said at rest"),
            (self.dev.iter().all(is_empty), "P2 tables are not empty at rest"),
            (a.n == b.n, "P2 the copies differ at rest"),
            (a.n == self.newest, "P2 both have lost the newest write"),
            (a.is_consistent() && b.is_consistent(), "P2 a device is not consistent at rest"),
        ];
        match holds.iter().find(|(holds, _)| !holds) {
            Some((_, promise)) => {
                Err(format!("{promise}: {:?} {:?}, newest {:?}", a.n, b.n, self.newest))
            }
            None => Ok(()),
        }
    }
}
