//! A device's key in its file, and its public half as text.

use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_key_is_read_from_its_file_as_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(KEY_FILE);
    let key = DeviceKey::generate().unwrap();
    fs::write(path.with_extension("new"), "what a crash left").unwrap();
    key.store(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let read = DeviceKey::load(&path).unwrap();
    assert_eq!((read.public(), read.to_pkcs8()), (key.public(), key.to_pkcs8()));
    // A key that is there is not written over.
    let other = DeviceKey::generate().unwrap();
    assert_eq!(other.store(&path).unwrap_err().kind(), Kind::Storage);
    assert_eq!(DeviceKey::load(&path).unwrap().public(), key.public());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(KEY_FILE);
    DeviceKey::generate().unwrap().store(&path).unwrap();
    for mode in [0o604, 0o640, 0o620, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let refused = DeviceKey::load(&path).unwrap_err();
        assert_eq!(refused.kind(), Kind::Config);
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    DeviceKey::load(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for content in [&b""[..], b"no key", &[0x30; 4096]] {
        fs::write(&path, content).unwrap();
        assert_eq!(DeviceKey::load(&path).unwrap_err().kind(), Kind::Damaged);
    }
    assert_eq!(DeviceKey::load(&path.join("none")).unwrap_err().kind(), Kind::Storage);
}

#[test]
fn a_key_is_not_shown() {
    let key = DeviceKey::generate().unwrap();
    let shown = format!("{key:?} {:?}", key.public());
    let secret =
        key.to_pkcs8()[16..48].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(
        !shown.contains(&secret[..8]) && !shown.contains(&format!("{:?}", &key.to_pkcs8()[16..20]))
    );
    assert!(shown.contains(&key.public().fingerprint().to_string()), "{shown}");
}

/// The fingerprint that `openssl pkey -pubout -outform DER | sha256sum` gives for the first key of RFC 8032.
#[test]
fn a_fingerprint_is_the_hash_of_the_public_key_as_it_stands_in_tls() {
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let byte = |at: usize| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap();
    let fingerprint = PublicKey::from_bytes(std::array::from_fn(byte)).fingerprint();
    let text = fingerprint.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(text, "a3r7-3d62-fg5w-bk2z-kv66-mhw3-blwn-wiyr-gs7d-bz23-ivpy-4g3z-f6uq");
    assert_eq!(text.parse::<Fingerprint>().unwrap(), fingerprint);
    assert_eq!(text.replace('-', "").to_uppercase().parse::<Fingerprint>().unwrap(), fingerprint);
    for wrong in ["", "abcd", &text[1..], &format!("{text}a"), &text.replace('a', "1")] {
        assert_eq!(wrong.parse::<Fingerprint>().unwrap_err().kind(), Kind::Invalid);
    }
}
