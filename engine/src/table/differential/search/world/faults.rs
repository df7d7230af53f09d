//! Lost connections, restarts, power cuts, and the force that a dead peer leads to.

use super::*;

impl World {
    pub(super) fn hang_up(&mut self) {
        for d in 0..2 {
            if self.dev[d].landing.is_some() {
                self.landed(d);
            }
        }
        (self.data, self.control) = Default::default();
        for d in 0..2 {
            self.dev[d].m.hung_up();
            self.land(d);
        }
        if self.asks.is_some() {
            self.ask();
        }
    }

    /// Power is lost at `d`: of what is not synced the first `kept` records survive. The machine is
    /// then made of what is durable.
    pub(super) fn lose(&mut self, d: usize, kept: usize) {
        let lost = match self.unsynced_at == d && !self.unsynced.is_empty() {
            true => std::mem::take(&mut self.unsynced).split_off(kept),
            false => Vec::new(),
        };
        let dev = &mut self.dev[d];
        let mut table = dev.table();
        for Unsynced { record, before, had_bit, own_before } in lost.iter().rev() {
            let (w, block) = *record;
            dev.r.retain(|r| r != record);
            dev.l.retain(|r| r != record);
            dev.wrote.retain(|r| r != record);
            if dev.n[block] == w {
                dev.n[block] = *before;
            }
            if !had_bit {
                table.remove(&one(block));
            }
            if dev.own[block] == w {
                dev.own[block] = *own_before;
            }
        }
        if !lost.is_empty() {
            self.history.retain(|record| !lost.iter().any(|u| u.record == *record));
            self.newest = self.base;
            self.history.iter().for_each(|&(w, block)| self.newest[block] = w);
            self.reading = None;
        }
        let mut implied = Vec::new();
        if self.options.implied {
            table = dev.stored.clone();
            if matches!(dev.kept.mode, Mode::Collecting | Mode::Sending) {
                let above = |&block: &usize| stamp(dev.own[block]) > dev.kept.cut;
                implied = (0..3).filter(above).map(one).collect();
            }
        }
        dev.put();
        dev.landing = None;
        let volumes = (0..self.left.blocks).map(one);
        let side = if dev.dead { Side::Fenced } else { dev.side() };
        dev.m = Differential::restore(dev.kept.clone(), table, side, implied, volumes);
    }

    /// A device is here again, with what is durable.
    pub(super) fn restart(&mut self, d: usize) {
        let dev = &mut self.dev[d];
        if dev.m.mode() != Mode::Ordered {
            dev.reflect_all();
        }
        for block in 0..3 {
            if dev.own[block] != 0 && !dev.l.iter().any(|&(_, b)| b == block) {
                dev.n[block] = dev.own[block];
            }
        }
        if !dev.fenced && dev.m.mode() == Mode::Ordered && dev.hi < dev.need {
            dev.pend = [0; 3];
            if self.active == Some(d) {
                (self.active, self.asks, self.reading) = (None, Some(d), None);
            }
        }
        self.hang_up();
    }

    pub(super) fn force(&mut self, y: usize, how: Action) -> Held {
        let x = 1 - y;
        let epoch = self.next_epoch();
        let dev = &self.dev[y];
        let was_owed = !dev.m.owed().is_empty() || dev.pend != [0; 3];
        let peer_has_none = self.dev[x].r.is_empty() && self.dev[x].m.table().is_empty();
        let is_whole = peer_has_none && !was_owed && dev.m.mode() == Mode::Ordered;
        let gives_up = how == Action::ForceConsistent(y);
        let (mut put_back, mut image) = (Bits::default(), None);
        if how == Action::ForceSide(y) {
            let saved = dev.side.expect("there is one");
            if !self.is_prefix(&saved) {
                return Err("P3 the side file's image is no prefix".into());
            }
            put_back = (0..3).filter(|&b| dev.newest(b) != saved[b]).map(one).collect();
            image = Some(saved);
        }
        let dev = &mut self.dev[y];
        let ordered = dev.ordered();
        let work = dev.m.force(
            crate::table::differential::Force { epoch, above: 0, gives_up, put_back: &put_back },
            &ordered,
        );
        self.work(y, work);
        let dev = &mut self.dev[y];
        dev.n = image.unwrap_or(dev.n);
        if image.is_none() && !gives_up && is_whole && dev.n != self.newest {
            return Err("P5 a write is lost that the dead peer owed nothing of".into());
        }
        (dev.fenced, dev.own) = (false, [0; 3]);
        (self.base, self.newest) = (dev.n, dev.n);
        self.history.clear();
        (self.active, self.asks, self.reading) = (Some(y), None, None);
        // The other device's image is of another history.
        self.dev[x].m.consistent = Consistent::No;
        self.dev[x].kept.consistent = Consistent::No;
        self.dev.iter_mut().for_each(|dev| dev.side = None);
        Ok(())
    }
}
