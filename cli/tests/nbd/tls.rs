//! Hosts by TLS: what a certificate opens, and everything that a stranger may try.

use crate::client::*;
use crate::rig::*;
use afterimage_cli::nbd::{Counters, Settings, Tls};
use afterimage_cli::service::host_certs;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Certificates as `afterimage host-certs` makes them: `vm` writes to `data` and reads `wal`, `all` has all.
pub fn certificates() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let clients = ["vm:data:rw", "vm:wal:ro", "all:*:rw"].map(|word| {
        let (name, grant) = word.split_once(':').unwrap();
        (name.to_owned(), grant.parse().unwrap())
    });
    let args = host_certs::Args {
        dir: scratch.path().join("certs"),
        name: vec!["localhost".into(), "127.0.0.1".into()],
        client: clients.into(),
        days: 2,
    };
    host_certs::run(&args, &mut std::io::sink()).unwrap();
    scratch
}

fn text(dir: &Path, file: &str) -> Vec<u8> {
    std::fs::read(dir.join("certs").join(file)).unwrap()
}

/// The server's side of them.
pub fn server_of(dir: &Path) -> Tls {
    let [chain, key, clients] =
        ["server-cert.pem", "server-key.pem", "ca-cert.pem"].map(|file| text(dir, file));
    Tls::new(&chain, &key, Some(&clients)).unwrap()
}

type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn shown(dir: &Path, client: &str) -> Shown {
    let certificate = text(dir, &format!("clients/{client}/client-cert.pem"));
    let key = text(dir, &format!("clients/{client}/client-key.pem"));
    (
        CertificateDer::from_pem_slice(&certificate).unwrap(),
        PrivateKeyDer::from_pem_slice(&key).unwrap(),
    )
}

fn session(
    dir: &Path,
    shown: Option<Shown>,
    version: &'static SupportedProtocolVersion,
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&text(dir, "ca-cert.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

fn host(rig: &Rig, dir: &Path, client: &str) -> Client {
    let session = session(dir, Some(shown(dir, client)), &TLS13);
    Client::tcp(rig.address.unwrap()).secured(session).unwrap()
}

fn refused(rig: &Rig) -> Counters {
    rig.server().counters()
}

#[test]
fn a_host_uses_the_exports_that_its_certificate_names() {
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), true);
    for version in [&TLS12, &TLS13] {
        let session = || session(dir.path(), Some(shown(dir.path(), "vm")), version);
        let connect = || Client::tcp(rig.address.unwrap()).secured(session()).unwrap();
        let mut host = connect();
        let listed = host.replies(LIST, &[]);
        let names: Vec<_> = listed.iter().map(|(_, data)| String::from_utf8_lossy(data)).collect();
        assert_eq!(names, ["\0\0\0\x04data", "\0\0\0\x03walthe log", ""]);
        for name in ["large", "seen", "nothing"] {
            for option in [GO, INFO] {
                assert_eq!(host.answer(option, &wish(name, &[])), POLICY, "{name}");
            }
        }
        assert_eq!(host.answer(STARTTLS, &[]), INVALID, "this is TLS already");
        assert_eq!(host.go("data").1 & 2, 0, "not read-only");
        let data: Vec<u8> = (0..9u32 << 18).flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(host.write(FUA, 5, &data), 0);
        assert!(host.read(0, 5, data.len() as u32).unwrap() == data);
        assert_eq!(host.call(0, FLUSH, 0, 0), 0);

        let mut reader = connect();
        assert_eq!(reader.go("wal").1 & 2, 2, "read-only");
        assert_eq!(reader.write(0, 0, b"x"), 1, "EPERM");
        assert_eq!(reader.call(0, TRIM, 0, 4096), 1);
        assert_eq!(reader.call(0, WRITE_ZEROES, 0, 4096), 1);
        assert_eq!(reader.read(0, 0, 512), Ok(vec![0; 512]));

        let mut stranger = connect();
        stranger.option(EXPORT_NAME, b"large");
        stranger.assert_over();
        // It is told that it is the end.
        host.ask(0, DISC, 0, 0);
        assert_eq!(host.stream.read(&mut [0]).unwrap(), 0);
    }
    let mut all = self::host(&rig, dir.path(), "all");
    assert_eq!(all.replies(LIST, &[]).len(), 5);
    assert_eq!(all.go("seen").1 & 2, 2, "no certificate makes more of an export than it is");
    let news = format!("{:?}", rig.news.lock().unwrap());
    assert!(news.contains("(vm)") && news.contains("(all)"), "{news}");
}

