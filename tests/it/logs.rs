//! What the server writes down: lines that can be read by machines, followed from request to request, and hold no secret.
//! What goes wrong with the log file does not go wrong with the service.

use std::path::Path;
use std::time::Duration;

use s3dedup::config::table::SETTINGS;
use s3dedup_actors::testkit::postgres::{PASSWORD, PostgresServer};
use serde_json::Value;

use crate::support::s3::S3InProcess;
use crate::support::server::{Builder, free_port};
use crate::support::{Noise, Request, TestServer, date, eventually, upload};

/// The objects that lines are, all of which must be such.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn file(path: &Path) -> Vec<Value> {
    // A line that is just being written has no end yet.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    objects(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
}

fn with_id(request: Request, id: &str) -> Request {
    request.header("X-Request-Id", id)
}

/// Targets of the lines of a request.
fn targets<'a>(lines: &'a [Value], id: &str) -> Vec<&'a str> {
    lines.iter().filter(|line| line["request_id"] == id).map(|line| line["target"].as_str().unwrap()).collect()
}

/// The lines of the access log.
fn requests(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["target"] == "s3dedup::access").collect()
}

fn json(builder: Builder) -> Builder {
    builder.env("LOG_JSON", true)
}

#[test]
fn every_answer_has_an_id_and_a_plain_one_is_kept() {
    let server = TestServer::start();
    let id = |target: &str, given: Option<&str>| {
        let request = server.raw_request("GET", target);
        let request = given.into_iter().fold(request, with_id);
        request.send().header("x-request-id").expect("an id").to_owned()
    };
    for target in
        ["/ft/version", "/ft/list", "/ft/files/none", "/health", "/ready", "/metrics", "/ui", "/nothing", "/ft/%"]
    {
        assert_eq!(id(target, Some("a-B_9.z")), "a-B_9.z", "{target}");
        let (one, other) = (id(target, None), id(target, None));
        assert!(one != other && one.len() == 16, "{target} {one} {other}");
        for odd in ["a b", "<script>", "", &"x".repeat(65), "a,b"] {
            assert_eq!(id(target, Some(odd)).len(), 16, "{target} {odd}");
        }
    }
    let twice = with_id(with_id(server.request("GET", "/version"), "a"), "a").send();
    assert_eq!(twice.header("x-request-id").unwrap().len(), 16);
}

#[test]
fn a_failure_tells_the_id_as_text_or_as_json() {
    let server = TestServer::start();
    let missing = || with_id(server.request("GET", "/files/none"), "q1");
    assert_eq!(missing().send().assert_refused(404).text(), "no such file\nrequest_id: q1\n");
    let answer = missing().header("Accept", "application/json").send();
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")));
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told, serde_json::json!({ "error": "no such file", "request_id": "q1" }));
    assert_eq!(answer.header("x-exception"), Some("no such file"));
}

#[test]
fn a_request_can_be_followed_through_the_actors() {
    let server = json(TestServer::builder()).env("LOG_LEVEL", "debug").start();
    with_id(upload(&server, "a", 0, b"content"), "put-1").send().assert_status(200);
    with_id(server.request("GET", "/files/none"), "get-1").send().assert_refused(404);
    let lines = objects(&server.log());
    let seen = targets(&lines, "put-1");
    for part in ["s3dedup::http", "s3dedup_actors::lock", "s3dedup_actors::upload"] {
        assert!(seen.iter().any(|target| target.starts_with(part)), "{part} {seen:?}");
    }
    let refused =
        lines.iter().find(|line| line["request_id"] == "get-1" && line["message"] == "request refused").unwrap();
    assert_eq!((&refused["status"], &refused["path"]), (&404.into(), &"/ft/files/none".into()));
    for line in &lines {
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.len() == "2026-11-21T08:27:41.843Z".len() && time.ends_with('Z'), "{line}");
        for member in ["level", "target", "message"] {
            assert!(line[member].is_string(), "{line}");
        }
    }
    // What nobody asked for is nobody's.
    assert!(lines.iter().any(|line| line["request_id"].is_null()));
}

