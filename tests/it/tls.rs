//! TLS, from outside.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use s3dedup::ask::channel::{Channel, Proof};
use s3dedup::tls;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::python::{run_script_with, venv};
use crate::support::server::{Builder, free_port};
use crate::support::{TestServer, eventually};

/// A certificate for localhost on the disk.
struct Certificate {
    dir: TempDir,
}

impl Certificate {
    fn new() -> Self {
        let certificate = Self { dir: tempfile::tempdir().unwrap() };
        certificate.renew();
        certificate
    }

    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        fs::write(self.file(), made.cert.pem()).unwrap();
        fs::write(self.key_file(), made.signing_key.serialize_pem()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    fn key_file(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    fn server(&self) -> Builder {
        TestServer::builder().env("TLS_CERT_FILE", self.file().display()).env("TLS_KEY_FILE", self.key_file().display())
    }
}

/// A connection to a server with the certificate of this file.
struct Encrypted(Channel);

impl Encrypted {
    fn open(address: SocketAddr, certificate: &Path) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(address)?, certificate)
    }

    fn over(stream: TcpStream, certificate: &Path) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let proof = Proof::Authorities(tls::chain(certificate).unwrap());
        let mut channel = Channel::encrypted(stream, "localhost", &proof)?;
        channel.flush()?;
        Ok(Self(channel))
    }

    /// Gets a short answer and keeps the connection.
    fn get(&mut self, target: &str) -> std::io::Result<String> {
        self.0.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let (mut text, mut piece) = (String::new(), [0; 4096]);
        while !text.contains("\r\n\r\n") || !text.contains('}') {
            match self.0.read(&mut piece)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => text += std::str::from_utf8(&piece[..count]).unwrap(),
            }
        }
        Ok(text)
    }
}