#[test]
fn nothing_is_told_before_tls() {
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), true);
    let mut client = Client::tcp(rig.address.unwrap());
    for option in [LIST, INFO, GO, STRUCTURED, LIST_CONTEXT, SET_CONTEXT, 0, 11, 77, u32::MAX] {
        assert_eq!(client.answer(option, &wish("data", &[])), TLS_REQD, "{option}");
    }
    assert_eq!(client.answer(STARTTLS, b"x"), INVALID);
    assert_eq!(client.answer(ABORT, &[]), ACK);
    client.assert_over();
    let mut client = Client::tcp(rig.address.unwrap());
    client.option(EXPORT_NAME, b"data");
    client.assert_over();
    // There is none on the unix socket.
    assert_eq!(Client::connect(&rig.path()).answer(STARTTLS, &[]), UNSUP);
}

#[test]
fn the_negotiation_before_tls_is_forgotten() {
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), false);
    let mut client = Client::tcp(rig.address.unwrap());
    assert_eq!(client.answer(STRUCTURED, &[]), ACK);
    assert_eq!(client.replies(SET_CONTEXT, &query("data", &["base:allocation"])).len(), 2);
    let session = session(dir.path(), Some(shown(dir.path(), "vm")), &TLS13);
    let mut client = client.secured(session).unwrap();
    let contexts = query("data", &["base:allocation"]);
    assert_eq!(client.answer(SET_CONTEXT, &contexts), INVALID, "no structured replies");
    assert_eq!(client.go("data").1 & 1 << 7, 0, "no DF without structured replies");
    assert_eq!(client.read(0, 0, 1), Ok(vec![0]));
    // Where TLS is not required a client may do without.
    let mut plain = Client::tcp(rig.address.unwrap());
    plain.go("large");
    assert_eq!(plain.write(0, 0, b"x"), 0);
}

#[test]
fn bytes_in_the_clear_behind_starttls_are_refused() {
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), false);
    let starttls = [&OPTION.to_be_bytes()[..], &[0, 0, 0, 5, 0, 0, 0, 0]].concat();
    let list = [&OPTION.to_be_bytes()[..], &[0, 0, 0, 3, 0, 0, 0, 0]].concat();
    // With the option in one piece: they would be taken for what the host says inside.
    let mut client = Client::tcp(rig.address.unwrap());
    client.send(&[starttls, list.clone()].concat());
    assert_eq!(client.reply(STARTTLS).0, ACK);
    client.assert_over();
    rig.wait_for_nobody();
    assert!(rig.last_end().contains("in the clear"), "{}", rig.last_end());
    assert_eq!(refused(&rig), Counters { broken: 1, ..Default::default() });
    // Later, before the host's handshake: they are no handshake.
    let mut client = Client::tcp(rig.address.unwrap());
    assert_eq!(client.answer(STARTTLS, &[]), ACK);
    client.send(&list);
    // An alert may come.
    let _ = client.stream.read_to_end(&mut Vec::new());
    rig.wait_for_nobody();
    assert!(rig.last_end().starts_with("TLS: "), "{}", rig.last_end());
    assert_eq!(refused(&rig), Counters { broken: 1, handshakes: 1, ..Default::default() });
}

/// A certificate for `vm` that has the right to everything, by an authority of its own or that of `dir`.
fn forged(dir: Option<&Path>, days: std::ops::Range<i64>) -> Shown {
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "afterimage hosts of localhost");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = match dir {
        None => Issuer::new(ca, KeyPair::generate().unwrap()),
        Some(dir) => {
            let [pem, key] = ["ca-cert.pem", "ca-key.pem"]
                .map(|file| String::from_utf8(text(dir, file)).unwrap());
            Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&key).unwrap()).unwrap()
        }
    };
    let at = |days: i64| {
        let day = Duration::from_secs(days.unsigned_abs() * 24 * 60 * 60);
        let now = std::time::SystemTime::now();
        if days < 0 { now - day } else { now + day }
    };
    let mut params = CertificateParams::default();
    params.not_before = at(days.start).into();
    params.not_after = at(days.end).into();
    params.subject_alt_names =
        vec![SanType::URI("afterimage:export:*:rw".to_owned().try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// Whether a host gets anything by TLS.
fn is_served(address: SocketAddr, session: ClientConnection) -> bool {
    let Ok(mut client) = Client::tcp(address).secured(session) else { return false };
    let list = [&OPTION.to_be_bytes()[..], &[0, 0, 0, 3, 0, 0, 0, 0]].concat();
    client.stream.write_all(&list).and_then(|()| client.stream.read_exact(&mut [0; 20])).is_ok()
}

#[test]
fn a_host_that_does_not_show_who_it_is_gets_nothing() {
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), true);
    let address = rig.address.unwrap();
    let path = dir.path();
    for version in [&TLS12, &TLS13] {
        let refused = [
            ("no certificate", None),
            ("another authority of the same name", Some(forged(None, -1..1))),
            ("expired", Some(forged(Some(path), -3..-1))),
            ("not yet", Some(forged(Some(path), 1..3))),
            ("a server's certificate", {
                let key = PrivateKeyDer::from_pem_slice(&text(path, "server-key.pem")).unwrap();
                let text = text(path, "server-cert.pem");
                Some((CertificateDer::from_pem_slice(&text).unwrap(), key))
            }),
        ];
        for (why, shown) in refused {
            let before = self::refused(&rig).handshakes;
            assert!(!is_served(address, session(path, shown, version)), "{why}");
            rig.wait_for_nobody();
            assert_eq!(self::refused(&rig).handshakes, before + 1, "{why}");
        }
        assert!(is_served(address, session(path, Some(forged(Some(path), -1..1)), version)));
    }
    assert_eq!(self::refused(&rig), Counters { handshakes: 10, ..Default::default() });
}