#[test]
fn the_lines_of_people_carry_the_id_too() {
    let server = TestServer::builder().env("LOG_LEVEL", "debug").start();
    with_id(server.request("GET", "/files/a%20b?last_modified=x"), "get-1").send().assert_refused(404);
    let log = server.log();
    let line = log.lines().find(|line| line.contains("request refused")).unwrap();
    let wanted = "s3dedup::http::error request refused method=GET path=/ft/files/a%20b status=404 reason=\"no such file\" request_id=get-1";
    assert!(line.ends_with(wanted), "{line}");
}

#[test]
fn retries_of_a_store_that_is_away_are_told_of_their_request() {
    let mut s3 = S3InProcess::start();
    let server = json(TestServer::builder().s3(&s3.access)).env("LOG_LEVEL", "debug").start();
    upload(&server, "there", 0, &Noise::bytes(1, 200_000)).send().assert_status(200);
    s3.stop();
    with_id(upload(&server, "new", 0, b"new"), "put-1").send().assert_refused(503);
    with_id(server.request("GET", "/files/there"), "get-1").send().assert_refused(503);
    let lines = objects(&server.log());
    for id in ["put-1", "get-1"] {
        let seen = targets(&lines, id);
        assert!(seen.iter().any(|target| target.starts_with("s3dedup_actors::store::blob")), "{id} {seen:?}");
        let failed = lines.iter().find(|line| line["request_id"] == id && line["message"] == "request failed").unwrap();
        assert_eq!((&failed["status"], &failed["level"]), (&503.into(), &"warn".into()));
        assert!(failed["cause"].as_str().unwrap().len() > 10, "{failed}");
    }
    s3.start_again();
}

#[test]
fn what_a_database_that_is_away_costs_is_told_of_the_request() {
    let mut postgres = PostgresServer::start();
    let builder = json(TestServer::builder().postgres(&postgres, "postgres")).env("LOG_LEVEL", "debug");
    let server = builder.start();
    with_id(server.request("GET", "/files/none"), "get-1").send().assert_refused(404);
    postgres.stop();
    with_id(server.request("GET", "/files/none"), "get-2").send().assert_refused(503);
    let lines = objects(&server.log());
    let seen = targets(&lines, "get-2");
    assert!(seen.contains(&"s3dedup_actors::store::meta::postgres::database"), "{seen:?}");
    postgres.start_again();
}

#[test]
fn a_fetch_from_an_old_server_is_told_of_the_request_that_began_it() {
    let old = format!("http://127.0.0.1:{}", free_port());
    let server = json(TestServer::builder()).env("MIGRATION", "proxy").env("FILETRACKER_URL", &old);
    let server = server.env("LOG_LEVEL", "debug").start();
    with_id(server.request("GET", "/files/a"), "get-1").send().assert_refused(503);
    with_id(upload(&server, "b", 0, b"content"), "put-1").send().assert_status(200);
    eventually("it is told", || {
        let lines = objects(&server.log());
        let seen = targets(&lines, "put-1");
        // The breaker may know already that nobody is there.
        seen.iter().any(|target| target.starts_with("s3dedup_actors::")).then_some(())
    });
}

#[test]
fn the_file_has_json_while_people_read_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/s3dedup.json");
    let mut server = TestServer::builder().env("JSON_LOG_PATH", path.display()).env("LOG_LEVEL", "debug").start();
    with_id(server.request("GET", "/files/none"), "get-1").send().assert_refused(404);
    server.stop();
    let lines = file(&path);
    let log = server.log();
    assert!(log.contains("request_id=get-1") && serde_json::from_str::<Value>(log.lines().next().unwrap()).is_err());
    assert!(targets(&lines, "get-1").contains(&"s3dedup::http::error"));
    // All of it, to the last line.
    assert!(lines.last().unwrap()["message"].as_str().unwrap().starts_with("stopped "), "{lines:?}");
    let human = log.lines().filter(|line| line.starts_with("20")).count();
    assert_eq!(lines.len(), human, "{log}");
    // The next server goes on in the same file.
    server.start_again();
    server.stop();
    assert!(file(&path).len() > lines.len());
}

