//! The body of the fuzz target `nbd`: any bytes of a client, through the negotiation and the checks of its
//! requests.

use super::Export;
use super::negotiate::{
    Agreed, Negotiated, Offer, PAYLOAD_MAX, drop_bytes, greet, negotiate, take,
};
use super::request::check;
use super::submit::Pieces;
use super::tls::Security;
use super::wire::{RequestHead, command};

/// Any bytes are answered within bounds, or the connection ends: never a panic; and what is found good
/// lies within its export.
pub fn fuzz_nbd(bytes: &[u8]) {
    let mut exports = vec![Export::new("data", 0), Export::new("wal", 4)];
    exports[0].bytes = 1 << 30;
    exports[1].bytes = 10_000;
    exports[1].read_only = true;
    exports[1].shared = bytes.len() % 2 == 1;
    exports[1].description = "the log".into();
    let (mut input, mut output) = (bytes, Vec::new());
    let Ok(greeted) = greet(&mut input, &mut output) else { return };
    // Some come over a listener that takes TLS; the bytes behind STARTTLS are as if they were encrypted.
    let securities = [Security::None, Security::Offered, Security::Required];
    let mut security = securities[bytes.len() % securities.len()];
    let opened = loop {
        let offer = Offer { exports: &exports, block_size: 4096, security };
        let negotiated = negotiate(greeted, &mut input, &mut output, &offer, |_| Ok(()));
        // The shortest option, of 16 bytes, has no more than the list of these exports for a reply.
        assert!(output.len() <= 256 + 16 * bytes.len());
        match negotiated {
            Ok(Negotiated::StartTls) => {
                assert!(matches!(security, Security::Offered | Security::Required));
                security = Security::Named;
                exports.pop();
            }
            Ok(Negotiated::Opened(agreed, ())) => break Some(agreed),
            Ok(Negotiated::Left) | Err(_) => break None,
        }
    };
    let Some(agreed) = opened else { return };
    assert_ne!(security, Security::Required, "opened without TLS");
    while let Ok(head) = take(&mut input) {
        let Ok(head) = RequestHead::decode(&head) else { return };
        requested(&head, &exports[agreed.export], agreed);
        if head.command == command::WRITE && drop_bytes(&mut input, head.length.into()).is_err() {
            return;
        }
    }
}

fn requested(head: &RequestHead, export: &Export, agreed: Agreed) {
    if check(head, export, agreed).is_err() {
        return;
    }
    let end = head.offset.checked_add(head.length.into()).expect("a range");
    assert!(end <= export.bytes || matches!(head.command, command::FLUSH | command::DISC));
    if matches!(head.command, command::READ | command::WRITE) {
        assert!(head.length <= PAYLOAD_MAX);
    }
    let mut at = head.offset;
    let pieces = Pieces::of(head, 1 << 20);
    let number = pieces.number();
    if head.length > 0 {
        assert_eq!(pieces.clone().count(), number);
    }
    for (begin, length) in pieces {
        assert!(begin == at && (1..=1 << 20).contains(&length));
        at += length;
    }
    assert_eq!(at, end);
}

#[cfg(test)]
mod tests {
    use super::fuzz_nbd;

    #[test]
    fn seeds_of_the_fuzz_target_do_no_harm() {
        afterimage::internal::fuzz::over_seeds("nbd", fuzz_nbd);
        // And those of every length that a cut leaves.
        afterimage::internal::fuzz::over_seeds("nbd", |seed| {
            (0..seed.len().min(600)).for_each(|length| fuzz_nbd(&seed[..length]));
        });
    }
}