#[test]
fn the_real_client_and_our_own_commands_speak_https() {
    let certificate = Certificate::new();
    let admin = format!("127.0.0.1:{}", free_port());
    let server = certificate.server().env("ADMIN_LISTEN", &admin).start();
    let port = server.address().port();
    let file = certificate.file();
    let bundle = file.to_str().unwrap();
    run_script_with("api.py", &[&format!("https://localhost:{port}/ft")], &[("REQUESTS_CA_BUNDLE", bundle)]);
    // A client that does not know the certificate refuses, so the above was encrypted and checked.
    let script = format!("import requests; requests.get('https://localhost:{port}/ft/version')");
    let refused = std::process::Command::new(venv().join("bin/python")).args(["-c", &script]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SSLError"));
    // Nothing is served without encryption.
    assert!(server.request("GET", "/version").try_send().is_err());

    let run = |arguments: &[&str]| {
        server.command(arguments).env("LISTEN_PORT", port.to_string()).env("ADMIN_TOKEN", "any").output().unwrap()
    };
    for arguments in [&["healthcheck", "--ready"][..], &["stats"]] {
        let told = run(arguments);
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }
    let url = format!("https://localhost:{port}");
    assert!(run(&["healthcheck", "--url", &url, "--ca-file", bundle]).status.success());
    assert!(!run(&["healthcheck", "--url", &url]).status.success());
    let plain = format!("http://localhost:{port}");
    assert!(!run(&["healthcheck", "--url", &plain]).status.success());

    let metrics = s3dedup::ask::Place::parse(&format!("https://{admin}")).unwrap().with_authorities(&file).unwrap();
    let text = metrics.get("/metrics", None).unwrap().body;
    let line = text.lines().find(|line| line.starts_with("s3dedup_tls_certificate_expiry_timestamp_seconds "));
    let expiry: f64 = line.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert!(expiry > 1.8e9, "{expiry}");
    assert!(server.log().contains("expires_in_days"));
}

#[test]
fn a_certificate_is_read_again_without_dropping_connections() {
    let certificate = Certificate::new();
    let server = certificate.server().start();
    let before = certificate.dir.path().join("before.pem");
    fs::copy(certificate.file(), &before).unwrap();
    let is_served = |file: &Path| {
        Encrypted::open(server.address(), file)
            .and_then(|mut it| it.get("/health"))
            .is_ok_and(|it| it.contains("200 OK"))
    };
    let mut kept = Encrypted::open(server.address(), &before).unwrap();
    assert!(kept.get("/health").unwrap().contains("200 OK"));

    // A key that is not the certificate's.
    let old_key = fs::read(certificate.key_file()).unwrap();
    certificate.renew();
    let new_key = fs::read(certificate.key_file()).unwrap();
    fs::write(certificate.key_file(), old_key).unwrap();
    server.signal(Signal::HUP);
    eventually("it is told", || server.log().contains("the old certificate stays").then_some(()));
    assert!(is_served(&before) && !is_served(&certificate.file()));

    fs::write(certificate.key_file(), new_key).unwrap();
    server.signal(Signal::HUP);
    eventually("the new certificate is shown", || is_served(&certificate.file()).then_some(()));
    assert!(!is_served(&before));
    assert!(kept.get("/health").unwrap().contains("200 OK"));
    assert!(!server.log().contains("PRIVATE KEY"));
}

#[test]
fn bad_files_are_refused_at_start() {
    let certificate = Certificate::new();
    fs::write(certificate.key_file(), "no key").unwrap();
    let log = certificate.server().prepare().fails_to_start();
    assert!(log.contains("tls: ") && log.contains("key.pem") && !log.contains("no key"), "{log}");
    certificate.renew();
    fs::remove_file(certificate.file()).unwrap();
    assert!(certificate.server().prepare().fails_to_start().contains("cert.pem"));
    let half = TestServer::builder().env("TLS_CERT_FILE", "cert.pem").prepare();
    let refused = half.run(&["check-config"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("tls.key_file"));
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let certificate = Certificate::new();
    let server = certificate.server().env("HTTP_WORKERS", 1).start();
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    let mut answered = Encrypted::open(server.address(), &certificate.file()).unwrap();
    assert!(answered.get("/health").unwrap().contains("200 OK"));
    // It did not have to wait until they were given up.
    silent[0].set_nonblocking(true).unwrap();
    assert!(matches!(silent[0].peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_bad_file_on_the_disk_makes_no_server_sick() {
    let certificate = Certificate::new();
    let server = certificate.server().start();
    let port = server.address().port().to_string();
    let asks = |arguments: &[&str]| {
        let mut command = server.command(arguments);
        command.env("LISTEN_PORT", &port).env("ADMIN_TOKEN", "any").output().unwrap().status.success()
    };
    fs::write(certificate.file(), "half a certificate").unwrap();
    assert!(asks(&["healthcheck"]));
    // A token is shown to no one who cannot be known.
    assert!(!asks(&["stats"]));
    fs::remove_file(certificate.file()).unwrap();
    assert!(asks(&["healthcheck", "--ready"]));
}

#[test]
fn a_client_that_does_not_agree_on_encryption_is_given_up() {
    let certificate = Certificate::new();
    let server = certificate.server().start();
    let mut silent = TcpStream::connect(server.address()).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The first bytes of a handshake, and no more.
    silent.write_all(&[0x16, 0x03, 0x01]).unwrap();
    assert!(
        matches!(silent.read(&mut [0]), Ok(0))
            || matches!(silent.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    assert!(Encrypted::open(server.address(), &certificate.file()).unwrap().get("/health").is_ok());
}

/// Connects from another address of this machine.
fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

#[test]
fn unfinished_handshakes_count_among_the_connections_of_their_address() {
    let certificate = Certificate::new();
    let server = certificate.server().env("CONNECTIONS_PER_ADDRESS_MAX", 4).start();
    let (address, file) = (server.address(), certificate.file());
    let get_from = |source| {
        let opened = Encrypted::over(connect_from(source, address), &file);
        opened.and_then(|mut encrypted| encrypted.get("/health"))
    };
    let mut silent = Vec::new();
    eventually("there is no room for more", || {
        // Each of them has some seconds only.
        silent.extend((0..8).map(|_| connect_from([127, 0, 0, 2], address)));
        get_from([127, 0, 0, 2]).err()
    });
    assert!(get_from([127, 0, 0, 3]).unwrap().contains("200 OK"));
    drop(silent);
    eventually("there is room again", || get_from([127, 0, 0, 2]).ok());
}

#[test]
fn what_is_no_request_gets_an_id_in_encrypted_words_too() {
    let certificate = Certificate::new();
    let server = certificate.server().env("LOG_LEVEL", "debug").start();
    let mut connection = Encrypted::open(server.address(), &certificate.file()).unwrap();
    connection.get("/health").unwrap();
    connection.0.write_all(b"no http at all\r\n\r\n").unwrap();
    connection.0.flush().unwrap();
    let mut answer = Vec::new();
    // However the server ends it.
    let _ = connection.0.read_to_end(&mut answer);
    let text = String::from_utf8(answer).unwrap();
    let id = text.split("request_id: ").nth(1).unwrap().trim();
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains(&format!("X-Request-Id: {id}\r\n")), "{text}");
    assert!(server.log().contains(id));
}