#[test]
fn a_log_file_that_cannot_be_written_stops_nothing_and_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    for (path, why) in [(file.join("log.json"), "File exists"), ("/dev/full".into(), "No space left")] {
        let builder = TestServer::builder().env("JSON_LOG_PATH", path.display()).env("ACCESS_LOG", true);
        let mut server = builder.env("JSON_LOG_ROTATE", "never").start();
        for round in 0..50 {
            upload(&server, "a", round % 60, format!("{round}").as_bytes()).send().assert_status(200);
        }
        std::thread::sleep(Duration::from_millis(1500));
        server.request("GET", "/files/a").send().assert_status(200);
        server.stop();
        let log = server.log();
        let told: Vec<_> = log.lines().filter(|line| line.contains("cannot be written")).collect();
        assert_eq!(told.len(), 1, "{log}");
        // Two tests may have the same device open.
        assert!(told[0].contains(why) || told[0].contains("another process"), "{told:?}");
        assert!(log.lines().filter(|line| line.contains("s3dedup::access")).count() > 50);
    }
}

#[test]
fn a_full_disk_of_the_log_file_stops_nothing_and_lines_get_in_when_there_is_room() {
    let builder = TestServer::builder().temp_bytes_max(1 << 20).env("JSON_LOG_PATH", "temp/s3dedup.json");
    let mut server = builder.env("ACCESS_LOG", true).env("JSON_LOG_ROTATE", "never").start();
    // Its own view: the folder is mounted for it alone.
    let process = format!("/proc/{}/root", server.pid().as_raw_nonzero());
    let folder = Path::new(&process).join(server.temp_dir().strip_prefix("/").unwrap());
    let filler = folder.join("filler");
    std::fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    let asked_until = |told: &str| {
        eventually(told, || {
            server.request("GET", "/files/none").send().assert_refused(404);
            server.log().contains(told).then_some(())
        });
    };
    asked_until("the log file cannot be written, the server goes on without it");
    upload(&server, "a", 0, b"content").send().assert_status(200);
    server.raw_request("GET", "/ready").send().assert_status(200);
    std::fs::remove_file(&filler).unwrap();
    asked_until("the log file is written again, lines are missing in it");
    // Nothing is left of the line that did not fit.
    let lines = file(&folder.join("s3dedup.json"));
    let told = lines.iter().find(|line| line["message"] == "the log file is written again, lines are missing in it");
    assert!(told.unwrap()["lines"].as_u64().unwrap() > 0);
    server.stop();
    let log = server.log();
    assert_eq!(log.lines().filter(|line| line.contains("cannot be written")).count(), 1, "{log}");
}

#[test]
fn a_log_file_of_limited_size_is_put_aside_and_few_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s3dedup.json");
    let builder = TestServer::builder().env("JSON_LOG_PATH", path.display()).env("ACCESS_LOG", true);
    let builder = builder.env("JSON_LOG_ROTATE", "size").env("JSON_LOG_MAX_BYTES", 1 << 16).env("JSON_LOG_KEEP", 2);
    let mut server = builder.start();
    let mut connection = server.connect();
    for _ in 0..1500 {
        server.request("GET", "/files/none").send_on(&mut connection).assert_refused(404);
    }
    server.stop();
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        sizes.push(path.metadata().unwrap().len());
        assert!(!file(&path).is_empty());
    }
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size <= 1 << 16), "{sizes:?}");
    assert!(!server.log().contains("missing"), "{}", server.log());
}

