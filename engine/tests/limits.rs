//! What a device advertises it takes, and not a sector more: whoever asks for more is told at once,
//! and nothing is admitted (R16, R17).
#![cfg(not(loom))]

mod common;

use afterimage::error::Kind;
use afterimage::request::{Op, Request};
use common::{A, Pair, Spec};
use std::io::IoSlice;

#[test]
fn what_is_beyond_the_limits_is_refused_outright() {
    const BLOCKS: u64 = 100_000;
    let pair = Pair::with(Spec { block_size: 512, volumes: vec![BLOCKS], ..Spec::default() });
    let limits = pair.devices[A].limits();
    let session = pair.session(A).unwrap();
    let ask = |offset: u64, op: Op<'_>| {
        let request = Request { op, ..Request::read(0, offset, Vec::new()) };
        session.submit(request).map(drop).map_err(|error| error.kind())
    };
    let before = pair.devices[A].status().own_free_places;
    let (most, zeroes) = (limits.request_bytes_max, limits.zero_bytes_max);
    let data = vec![1; most as usize + 512];
    assert_eq!(ask(0, Op::Write(&[IoSlice::new(&data)])), Err(Kind::TooLarge));
    assert_eq!(ask(0, Op::Read(data.clone())), Err(Kind::TooLarge));
    assert_eq!(ask(0, Op::WriteZeroes(zeroes + 512)), Err(Kind::TooLarge));
    assert_eq!(ask(0, Op::Discard(zeroes + 512)), Err(Kind::TooLarge));
    let end = BLOCKS * 512;
    for (offset, length) in [(end - 512, 1024), (end, 512), (u64::MAX - 511, 512), (1, 512), (0, 1)]
    {
        assert_eq!(
            ask(offset, Op::WriteZeroes(length)),
            Err(Kind::Invalid),
            "{length} at {offset}"
        );
    }
    assert_eq!(pair.devices[A].status().own_free_places, before, "nothing was admitted");
    assert_eq!(ask(0, Op::Write(&[IoSlice::new(&data[..most as usize])])), Ok(()));
    assert_eq!(ask(end - zeroes, Op::Discard(zeroes)), Ok(()));
    assert_eq!(ask(end, Op::Read(Vec::new())), Ok(()));
    assert_eq!(ask(end, Op::WriteZeroes(0)), Ok(()), "nothing asked for, nothing to refuse");
}
