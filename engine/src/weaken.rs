//! Switches that turn one clause of the rules off, so that the simulator, or the search through the
//! ladder, can show that it would notice: `docs/testing.md` has the tables of clauses and what it took.
//!
//! Only with the feature `weaken`, which nothing that ships turns on. Without it every clause
//! holds, as a constant, and nothing of this is in the program. Switches are the thread's own:
//! a simulation runs in one thread.

macro_rules! clauses {
    (
        simulated { $($(#[$doc:meta])* $name:ident = $text:literal),* $(,)? }
        searched { $($(#[$rule:meta])* $of:ident = $bracket:literal),* $(,)? }
    ) => {
        /// A clause of the specification (`docs/conformance.md`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        // Some are named by weakened code only.
        #[cfg_attr(not(feature = "weaken"), allow(dead_code))]
        pub enum Clause { $($(#[$doc])* $name,)* $($(#[$rule])* $of,)* }

        #[cfg(feature = "weaken")]
        impl Clause {
            /// Every clause that the simulator misses when it is switched off.
            pub const ALL: &[Clause] = &[$(Clause::$name),*];

            /// The clauses that the search through the ladder's orders misses
            /// (`table/differential/search.rs`): the simulator has none of them.
            pub const SEARCHED: &[Clause] = &[$(Clause::$of),*];

            /// Its name in `docs/testing.md`.
            pub fn name(self) -> &'static str {
                match self { $(Clause::$name => $text,)* $(Clause::$of => $bracket,)* }
            }

            /// The clause of that name.
            ///
            /// # Errors
            /// All names, if there is no such clause.
            pub fn parse(name: &str) -> Result<Clause, String> {
                let names = || Clause::ALL.iter().map(|clause| clause.name());
                let at = names().position(|known| known == name);
                let all = || format!("there are {}", names().collect::<Vec<_>>().join(", "));
                at.map(|at| Clause::ALL[at]).ok_or_else(all)
            }
        }
    };
}

clauses! {
    simulated {
        /// R1: a host's time above 2^62 is ignored.
        HostTimeBound = "host-time-bound",
        /// R2: a write raises the clock before it can be seen.
        SealPublication = "seal-publication",
        /// R2: what is taken in stamp order waits for reservations that may precede it.
        SealWait = "seal-wait",
        /// R2: all records of a request are published by one store.
        PublishAsOne = "publish-as-one",
        /// R3: admission is closed before the prototype is made.
        Fence = "fence",
        /// R3: the own log is synced before the prototype is made.
        LogSyncBeforePrototype = "log-sync-before-prototype",
        /// R3, section 4 step 4: `fenced` is durable before the prototype is sent.
        FencedDurable = "fenced-durable",
        /// R3: a device that an operator has fenced serves nobody until it is resumed.
        FencedHere = "fenced-here",
        /// R3: that is durable before the operator's call returns.
        FencedHereDurable = "fenced-here-durable",
        /// R4: the prototype names the newest stamp of a block.
        NewestPerBlock = "newest-per-block",
        /// R4: a grant is above every tenure held or granted.
        GrantRises = "grant-rises",
        /// R4: a request that asks for no more than was granted is granted the same again.
        RepeatedGrant = "repeated-grant",
        /// R5: prototype stamps that have arrived are ignored.
        PrototypeFilter = "prototype-filter",
        /// R5: of two crossing requests one wins.
        CrossingRequests = "crossing-requests",
        /// R5: a grant is taken only if it answers the open request.
        RequestNonce = "request-nonce",
        /// R5: a request that was lost with its connection is sent again over the next.
        AskAtHello = "ask-at-hello",
        /// R5, section 4 step 5: `need` and the tenure are durable before they are served under.
        TenureDurable = "tenure-durable",
        /// R6: a record at or below `hi` is acknowledged and otherwise ignored.
        ReceiveOnce = "receive-once",
        /// R6: a shipped record names its predecessor, which is the last received.
        ShipChain = "ship-chain",
        /// R7: "not pending" makes the reader look again.
        LookAgain = "look-again",
        /// R7: questions and answers of remote reads wait until the lane takes them.
        ReadPacing = "read-pacing",
        /// R7: only the tenure granted last is answered.
        ReadTenure = "read-tenure",
        /// R10: a connection that ends, or is given up for a new one, ends its link.
        HangUp = "hang-up",
        /// R10: the device that takes over says that it serves, and that hosts reach it when they do.
        SayServing = "say-serving",
        /// R10: what a line may have lost of that is said at the next hello.
        SayReachableAgain = "say-reachable-again",
        /// R8: own records wait for what the peer owes before them.
        OnePathInOrder = "one-path-in-order",
        /// R5, R8: what N could hold when the last debt began may go there again.
        Whole = "whole",
        /// R5: that is every record here, however far the reflector has come.
        WholeOfRecords = "whole-of-records",
        /// R5, R8: the received ones of these are durably known to be here.
        HiWithWhole = "hi-with-whole",
        /// D1: the same of those that bits follow.
        HiWithoutNeed = "hi-without-need",
        /// A block is compared only if the peer has all own records of it.
        CompareAcknowledged = "compare-acknowledged",
        /// A block is compared only if all its records here are in N.
        CompareReflected = "compare-reflected",
        /// A block is compared only if nothing of it has moved from before the question to behind the answer.
        CompareUnchanged = "compare-unchanged",
        /// R9: places are taken before anything is reserved.
        PlacesBeforeReservation = "places-before-reservation",
        /// R9: the tail rises no further than the number of cells above what the log does not have.
        CellsLogged = "cells-logged",
        /// R9: an own record is held until the peer has it.
        HeldUntilAcknowledged = "held-until-acknowledged",
        /// R9: a journal that is getting full forces a checkpoint.
        CheckpointWhenFull = "checkpoint-when-full",
        /// R10: the sender keeps to the receiver's credit.
        Credit = "credit",
        /// R10: only durable records are shipped, named or reflected.
        ShipBound = "ship-bound",
        /// R10: the own log is committed at intervals, though no host flushes.
        CommitInterval = "commit-interval",
        /// R10: the oldest unsent record is shipped next, also one inserted behind the last sent.
        OldestFirst = "oldest-first",
        /// R10: at the hello the sender goes on after what the peer has.
        Hello = "hello",
        /// R10, R13: a device that hears that its peer has more of it than it has itself serves nobody.
        LostHere = "lost-here",
        /// R10, R13: a peer that has less than was acknowledged, shipped, promised or granted is refused.
        LostThere = "lost-there",
        /// R13: the received log ends at its first gap.
        Chain = "chain",
        /// R13: the own log ends at its first gap.
        SequenceCut = "sequence-cut",
        /// R13: what is missing at or below `synced` is rot, and refused.
        Rot = "rot",
        /// R13: batches of an earlier life behind the cut stay dead.
        Incarnation = "incarnation",
        /// R13: records at or below fl are not reflected again.
        ReplayAboveCheckpoint = "replay-above-checkpoint",
        /// R13: after a restart stamps go on above the highest ever given.
        ClockRecovery = "clock-recovery",
        /// R13: what is found in a log is synced before it is believed.
        RecoverySync = "recovery-sync",
        /// R13: what is not known to be durable is written again before it is synced: a sync of an
        /// earlier process may have failed.
        RecoveryRewrite = "recovery-rewrite",
        /// R13: an unfenced device that was opened again waits until somebody vouches for it.
        Proven = "proven",
        /// R13: while the peer owes something, a restarted device asks again before it serves.
        AskAgain = "ask-again",
        /// R14: commands of an older tenure are refused.
        Tenure = "tenure",
        /// R20: once a higher session has written to a volume, a lower one does not.
        Writer = "writer",
        /// R20: nothing is admitted through a session that was revoked.
        Revoked = "revoked",
        /// R20: a `Written` write completes once it is in the log file.
        WrittenLog = "written-log",
        /// R20: what was not synced survives only under the same cache identity.
        CacheIdentity = "cache-identity",
        /// R20: an opening that may lack completed writes sets the mark.
        LostMark = "lost-mark",
        /// R20: the time that the mark names is of the tenure that may have lost writes.
        LostSince = "lost-since",
        /// R20: hosts are refused while the mark stands.
        LostRefused = "lost-refused",
        /// R20: a fenced device takes the mark over from its peer.
        LostTravels = "lost-travels",
        /// R15: a partial write is inserted over the very record it was read from.
        TwoHalves = "two-halves",
        /// R15: after bounded retries a partial write takes the block's turn.
        Turn = "turn",
        /// R16: the records of a request have stamps of their own.
        RequestStamps = "request-stamps",
        /// R17: for what reads as zeros no record is made once the records are looked at, and N behind them.
        RecordsBeforeVolume = "records-before-volume",
        /// R19: a wide request looks at the requests in flight around it.
        WideLook = "wide-look",
        /// R19: no half that has not read an extent's zeros comes above it.
        WideHalves = "wide-halves",
        /// R19: a look for a block goes through the extents around it.
        WiderExtents = "wider-extents",
        /// R19: what is owed for a block is owed for an extent around it, too.
        OwedAround = "owed-around",
        /// R19: of extents in one another the newest is written to N.
        NewestAround = "newest-around",
        /// R19: a shipped record tells of newer data of just its extent.
        RemainingOfExtent = "remaining-of-extent",
        /// R19: records are of many blocks only once both devices know such records.
        ExtentsAgreed = "extents-agreed",
        /// R19: from then on a peer that does not know them is refused.
        ExtentsRefused = "extents-refused",
        /// R18: a prototype is handed over as the control lane takes it.
        HandOverPaced = "hand-over-paced",
        /// R18: no more is announced than the peer keeps.
        AnnounceBound = "announce-bound",
        /// R18: at the hello announcements go on after the last stamp told.
        AnnounceAfterTold = "announce-after-told",
        /// R18: what is told follows what was told last, or what has arrived.
        ToldChain = "told-chain",
        /// R18, D10: of a prototype that ends in the middle only what went before it is kept for a loss sheet.
        ToldWhole = "told-whole",
        /// No more bytes of writes wait to be admitted than the settings allow.
        WaitingBound = "waiting-bound",
        /// LADDER 6: a write is delayed once, for no longer than the bound.
        PacingBound = "pacing-bound",
        /// LADDER 6: pacing ends below a threshold of its own.
        PacingEnd = "pacing-end",
        /// A request that waits is woken once it can go on.
        Wake = "wake",
        /// E3, D5: copies and answers have the newest content, of a record that is not in N before N's.
        NewestFirst = "newest",
        /// E7, D11: the bits of records are stored by the write that frees their places.
        BitsWithPlaces = "bits-with-places",
        /// D10: own records that a force gave up are left out at an opening.
        VoidLeftOut = "void-left-out",
        /// D10: writes that were admitted alone are a branch, which an operator gives up.
        AloneIsBranch = "alone-is-branch",
        /// D10: a returned device says what differs before it asks for the host.
        SayDiffering = "say-differing",
        /// D3, R10: a device that is below a round that it was in has lost durable records.
        RoundMet = "round-met",
        /// D3, R10: a device that serves begins every round of its tenure, or it has lost durable records.
        RoundBegun = "round-begun",
        /// R4, D3: no grant is repeated in a file, as an earlier one may have been taken.
        FileGrantedAnew = "file-granted-anew",
        /// D10: a returned device is fenced at the hello.
        ReturnedFenced = "returned-fenced",
        /// D10: what a returned device alone has is saved before it is overwritten.
        SaveWhatDiffers = "save-what-differs",
        /// D10: what a returned device has yet to save it saves after an opening, too.
        StillUnsaved = "still-unsaved",
        /// D10: of a tenure that nothing has come of, the loss sheet says nothing.
        SheetOfTenure = "sheet-of-tenure",
        /// D11: what was found equal is durable before it is acknowledged.
        EqualSync = "equal-sync",
        /// Section 4 step 1: a flush completes after the log's sync.
        FlushSync = "flush-sync",
        /// Section 4 step 2: a received record is durable before it is acknowledged.
        ReceiveSync = "receive-sync",
        /// Section 4 step 3: the volumes are durable before `fl` says so.
        CheckpointSync = "checkpoint-sync",
        /// LADDER 6: what is overwritten is saved durably before it is.
        OldContentFirst = "old-content-first",
        /// LADDER 6: that an image is given up is durable before a block is overwritten that is not saved.
        GivenUpFirst = "given-up-first",
    }
    searched {
        /// D1: what the peer owes is P from then on.
        PendOwed = "pendP",
        /// D1: blocks that the peer owes get no bit.
        TableNotOwed = "TnotP",
        /// D1: nothing is suspended while what the peer owes is not known.
        PrototypeFirst = "proto",
        /// D1: the peer's R becomes bits, too, when it hears of the round.
        PeerConverts = "convert",
        /// D2: a bit is cleared when the block is read, not when the copy is acknowledged.
        ClearAtSend = "clear_send",
        /// D2: what was in flight is sent again when the connection or the round ends.
        Refly = "refly",
        /// Section 6: a block that differs is copied.
        DifferingSent = "differing",
        /// D3: checksums of another round are ignored.
        SumsOfRound = "sums-round",
        /// D3: copies and acknowledgements of another round are ignored.
        RoundCounts = "round",
        /// D3: data is sent in a round once the peer is known to be in it.
        OpenFirst = "open",
        /// D3: a new connection repeats open and opened.
        OpenAgain = "reopen",
        /// D3: the source takes the target's cut for received, too.
        CutOfTarget = "cut-of-target",
        /// D3: records of before the round are checkpointed before a copy is taken.
        CheckpointBeforeCopy = "flcopy",
        /// D4: a prototype is granted only if both are in ordered mode and of one round.
        GrantKind = "kind",
        /// D4: the table granted has the blocks of R.
        FenceTable = "fenceR",
        /// D4: blocks granted lose the requester's bits.
        PeerNewer = "newer",
        /// D4: a requester that was active later keeps its own bits.
        KeepLater = "held",
        /// D4, D8: a grant that leaves the table as it is stored leaves `cut`, too.
        KeptCut = "kept-cut",
        /// D4, D10: a grant to a returned device stores the table, which has what differs there.
        DifferingStored = "storeM",
        /// D4: a grant of a lower lineage is added to the table.
        GrantOfReturned = "grantM",
        /// D5: an own write takes the block out of P.
        OwnWriteOver = "over",
        /// D6: the active device sends only once it is owed nothing.
        CollectFirst = "collect",
        /// D6: the target is not consistent from the open of a sending round on.
        TargetMarked = "markX",
        /// D7: level is said only with nothing to send, and the own log synced.
        LevelWhenSent = "level",
        /// D7: level is said again after a copy.
        LevelAgain = "relevel",
        /// D8: after a restart every block without own bit is owed.
        OwedAtRestart = "restartP",
        /// D8: unless a durable bit says that nothing is.
        OwedBit = "owed",
        /// D9: the target is consistent once it has what was in R at the end.
        ConsistentAt = "consat",
        /// D10: a force begins a round above all of the lineage before.
        GenerationRound = "genround",
        /// D10: blocks put back from the side file get bits.
        SideFileBits = "sideT",
        /// D10: a device of a lower lineage is fenced at the hello.
        FenceReturned = "returned",
        /// D10: the source sends what the target has changed alone, too.
        JoinTable = "joinT",
        /// D10: a returned device is of its old lineage until an end or a grant.
        KeepReturned = "keepM",
        /// D10: the request of a lower lineage says its table, and drops it when it takes the grant.
        AskWithTable = "askM",
        /// D11: the own log is synced when R becomes bits.
        SuspendSync = "dursusp",
        /// D11: the own log is synced before a round is opened.
        OpenSync = "duropen",
        /// D11: the own log is synced before the end.
        EndSync = "durend",
        /// D11: the own log is synced before the grant.
        FenceSync = "durfence",
        /// D11: the own log is synced before a copy is dropped.
        DropSync = "durdrop",
        /// D11: that N is no prefix is stored before N is none.
        MarkFirst = "mark",
        /// Section 6: a copy removes what announcements up to its own told of, and nothing later.
        CopyNumber = "told-copy",
        /// Section 6: a level covers nothing that was told behind it.
        LevelCovers = "told-level",
        /// Section 6: an announcement belongs to its round.
        ToldOfRound = "told-round",
        /// Records of before the table was last changed in bulk imply no bit.
        TableCut = "tcut",
    }
}

#[cfg(feature = "weaken")]
mod switch {
    use super::Clause;
    use std::cell::Cell;

    thread_local! {
        static OFF: Cell<Option<Clause>> = const { Cell::new(None) };
    }

    /// Switches one clause off in this thread, and every other on.
    pub fn without(clause: Option<Clause>) {
        OFF.set(clause);
    }

    pub(crate) fn holds(clause: Clause) -> bool {
        OFF.get() != Some(clause)
    }
}

#[cfg(feature = "weaken")]
pub(crate) use switch::holds;
#[cfg(feature = "weaken")]
pub use switch::without;

/// Whether the rule is in force: always, but for the feature's tests.
#[cfg(not(feature = "weaken"))]
#[inline(always)]
pub(crate) const fn holds(_: Clause) -> bool {
    true
}

/// Alternatives that leaving a statement out cannot give. With every clause in force each is what
/// the rule says.
pub(crate) mod instead {
    use super::{Clause, holds};

    /// R14: the tenure that a write is admitted under is its session's; else whichever is open, and
    /// while none is the gate is closed to all.
    #[inline(always)]
    pub fn tenure(of_session: u64, open: impl FnOnce() -> u64) -> u64 {
        if holds(Clause::Tenure) { of_session } else { open().max(1) }
    }

    /// R17: whether there is no record and, looked at behind that, nothing in N; else N is looked at
    /// first.
    #[inline(always)]
    pub fn records_then_volume(
        has_none: impl FnOnce() -> bool,
        is_zero: impl FnOnce() -> bool,
    ) -> bool {
        match holds(Clause::RecordsBeforeVolume) {
            true => has_none() && is_zero(),
            false => is_zero() && has_none(),
        }
    }

    /// R19: what a shipped record tells of newer data of is its extent; else its first block.
    #[inline(always)]
    pub fn remaining<T>(of_extent: impl FnOnce() -> T, of_block: impl FnOnce() -> T) -> T {
        if holds(Clause::RemainingOfExtent) { of_extent() } else { of_block() }
    }

    /// D2: a bit is cleared as the block is sent; else as the copy is acknowledged.
    #[inline(always)]
    pub fn clears(at_send: bool) -> bool {
        holds(Clause::ClearAtSend) == at_send
    }

    /// D10: a returned device's lineage stays as it is at the open; else it is the round's.
    #[inline(always)]
    pub fn lineage_at_open(kept: u64, of_round: u64) -> u64 {
        if holds(Clause::KeepReturned) { kept } else { of_round.max(kept) }
    }

    /// R2: the state of a request's record is the request's; else each counts as `published`.
    #[inline(always)]
    pub fn state_of_request(published: u64, of_request: impl FnOnce() -> u64) -> u64 {
        if holds(Clause::PublishAsOne) { of_request() } else { published }
    }
}