#[test]
fn the_access_log_tells_what_was_asked_and_what_came_of_it() {
    let mut server = json(TestServer::builder()).env("ACCESS_LOG", true).env("LOG_LEVEL", "warn").start();
    let content = Noise::bytes(1, 8 << 20);
    let put = upload(&server, "large", 0, &content);
    let sent = put.body_len();
    put.send().assert_status(200);
    let got = server.request("GET", "/files/large").header("X-Forwarded-For", "192.0.2.1, \"x\"").send();
    let head = server.request("HEAD", "/files/large").send();
    let id = head.header("x-request-id").unwrap().to_owned();
    server
        .request("GET", "/files/none?token=hunter2")
        .header("Authorization", "Bearer hunter2")
        .send()
        .assert_refused(404);
    // Gone in the middle.
    let mut reader = server.connect();
    reader.write(&server.request("GET", "/files/large").head());
    assert_eq!(reader.line(), "HTTP/1.1 200 OK");
    drop(reader);
    eventually("all are told", || {
        let lines = objects(&server.log());
        let told = requests(&lines);
        told.iter().any(|line| line["method"] == "GET" && line["complete"] == false).then_some(())
    });
    server.stop();
    let log = server.log();
    let lines = objects(&log);
    let told = requests(&lines);
    assert!(!log.contains("hunter2") && !format!("{told:?}").contains("last_modified"), "{log}");
    let put = told.iter().find(|line| line["method"] == "PUT").unwrap();
    assert_eq!((&put["path"], &put["status"]), (&"/ft/files/large".into(), &200.into()));
    assert_eq!((&put["bytes_in"], &put["bytes_out"]), (&sent.into(), &0.into()));
    assert!(put["duration_ms"].as_f64().unwrap() > 0.0 && put["complete"] == true, "{put}");
    assert_eq!(put["client"], "127.0.0.1");
    let get = told.iter().find(|line| !line["forwarded_for"].is_null()).unwrap();
    assert_eq!((&get["bytes_out"], &get["complete"]), (&got.body.len().into(), &true.into()));
    assert_eq!(get["forwarded_for"], "192.0.2.1, \\\"x\\\"");
    let head = told.iter().find(|line| line["method"] == "HEAD").unwrap();
    assert_eq!((&head["request_id"], &head["bytes_out"], &head["complete"]), (&id.into(), &0.into(), &true.into()));
    let missing = told.iter().find(|line| line["path"] == "/ft/files/none").unwrap();
    assert_eq!((&missing["status"], &missing["complete"]), (&404.into(), &true.into()));
}

/// A token of this name and role.
fn new_token(file: &Path, name: &str, role: &str) -> String {
    let arguments = ["token", "new", "--role", role, "--name", name, "--file", file.to_str().unwrap()];
    let made = TestServer::builder().prepare().run(&arguments);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn the_access_log_tells_whose_token_it_was_and_what_a_refusal_cost() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let (writer, reader) = (new_token(&file, "deployer", "read-write"), new_token(&file, "a-judge", "read-only"));
    let builder = json(TestServer::builder()).env("ACCESS_LOG", true).env("ACCESS_TOKENS_FILE", file.display());
    let mut server = builder.start();
    let shown = |request: Request, token: &str| request.header("Authorization", &format!("Bearer {token}"));
    let put = |id: &str| with_id(upload(&server, "a", 0, &Noise::bytes(1, 100_000)), id);
    shown(put("put-1"), &writer).send().assert_status(200);
    shown(put("put-2"), &reader).send().assert_refused(403);
    shown(put("put-3"), "hunter2").send().assert_refused(401);
    let unknown = put("put-4");
    unknown.send().assert_refused(401);
    // No answer to HEAD has a body.
    let head = with_id(server.request("HEAD", "/files/a"), "head-1").send();
    assert_eq!((head.status, head.body.len()), (401, 0));
    let target = format!("/files/a?last_modified={}", date(1));
    shown(with_id(server.request("DELETE", &target), "delete-1"), &writer).send().assert_status(200);
    server.stop();
    let log = server.log();
    for secret in [&writer, &reader, "hunter2"] {
        assert!(!log.contains(secret), "{secret} {log}");
    }
    let lines = objects(&log);
    let told = requests(&lines);
    let of = |id: &str| *told.iter().find(|line| line["request_id"] == id).unwrap_or_else(|| panic!("{id} {log}"));
    assert_eq!((&of("put-1")["token"], &of("delete-1")["token"]), (&"deployer".into(), &"deployer".into()));
    assert_eq!(of("put-2")["token"], "a-judge");
    for id in ["put-3", "put-4", "head-1"] {
        assert!(of(id)["token"].is_null(), "{id} {log}");
    }
    for id in ["put-1", "put-2", "put-3", "put-4"] {
        assert_eq!(of(id)["bytes_in"], unknown.body_len(), "{id} {log}");
    }
    assert_eq!((&of("head-1")["bytes_out"], &of("head-1")["complete"]), (&0.into(), &true.into()));
    assert!(of("put-4")["bytes_out"].as_u64().unwrap() > 0, "{log}");
}

