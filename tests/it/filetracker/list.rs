use crate::support::{Connection, TestServer, date, upload};

const FILES: [(&str, u32); 6] = [("a", 0), ("d/x", 1), ("d/y/z", 2), ("d/y", 3), ("dd/x", 4), ("e f/ż%+", 5)];

fn with_files() -> TestServer {
    let server = TestServer::start();
    for (path, offset) in FILES {
        let encoded = path.replace('%', "%25").replace(' ', "%20").replace('ż', "%C5%BC");
        upload(&server, &encoded, offset, path.as_bytes()).send().assert_status(200);
    }
    server
}

#[test]
fn names_are_relative_to_the_listed_directory() {
    let server = with_files();
    for (target, names) in [
        ("/list", vec!["a", "d/x", "d/y", "d/y/z", "dd/x", "e f/ż%+"]),
        ("/list/", vec!["a", "d/x", "d/y", "d/y/z", "dd/x", "e f/ż%+"]),
        ("//list//", vec!["a", "d/x", "d/y", "d/y/z", "dd/x", "e f/ż%+"]),
        ("/list/d", vec!["x", "y", "y/z"]),
        ("/list/d/", vec!["x", "y", "y/z"]),
        ("/list/d/y", vec!["z"]),
        ("/list/e%20f", vec!["ż%+"]),
    ] {
        let answer = server.request("GET", target).send();
        assert_eq!(answer.assert_status(200).lines(), names, "{target}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
}

#[test]
fn the_cutoff_is_inclusive() {
    let server = with_files();
    for (offset, names) in [(0, vec!["a"]), (1, vec!["a", "d/x"]), (3, vec!["a", "d/x", "d/y", "d/y/z"])] {
        let answer = server.request("GET", &format!("/list?last_modified={}", date(offset))).send();
        assert_eq!(answer.assert_status(200).lines(), names);
    }
    let answer = server.request("GET", "/list?last_modified=").send();
    assert_eq!(answer.assert_status(200).lines().len(), FILES.len());
}

#[test]
fn versions_of_the_future_are_hidden_until_a_later_date_is_given() {
    let server = TestServer::start();
    let target = "/files/x?last_modified=Fri,+31+Dec+9999+23:59:59+GMT";
    server.request("PUT", target).body("content").send().assert_status(200);
    assert_eq!(server.request("GET", "/list").send().assert_status(200).text(), "");
    assert!(server.list("").is_empty(), "the helper's date is a day earlier");
    let all = server.request("GET", "/list?last_modified=Fri,+31+Dec+9999+23:59:59+GMT").send();
    assert_eq!(all.assert_status(200).lines(), ["x"]);
}

#[test]
fn an_empty_store_lists_nothing() {
    let server = TestServer::start();
    assert_eq!(server.request("GET", "/list").send().assert_status(200).text(), "");
    assert_eq!(server.request("GET", "/list/").send().assert_status(200).text(), "");
}

#[test]
fn files_and_unknown_directories_are_400() {
    let server = with_files();
    for target in ["/list/a", "/list/d/x", "/list/nothing", "/list/d/y/z", "/list/dd/x", "/list/D"] {
        server.request("GET", target).send().assert_refused(400);
    }
}

/// No directories exist; one ends with its last file, which clients take as well.
#[test]
fn a_directory_is_there_while_any_version_is_below_it() {
    let server = TestServer::start();
    upload(&server, "d/x", 10, b"content").send().assert_status(200);
    let early = server.request("GET", &format!("/list/d?last_modified={}", date(9))).send();
    assert_eq!(early.assert_status(200).text(), "");
    server.request("DELETE", &format!("/files/d/x?last_modified={}", date(10))).send().assert_status(200);
    server.request("GET", "/list/d").send().assert_refused(400);
    assert_eq!(server.request("GET", "/list").send().assert_status(200).text(), "");
}

#[test]
fn head_works_and_leaves_the_connection_usable() {
    let server = with_files();
    let mut connection = server.connect();
    for _ in 0..2 {
        let head = server.request("HEAD", "/list").send_on(&mut connection);
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    }
    assert_eq!(server.request("GET", "/list/d/y").send_on(&mut connection).text(), "z\n");
}

#[test]
fn a_long_listing_is_exact() {
    let server = TestServer::start();
    let mut connection = Connection::open(server.address()).unwrap();
    let mut expected: Vec<String> = (0..3000).map(|number| format!("d{}/file{number:05}", number % 7)).collect();
    for name in &expected {
        upload(&server, name, 0, b"same").send_on(&mut connection).assert_status(200);
    }
    expected.sort();
    assert_eq!(server.list(""), expected);
    let of_one: Vec<&str> = expected.iter().filter_map(|name| name.strip_prefix("d3/")).collect();
    assert_eq!(server.list("d3"), of_one);
}
