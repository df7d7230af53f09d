//! The actions that may follow a state.

use super::*;

impl World {
    /// All that may happen now.
    pub fn enabled(&self) -> Vec<Action> {
        use Action::*;
        let mut all = Vec::new();
        let mut add = |may: bool, action: Action| all.extend(may.then_some(action));
        let (left, are_both_up) = (&self.left, self.are_both_up());
        if let Some(a) = self.active.filter(|&a| !self.dev[a].dead) {
            // Blocks not written yet are alike.
            let written = (0..3).filter(|&b| self.history.iter().any(|r| r.1 == b)).count();
            let is_first = self.base == [0; 3];
            let writable = if is_first { left.blocks.min(written + 1) } else { left.blocks };
            (0..writable).for_each(|block| add(left.writes > 0, Write(block)));
            let may_read = left.reads > 0 && self.reading.is_none();
            (0..left.blocks).for_each(|block| add(may_read, Read(block)));
            add(left.takeovers > 0 && are_both_up, Move);
            if let Some(reading) = self.reading.as_ref().filter(|reading| !reading.is_asked) {
                let dev = &self.dev[a];
                let can_ask = dev.m.mode() == Mode::Ordered || dev.m.is_open();
                add(!dev.is_away(reading.block) || are_both_up && can_ask, Look);
            }
        }
        add(!self.unsynced.is_empty(), Sync);
        let asks_alive = self.asks.is_some_and(|y| !self.dev[1 - y].dead);
        add(asks_alive && left.withdrawals > 0, Withdraw);
        for d in 0..2 {
            let (dev, peer) = (&self.dev[d], &self.dev[1 - d]);
            if dev.dead {
                add(true, Return(d));
                let of = [dev, peer].map(|dev| dev.m.generation());
                let y = 1 - d;
                let may_force = of[1] >= of[0] && (self.active != Some(y) || of[0] == of[1]);
                add(may_force, ForceNewest(y));
                add(may_force && peer.side.is_some(), ForceSide(y));
                add(may_force && !peer.l.is_empty() && peer.is_consistent(), ForceConsistent(y));
                continue;
            }
            let (is_live, mode) = (!dev.fenced, dev.m.mode());
            let has_r = matches!(mode, Mode::Ordered | Mode::Copying);
            let knows = !holds(Clause::PrototypeFirst) || !dev.forgot();
            add(left.suspends > 0 && is_live && has_r && self.asks != Some(d) && knows, Suspend(d));
            let has_log = dev.own != [0; 3] || dev.stored != dev.table();
            add(left.checkpoints > 0 && has_log, Checkpoint(d));
            if !are_both_up {
                continue;
            }
            if is_live && self.asks.is_none() {
                for mode in [Mode::Collecting, Mode::Sending, Mode::Copying] {
                    let is_wanted = !self.options.always || mode != Mode::Copying;
                    add(is_wanted && dev.m.may_open(mode), Open(d, mode));
                }
            }
            let in_order =
                mode == Mode::Ordered || is_live && mode == Mode::Copying && dev.m.is_open();
            let next = dev.r.get(dev.sent).filter(|_| dev.sent < self.options.window && in_order);
            add(next.is_some_and(|&(w, _)| !self.is_unsynced(d, w)), Ship(d));
            add(self.next_copy(d).is_some(), Copy(d));
            add(self.options.sums && self.next_copy(d).is_some(), Sum(d));
            add(self.options.tells && dev.m.may_tell(), Tell(d));
            add(is_live && dev.m.may_end(), End(d));
            let synced = self.unsynced.is_empty() || !holds(Clause::LevelWhenSent);
            add(is_live && self.options.always && dev.m.may_level() && synced, Level(d));
            add(!self.data[d].is_empty() && dev.landing.is_none(), Data(d));
            add(dev.landing.is_some(), Land(d));
            add(!self.control[d].is_empty(), Control(d));
            let unsynced = if self.unsynced_at == d { self.unsynced.len() } else { 0 };
            for kept in 0..=unsynced {
                add(left.restarts > 0, Restart(d, kept));
                add(left.deaths > 0, Die(d, kept));
            }
        }
        let has_sent = self.data.iter().chain(&self.control).any(|lane| !lane.is_empty());
        add(left.cuts > 0 && are_both_up && has_sent, Cut);
        all
    }
}