#[test]
fn the_access_log_tells_the_client_that_a_trusted_proxy_names() {
    let mut server = json(TestServer::builder()).env("ACCESS_LOG", true).env("TRUSTED_PROXIES", "127.0.0.1").start();
    let ask = |id: &str, forwarded: &[&str]| {
        let request = with_id(server.request("GET", "/version"), id);
        let request = forwarded.iter().fold(request, |request, line| request.header("X-Forwarded-For", line));
        request.send().assert_status(200);
    };
    // The first line is the client's own, the last one is what the proxy added.
    ask("two", &["6.6.6.6", "192.0.2.7"]);
    ask("long", &[&"6.6.6.6, ".repeat(500), "192.0.2.8"]);
    ask("none", &[]);
    server.stop();
    let lines = objects(&server.log());
    let told = requests(&lines);
    let of = |id: &str| *told.iter().find(|line| line["request_id"] == id).unwrap();
    assert_eq!(
        (&of("two")["client"], &of("two")["forwarded_for"]),
        (&"192.0.2.7".into(), &"6.6.6.6, 192.0.2.7".into())
    );
    assert_eq!(of("long")["client"], "192.0.2.8");
    let forwarded = of("long")["forwarded_for"].as_str().unwrap();
    assert!(forwarded.starts_with('…') && forwarded.ends_with(", 192.0.2.8") && forwarded.len() < 300, "{forwarded}");
    assert_eq!((&of("none")["client"], &of("none")["forwarded_for"]), (&"127.0.0.1".into(), &Value::Null));
}

#[test]
fn a_stranger_cannot_make_long_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s3dedup.json");
    let builder = TestServer::builder().env("JSON_LOG_PATH", path.display()).env("ACCESS_LOG", true);
    let mut server = builder.env("LOG_LEVEL", "debug").start();
    let long = "x".repeat(60_000);
    with_id(server.request("GET", &format!("/files/{long}")), "get-1").send();
    with_id(server.raw_request(&long, "/ft/version"), "odd-1").send();
    let request = with_id(server.request("GET", "/version"), "get-2").header("X-Forwarded-For", &long);
    request.header("User-Agent", &long).send().assert_status(200);
    let usual = format!("/files/{}", "y".repeat(900));
    with_id(server.request("GET", &usual), "get-3").send().assert_refused(404);
    server.stop();
    let lines = file(&path);
    let told = requests(&lines);
    let of = |id: &str| *told.iter().find(|line| line["request_id"] == id).unwrap();
    let cut = of("get-1")["path"].as_str().unwrap();
    assert!(cut.starts_with("/ft/files/xxx") && cut.ends_with("x…(60010 bytes)"), "{cut}");
    assert!(of("odd-1")["method"].as_str().unwrap().ends_with("x…(60000 bytes)"));
    assert!(of("get-2")["forwarded_for"].as_str().unwrap().starts_with("…x"));
    assert_eq!(of("get-3")["path"], format!("/ft{usual}"));
    for text in [std::fs::read_to_string(&path).unwrap(), server.log()] {
        let longest = text.lines().map(str::len).max().unwrap();
        assert!(longest < 5000, "{longest}");
    }
}

#[test]
fn nobody_is_told_of_requests_without_the_access_log() {
    let mut server = json(TestServer::builder()).start();
    upload(&server, "a", 0, b"content").send().assert_status(200);
    server.stop();
    assert!(requests(&objects(&server.log())).is_empty());
}

