//! Any bytes from the network: an error, or a frame that encodes to the same bytes.
#![no_main]

use afterimage::format::frame::Frame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((session, frame)) = Frame::decode(bytes) {
        let (again, same) = Frame::decode(&frame.encode(session))
            .map(|(s, f)| (s, f == frame))
            .expect("encoded here");
        assert!(again == session && same);
    }
});
