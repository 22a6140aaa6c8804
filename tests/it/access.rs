//! Access tokens, from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::browser::Browser;
use crate::support::python::{run_script, run_shell};
use crate::support::server::{Builder, free_port};
use crate::support::{Noise, Request, TestServer, eventually, upload};

/// A file of tokens with one of each role.
struct Tokens {
    _dir: TempDir,
    file: PathBuf,
    read: String,
    write: String,
    admin: String,
}

impl Tokens {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let maker = TestServer::builder().prepare();
        let make = |role| new_token(&maker, role, &file);
        let (read, write, admin) = (make("read-only"), make("read-write"), make("admin"));
        Self { _dir: dir, file, read, write, admin }
    }

    fn server(&self) -> Builder {
        TestServer::builder().env("ACCESS_TOKENS_FILE", self.file.display())
    }
}

/// Makes a token by the command, as people do.
fn new_token(server: &TestServer, role: &str, file: &std::path::Path) -> String {
    let made = server.run(&["token", "new", "--role", role, "--name", role, "--file", file.to_str().unwrap()]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim_end().to_owned()
}

fn bearer(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

const DATE: &str = "last_modified=Thu,+01+Jan+2026+00:00:00+GMT";

#[test]
fn each_route_wants_its_role() {
    let tokens = Tokens::new();
    let server = tokens.server().start();
    let put = format!("/ft/files/x?{DATE}");
    let delete = format!("/ft/files/none?{DATE}");
    // Which of nobody, read-only, read-write and admin may.
    for (method, target, may) in [
        ("GET", "/health", [true; 4]),
        ("GET", "/ready", [true; 4]),
        ("GET", "/ft/version", [false, true, true, true]),
        ("GET", "/ft/list/", [false, true, true, true]),
        ("GET", "/ft/files/none", [false, true, true, true]),
        ("HEAD", "/ft/files/none", [false, true, true, true]),
        ("PUT", put.as_str(), [false, false, true, true]),
        ("DELETE", delete.as_str(), [false, false, true, true]),
        ("POST", "/ft/files/x", [false, false, true, true]),
        ("GET", "/nowhere", [false, true, true, true]),
        ("GET", "/metrics", [false, false, false, true]),
        ("GET", "/metrics/json", [false, false, false, true]),
        ("GET", "/api/stats", [false, false, false, true]),
        ("GET", "/api/actors", [false, false, false, true]),
        ("GET", "/api/files", [false, false, false, true]),
        ("GET", "/api/download?name=none", [false, false, false, true]),
        ("GET", "/ui", [false, false, false, true]),
        ("GET", "/ui/app.js", [false, false, false, true]),
    ] {
        let request = || server.raw_request(method, target);
        let asked = [
            request(),
            bearer(request(), &tokens.read),
            bearer(request(), &tokens.write),
            bearer(request(), &tokens.admin),
        ];
        for (at, (request, may)) in asked.into_iter().zip(may).enumerate() {
            let answer = request.send();
            assert_eq!(!matches!(answer.status, 401 | 403), may, "{method} {target} {at}: {answer:?}");
            if !may {
                let wanted = if at == 0 { 401 } else { 403 };
                assert_eq!(answer.status, wanted, "{method} {target} {at}");
                // Browsers ask their user then.
                let challenge = answer.header("www-authenticate").is_some_and(|it| it.starts_with("Basic realm="));
                assert_eq!(challenge, at == 0);
            }
        }
    }
    for wrong in ["", "x", &tokens.read[..tokens.read.len() - 1], &tokens.admin.to_uppercase()] {
        let answer = bearer(server.request("GET", "/version"), wrong).send();
        answer.assert_refused(401);
    }
}

#[test]
fn reads_and_metrics_can_be_opened() {
    let tokens = Tokens::new();
    let server = tokens.server().env("ACCESS_PUBLIC_READ", true).env("ACCESS_METRICS", "read-only").start();
    server.request("GET", "/version").send().assert_status(200);
    server.request("GET", "/list/").send().assert_status(200);
    server.request("GET", "/files/none").send().assert_refused(404);
    server.request("PUT", &format!("/files/x?{DATE}")).body("x").send().assert_refused(401);
    server.raw_request("GET", "/metrics").send().assert_refused(401);
    bearer(server.raw_request("GET", "/metrics"), &tokens.read).send().assert_status(200);
    bearer(server.raw_request("GET", "/api/stats"), &tokens.read).send().assert_refused(403);
    drop(server);
    let server = tokens.server().env("ACCESS_METRICS", "everybody").start();
    server.raw_request("GET", "/metrics").send().assert_status(200);
    server.raw_request("GET", "/metrics/json").send().assert_status(200);
    server.raw_request("GET", "/api/stats").send().assert_refused(401);
}

/// The Python API, every call of it, and the shell command: with the token in the URL.
#[test]
fn the_real_client_works_with_a_token_in_its_url() {
    let tokens = Tokens::new();
    let server = tokens.server().start();
    let url = server.url_with(&tokens.write);
    run_script("api.py", &[&url]);

    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("local");
    fs::write(&local, "from the shell\n").unwrap();
    run_shell(&url, &["put", local.to_str().unwrap(), "/shell/file"]);
    let reading = server.url_with(&tokens.read);
    assert!(run_shell(&reading, &["cat", "/shell/file"]).ends_with("from the shell\n"));
    let back = folder.path().join("back");
    run_shell(&reading, &["get", "/shell/file", back.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(back).unwrap(), "from the shell\n");
    assert!(run_shell(&reading, &["version", "/shell/file"]).contains(|c: char| c.is_ascii_digit()));
    let is_there = || bearer(server.request("HEAD", "/files/shell/file"), &tokens.read).send().status == 200;
    // The client deletes as of its own clock's second.
    eventually("the file is deleted", || {
        run_shell(&url, &["rm", "/shell/file"]);
        (!is_there()).then_some(())
    });
}

#[test]
fn a_refusal_comes_before_the_body_and_leaves_the_connection_in_order() {
    let tokens = Tokens::new();
    let server = tokens.server().start();
    let put = || server.request("PUT", &format!("/files/x?{DATE}"));

    // Of a gigabyte not one byte is sent.
    let mut connection = server.connect();
    let head = format!("PUT /ft/files/x?{DATE} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1 << 30);
    connection.write(head.as_bytes());
    connection.response(false).unwrap().assert_refused(401);

    // Who sends everything first gets the answer nevertheless.
    put().body(Noise::bytes(1, 16 << 20)).send().assert_refused(401);
    bearer(put(), &tokens.read).chunks(&Noise::bytes(2, 4 << 20), 100_000).send().assert_refused(403);

    // The body of a refused request is not taken for the next request.
    let mut connection = server.connect();
    let smuggled = "DELETE /ft/files/x HTTP/1.1\r\nHost: x\r\n\r\n";
    let _ = put().body(smuggled).send_on(&mut connection).assert_refused(401);
    if let Ok(answer) = bearer(server.request("GET", "/version"), &tokens.read).try_send_on(&mut connection) {
        answer.assert_status(200);
    }
    assert!(bearer(server.request("GET", "/list/"), &tokens.read).send().text().is_empty());
}

#[test]
fn a_bad_file_is_refused_at_start() {
    let tokens = Tokens::new();
    let good = fs::read_to_string(&tokens.file).unwrap();
    for (text, reason) in [
        (format!("{good}judge root sha256:{}\n", "0".repeat(64)), "line 4"),
        (format!("{good}judge admin {}\n", tokens.admin), "line 4"),
        ("# nobody\n".to_owned(), "no token"),
    ] {
        fs::write(&tokens.file, text).unwrap();
        let log = tokens.server().prepare().fails_to_start();
        assert!(log.contains(reason) && log.contains("access tokens"), "{log}");
        assert!(!log.contains(&tokens.admin));
    }
    fs::remove_file(&tokens.file).unwrap();
    assert!(tokens.server().prepare().fails_to_start().contains("cannot read it"));
}

#[test]
fn tokens_are_read_again_on_sighup_and_a_bad_file_changes_nothing() {
    let tokens = Tokens::new();
    let server = tokens.server().start();
    let status = |token: &str| bearer(server.request("GET", "/version"), token).send().status;
    let good = fs::read_to_string(&tokens.file).unwrap();

    fs::write(&tokens.file, "nonsense\n").unwrap();
    server.signal(Signal::HUP);
    eventually("it is told", || server.log().contains("the old tokens stay").then_some(()));
    assert!(server.log().contains("line 1"));
    assert_eq!(status(&tokens.read), 200);

    fs::write(&tokens.file, good).unwrap();
    let made = server.run(&["token", "new", "--role", "admin", "--file", tokens.file.to_str().unwrap()]);
    let newer = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
    assert_eq!(status(&newer), 401);
    server.signal(Signal::HUP);
    eventually("the new token works", || (status(&newer) == 200).then_some(()));
    // What is taken away is no token any more.
    let text = fs::read_to_string(&tokens.file).unwrap();
    let rest: String =
        text.lines().filter(|line| !line.starts_with("read-only ")).map(|line| line.to_owned() + "\n").collect();
    fs::write(&tokens.file, rest).unwrap();
    server.signal(Signal::HUP);
    eventually("the old token does not work", || (status(&tokens.read) == 401).then_some(()));
}

#[test]
fn who_fails_too_often_is_told_to_wait_and_a_good_token_is_not() {
    let tokens = Tokens::new();
    let limited = tokens.server().env("ACCESS_FAILURES_PER_MINUTE", 3);
    let server = limited.env("TRUSTED_PROXIES", "127.0.0.0/8").start();
    let ask = |token: &str, client: &str| {
        bearer(server.request("GET", "/version"), token).header("X-Forwarded-For", client).send()
    };
    for _ in 0..3 {
        ask("wrong", "198.51.100.1").assert_refused(401);
    }
    let answer = eventually("it has failed too often", || {
        Some(ask("wrong", "198.51.100.1")).filter(|answer| answer.status == 429)
    });
    answer.assert_refused(429);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    // What the client itself wrote into the header stands before what the proxy added.
    assert_eq!(ask("wrong", "192.0.2.9, 198.51.100.1").status, 429);
    ask(&tokens.read, "198.51.100.1").assert_status(200);
    ask("wrong", "198.51.100.2").assert_refused(401);
    assert!(server.log().contains("too many wrong tokens address=198.51.100.1"));
}

#[test]
fn commands_that_ask_a_server_show_a_token() {
    let tokens = Tokens::new();
    let server = tokens.server().start();
    let run = |arguments: &[&str], token: Option<(&str, &str)>| {
        let mut command = server.command(arguments);
        command.env("LISTEN_PORT", server.address().port().to_string()).envs(token);
        command.output().unwrap()
    };
    assert!(run(&["healthcheck"], None).status.success());
    assert!(run(&["healthcheck", "--ready"], None).status.success());
    for token in [None, Some(("ADMIN_TOKEN", tokens.read.as_str()))] {
        let refused = run(&["stats"], token);
        assert_eq!(refused.status.code(), Some(1));
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("ADMIN_TOKEN") && !told.contains(&tokens.read), "{told}");
        assert!(told.lines().count() == 1 && !told.contains("\\n"), "{told}");
    }
    assert!(run(&["stats", "--json"], Some(("ADMIN_TOKEN", &tokens.admin))).status.success());
    let url = format!("http://{}", server.address());
    assert!(run(&["stats", "--url", &url], Some(("ADMIN_TOKEN", &tokens.admin))).status.success());
    let file = tokens.file.with_file_name("admin");
    fs::write(&file, format!("{}\n", tokens.admin)).unwrap();
    assert!(run(&["stats"], Some(("ADMIN_TOKEN_FILE", file.to_str().unwrap()))).status.success());

    let listed = server.run(&["token", "list"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(text, "read-only   read-only\nread-write  read-write\nadmin       admin\n");
    assert_eq!(fs::metadata(&tokens.file).unwrap().permissions().mode() & 0o777, 0o600);
    // Without a file the line is printed, too.
    let made = server.run(&["token", "new", "--role", "admin", "--name", "ci"]);
    let lines: Vec<String> = String::from_utf8(made.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("s3dedup_") && lines[1].starts_with("ci admin sha256:"), "{lines:?}");
    assert_eq!(server.run(&["token", "new", "--role", "root"]).status.code(), Some(2));
    let twice =
        server.run(&["token", "new", "--role", "admin", "--name", "admin", "--file", tokens.file.to_str().unwrap()]);
    assert_eq!(twice.status.code(), Some(1));
}

#[test]
fn no_token_is_told_by_logs_pages_or_configuration() {
    let tokens = Tokens::new();
    let server = tokens.server().env("ADMIN_TOKEN", &tokens.admin).env("LOG_LEVEL", "trace").start();
    let wrong = "s3dedup_wrongwrongwrong";
    bearer(server.request("GET", "/version"), &tokens.read).send().assert_status(200);
    bearer(server.request("GET", "/files/none"), &tokens.read).send().assert_refused(404);
    bearer(server.request("GET", "/version"), wrong).send().assert_refused(401);
    bearer(server.request("DELETE", "/files/x"), &tokens.read).send().assert_refused(403);
    let digests = fs::read_to_string(&tokens.file).unwrap();
    let digests: Vec<&str> = digests.lines().filter_map(|line| line.split("sha256:").nth(1)).collect();
    let mut told = server.log();
    for target in ["/api/stats", "/api/actors", "/api/instances", "/metrics"] {
        told += bearer(server.raw_request("GET", target), &tokens.admin).send().assert_status(200).text();
    }
    told += &String::from_utf8(server.run(&["check-config"]).stdout).unwrap();
    told += &String::from_utf8(server.run(&["check-config", "--json"]).stdout).unwrap();
    told += &server.log();
    for secret in [&tokens.read, &tokens.write, &tokens.admin, wrong].into_iter().chain(digests) {
        assert!(!told.contains(secret), "{secret} is told");
    }
}

#[test]
fn files_are_migrated_from_a_server_that_wants_a_token() {
    let tokens = Tokens::new();
    let old = tokens.server().start();
    let put = bearer(old.request("PUT", &format!("/files/a/b?{DATE}")), &tokens.write);
    put.body("content").send().assert_status(200);
    let new = TestServer::builder().prepare();
    let migrated = new.run(&["migrate", "--filetracker-url", &old.url_with(&tokens.read)]);
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    for stream in [&migrated.stdout, &migrated.stderr] {
        assert!(!String::from_utf8_lossy(stream).contains(&tokens.read));
    }
    let mut new = new;
    new.start_again();
    assert_eq!(new.list(""), ["a/b"]);
}

#[test]
fn a_browser_shows_the_dashboard_to_who_has_a_token() {
    let tokens = Tokens::new();
    let server = tokens.server().start();
    let browser = Browser::open(1100, 900, false);
    browser.go(&format!("http://{}/ui", server.address()));
    assert_eq!(browser.value("document.querySelectorAll('script').length"), 0);
    browser.go(&format!("http://ops:{}@{}/ui#/overview", tokens.admin, server.address()));
    browser.wait_for("document.querySelector('.figures')");
    browser.wait_for("document.querySelectorAll('#state .pill').length === 3");
    assert_eq!(browser.value("document.querySelector('#trouble').hidden"), true);
    assert!(!browser.value("document.documentElement.outerHTML").to_string().contains(&tokens.admin));
}

/// Ways to write the path of a page that are not the page.
const TRICKS: [&str; 12] = [
    "//api/stats",
    "/api//stats",
    "/api/stats/",
    "/%61pi/stats",
    "/api%2fstats",
    "/ft/../api/stats",
    "/./api/stats",
    "/API/stats",
    "/metrics/",
    "//metrics",
    "/ui/../metrics",
    "/ft//..//metrics",
];

#[test]
fn odd_paths_lead_past_no_guard() {
    let tokens = Tokens::new();
    let server = tokens.server().env("ACCESS_PUBLIC_READ", true).start();
    let absolute = format!("http://{}/api/stats", server.address());
    for target in TRICKS.into_iter().chain([absolute.as_str(), "/api/stats?x=/ft/version", "/metrics?/ft/version"]) {
        let answer = server.raw_request("GET", target).send();
        assert!(matches!(answer.status, 400 | 401 | 404), "{target}: {answer:?}");
    }
    for target in ["/ft/../ft/files/x", "//ft//files//x", "/%66t/files/x", "/ft/files/%2e%2e/x"] {
        let answer = server.raw_request("PUT", &format!("{target}?{DATE}")).body("x").send();
        answer.assert_refused(401);
    }
}

#[test]
fn pages_can_have_a_listener_of_their_own() {
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut server = TestServer::builder().env("ADMIN_LISTEN", admin).start();
    upload(&server, "x", 0, b"content").send().assert_status(200);
    for target in ["/metrics", "/metrics/json", "/api/stats", "/api/actors", "/ui", "/ui/", "/ui/app.js"] {
        server.raw_request("GET", target).send().assert_refused(404);
        Request::new(admin, "GET", target).send().assert_status(200);
        // Whatever the client says it wants to reach.
        let mut connection = server.connect();
        connection
            .write(format!("GET {target} HTTP/1.1\r\nHost: {admin}\r\nX-Forwarded-Host: {admin}\r\n\r\n").as_bytes());
        connection.response(false).unwrap().assert_refused(404);
    }
    let absolute = format!("http://{admin}/api/stats");
    for target in TRICKS.into_iter().chain([absolute.as_str()]) {
        assert!(matches!(server.raw_request("GET", target).send().status, 400 | 404), "{target}");
    }
    // A file can be had where the dashboard is, by the link in it.
    let download = "/api/download?name=x";
    let answer = Request::new(admin, "GET", download).header("Accept-Encoding", "identity").send();
    assert_eq!(answer.assert_status(200).body, b"content");
    let head = Request::new(admin, "HEAD", download).send();
    assert_eq!((head.assert_status(200).header("logical-size"), head.body.len()), (Some("7"), 0));
    Request::new(admin, "GET", "/api/download?name=none").send().assert_refused(404);
    Request::new(admin, "GET", "/api/download?name=a/../x").send().assert_refused(400);
    Request::new(admin, "DELETE", download).send().assert_refused(405);
    server.raw_request("GET", download).send().assert_refused(404);
    for target in ["/ft/version", "/ft/files/x", "/ft/list/", "/"] {
        Request::new(admin, "GET", target).send().assert_refused(404);
    }
    Request::new(admin, "PUT", &format!("/ft/files/y?{DATE}")).body("y").send().assert_refused(404);
    for target in ["/health", "/ready"] {
        server.raw_request("GET", target).send().assert_status(200);
        Request::new(admin, "GET", target).send().assert_status(200);
    }
    let stats = server.command(&["stats"]).env("LISTEN_PORT", server.address().port().to_string()).output().unwrap();
    assert!(stats.status.success(), "{}", String::from_utf8_lossy(&stats.stderr));
    server.stop();
    assert!(Request::new(admin, "GET", "/health").try_send().is_err());
}

#[test]
fn little_is_read_of_what_strangers_send() {
    let tokens = Tokens::new();
    let server = tokens.server().start();
    // They wait for nothing and send without end. Each is told, and then gets closed.
    let mut connections: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for connection in &mut connections {
        let put = format!("PUT /ft/files/x?{DATE} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
        connection.write(put.as_bytes());
    }
    for connection in &mut connections {
        connection.response(false).unwrap().assert_refused(401);
    }
    eventually("all are closed", || {
        connections.retain_mut(|connection| !connection.answers_within(Duration::from_millis(10)));
        connections.is_empty().then_some(())
    });
    bearer(server.request("GET", "/list/"), &tokens.read).send().assert_status(200);
}