/// Everything that is logged, at the lowest level, by a server that uses all of its secrets: none of them is there.
#[test]
fn no_secret_is_ever_logged() {
    let (postgres, mut s3) = (PostgresServer::start(), S3InProcess::start());
    let old = free_port();
    let mut secrets = vec![PASSWORD.to_owned(), s3.access.access_key.clone(), s3.access.secret_key.clone()];
    for form in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (path, tokens) = (dir.path().join("log.json"), dir.path().join("tokens"));
        let made = TestServer::builder().prepare().run(&[
            "token",
            "new",
            "--role",
            "admin",
            "--name",
            "admin",
            "--file",
            tokens.to_str().unwrap(),
        ]);
        let token = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
        assert!(made.status.success() && token.len() > 20, "{token}");
        secrets.push(token.clone());
        let known = |request: Request| request.header("Authorization", &format!("Bearer {token}"));
        let builder = TestServer::builder()
            .s3(&s3.access)
            .postgres(&postgres, "postgres")
            .env("LOCKS_TYPE", "postgres")
            .env("MIGRATION", "live")
            .env("FILETRACKER_URL", format!("http://somebody:secret-of-the-old-server@127.0.0.1:{old}"))
            .env("FALLBACK_URL", format!("http://somebody:secret-of-the-fallback@127.0.0.1:{old}"))
            .env("FALLBACK_S3_ENDPOINT", &s3.access.endpoint)
            .env("FALLBACK_S3_BUCKET", "copy")
            .env("FALLBACK_S3_ACCESS_KEY", "fallback-access-key")
            .env("FALLBACK_S3_SECRET_KEY", "fallback-secret-key")
            .env("LOG_LEVEL", "trace")
            .env("LOG_JSON", form)
            .env("JSON_LOG_PATH", path.display())
            .env("ACCESS_LOG", true)
            .env("ACCESS_TOKENS_FILE", tokens.display())
            .env("ADMIN_TOKEN", &token);
        // A secret that is new is to be used here, too.
        for setting in SETTINGS.iter().filter(|setting| setting.secret) {
            assert!(builder.has_env(setting.env), "{} is not looked for", setting.env);
        }
        let mut server = builder.start();
        for word in ["secret-of-the-old-server", "secret-of-the-fallback", "fallback-access-key", "fallback-secret-key"]
        {
            secrets.push(word.to_owned());
        }
        let target = format!("/files/a?last_modified={}&token=secret-of-a-query", date(0));
        let request = server.request("PUT", &target).header("Authorization", "Basic c2VjcmV0LW9mLWEtY2xpZW50");
        request.header("Cookie", "a=secret-of-a-cookie").body("content").send();
        let words = ["secret-of-a-query", "c2VjcmV0LW9mLWEtY2xpZW50", "secret-of-a-cookie"];
        secrets.extend(words.map(str::to_owned));
        known(upload(&server, "b", 0, &Noise::bytes(u64::from(form), 100_000))).send().assert_status(200);
        known(server.request("GET", "/files/b")).send().assert_status(200);
        known(server.request("GET", "/files/c")).send();
        known(server.request("GET", "/list")).send();
        for page in ["/metrics", "/api/actors", "/api/stats", "/api/migration", "/ready"] {
            known(server.raw_request("GET", page)).send();
        }
        s3.stop();
        known(upload(&server, "d", 0, b"while it is away")).send().assert_refused(503);
        s3.start_again();
        let commands: [&[&str]; 4] = [&["verify"], &["repair", "--dry-run"], &["check-config"], &["stats"]];
        let said = commands.map(|command| server.run(command)).map(|said| [said.stdout, said.stderr].concat());
        server.stop();
        let text = server.log() + &std::fs::read_to_string(&path).unwrap() + &String::from_utf8_lossy(&said.concat());
        // The libraries speak, and each secret had its use.
        for part in ["tokio_postgres", "reqwest", "an object is stored", "s3 request is tried again", "old server"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        for secret in &secrets {
            if let Some(line) = text.lines().find(|line| line.contains(secret.as_str())) {
                panic!("{secret:?} is in the log: {line}");
            }
        }
    }
}