/// A TLS 1.1 hello, by hand: no client of today sends one.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2, 0, 0x2f, 1, 0]);
    let mut hello = vec![22, 3, 1, 0, (body.len() + 4) as u8, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

#[test]
fn odd_bytes_for_a_handshake_end_the_connection() {
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), true);
    let oversized = [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat();
    let long_hello = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 16_380]].concat();
    let odd: [(&str, Vec<u8>); 5] = [
        ("TLS 1.1", old_hello()),
        ("a record that is too long", oversized),
        ("a hello that is too long", long_hello),
        ("an option", [&OPTION.to_be_bytes()[..], &[0; 8]].concat()),
        ("zeros", vec![0; 4096]),
    ];
    for (number, (what, bytes)) in (1..).zip(&odd) {
        let mut client = Client::tcp(rig.address.unwrap());
        assert_eq!(client.answer(STARTTLS, &[]), ACK);
        // It may be hung up on in the middle.
        let _ = client.stream.write_all(bytes);
        let _ = client.stream.read_to_end(&mut Vec::new());
        rig.wait_for_nobody();
        assert_eq!(refused(&rig), Counters { handshakes: number, ..Default::default() }, "{what}");
    }
    // A record that does not decrypt, in the middle of requests.
    let mut host = host(&rig, dir.path(), "vm");
    host.go("data");
    let Wire::Tls(tls) = &mut host.stream else { panic!() };
    tls.sock.write_all(&[&[23, 3, 3, 0, 32][..], &[1; 32]].concat()).unwrap();
    let _ = host.stream.read_to_end(&mut Vec::new());
    rig.wait_for_nobody();
    assert_eq!(refused(&rig).broken, 1);
    assert!(rig.last_end().starts_with("TLS: "), "{}", rig.last_end());
}

#[test]
fn strangers_are_few_and_not_for_long() {
    let dir = certificates();
    let settings =
        Settings { strangers_max: 2, negotiation: Duration::from_secs(3), ..Settings::default() };
    let rig = Rig::with_tls(settings, server_of(dir.path()), true);
    let hello = old_hello();
    let strangers: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Client::tcp(rig.address.unwrap());
            assert_eq!(client.answer(STARTTLS, &[]), ACK);
            client.send(&hello[..20]);
            client
        })
        .collect();
    let mut third = std::net::TcpStream::connect(rig.address.unwrap()).unwrap();
    assert_eq!(third.read(&mut [0; 18]).unwrap_or(0), 0, "it is closed as it comes");
    assert_eq!(refused(&rig).too_many, 1);
    // Other sockets do not notice.
    Client::simple(&rig.path(), "data");
    for mut stranger in strangers {
        stranger.assert_over();
    }
    rig.wait_for_nobody();
    assert_eq!(refused(&rig).late, 2);
    // Hosts that have shown who they are do not count.
    let hosts: Vec<_> = (0..4)
        .map(|_| {
            let mut host = host(&rig, dir.path(), "vm");
            host.go("data");
            host
        })
        .collect();
    assert_eq!(rig.server().connections(), hosts.len());
}

/// Replies that a host takes late come whole and in order, and requests are taken meanwhile.
#[test]
fn a_host_that_takes_its_replies_late_gets_them_whole() {
    let dir = certificates();
    let rig = Rig::with_tls(Settings::default(), server_of(dir.path()), true);
    let mut host = host(&rig, dir.path(), "vm");
    host.go("data");
    let data: Vec<u8> = (0..1u32 << 18).flat_map(|word| word.to_be_bytes()).collect();
    for at in 0..8 {
        assert_eq!(host.write(0, at << 20, &data), 0);
    }
    let mut cookies: Vec<_> =
        (0..40u64).map(|at| host.ask(0, READ, (at % 8) << 20, 1 << 20)).collect();
    std::thread::sleep(Duration::from_millis(300));
    while !cookies.is_empty() {
        let (cookie, error) = host.done();
        assert_eq!(error, 0);
        let at = cookies.iter().position(|of| *of == cookie).expect("it was asked once");
        cookies.swap_remove(at);
        assert!(host.take_many(1 << 20) == data);
    }
    // A hang-up comes behind whole replies, as the end of the session.
    rig.server().hang_up_all();
    assert_eq!(host.stream.read(&mut [0]).unwrap(), 0);
}
