//! The dashboard in a real browser.

use serde_json::json;

use crate::browser::Browser;
use crate::support::s3::S3InProcess;
use crate::support::{Noise, TestServer, eventually, sha256, upload};

/// Names that would be trouble as markup, as addresses or to the eye, as they are sent and as they are shown.
const HOSTILE: [(&str, &str); 4] = [
    ("%3Cscript%3Ewindow.bad=1%3C%2Fscript%3E.txt", "<script>window.bad=1</script>.txt"),
    ("%3Cimg%20src=x%20onerror=%22window.bad=1%22%3E", "<img src=x onerror=\"window.bad=1\">"),
    ("%C4%85/100%2525%20%23%3F%26.txt", "ą/100%25 #?&.txt"),
    ("%E2%80%AEgnp.exe", "⟨U+202E⟩gnp.exe"),
];
// Keys as WebDriver writes them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const PAGES: [&str; 4] = ["overview", "files", "shared", "inside"];

fn page(server: &TestServer, page: &str) -> String {
    format!("http://{}/ui#/{page}", server.address())
}

fn fill(server: &TestServer) {
    for number in 0..60_u32 {
        let content = Noise::bytes(u64::from(number % 20), 1000);
        upload(server, &format!("many/{number:03}"), 0, &content).send().assert_status(200);
    }
    for (sent, _) in HOSTILE {
        upload(server, sent, 0, b"hostile").send().assert_status(200);
    }
}

/// Nothing was kept from running or loading, and no name has become anything but text.
#[track_caller]
fn assert_well(browser: &Browser) {
    assert_eq!(browser.complaints(), [""; 0]);
    assert_eq!(browser.value("window.bad ?? 0"), 0);
    assert_eq!(browser.value("document.querySelectorAll('main script, main img, main iframe').length"), 0);
}

#[test]
fn every_page_shows_in_light_in_dark_and_on_a_small_screen() {
    let server = TestServer::builder().env("INSTANCE_ID", "files1").start();
    fill(&server);
    for (name, width, is_dark) in [("light", 1280, false), ("dark", 1280, true), ("small", 360, false)] {
        let browser = Browser::open(width, 900, is_dark);
        for (at, shown) in PAGES.iter().zip(["Files per content", "many/", "Saved by sharing", "guardian"]) {
            browser.go(&page(&server, at));
            browser.wait_for(&format!("document.querySelector('main')?.innerText.includes({})", json!(shown)));
            browser.wait_for("document.querySelectorAll('#state .pill').length === 3");
            assert_eq!(browser.value("document.querySelectorAll('#state .pill.bad').length"), 0);
            let over = browser.value("document.documentElement.scrollWidth - window.innerWidth");
            assert!(over.as_i64().unwrap() <= 0, "{at} is wider than a screen of {width} by {over}");
            browser.picture(&format!("{at}-{name}"));
            assert_well(&browser);
        }
        assert_eq!(browser.value("document.documentElement.dataset.theme"), if is_dark { "dark" } else { "light" });
        assert_eq!(browser.value("document.querySelector('#trouble').hidden"), true);
        browser.go(&page(&server, "overview"));
        browser.wait_for("document.querySelector('.figures')?.innerText.includes('64')");
        browser.wait_for("document.querySelector('#instance').textContent.includes('files1')");
    }
}

#[test]
fn files_are_found_turned_over_and_downloaded_by_keyboard_and_mouse() {
    let server = TestServer::start();
    fill(&server);
    let browser = Browser::open(1100, 900, false);
    browser.go(&page(&server, "overview"));
    browser.wait_for("document.querySelector('.figures')");
    browser.press("t");
    browser.press("t");
    assert_eq!(browser.value("document.documentElement.dataset.theme"), "dark");
    browser.press("/");
    browser.wait_for("location.hash === '#/files' && document.activeElement.id === 'prefix'");
    browser.wait_for("document.querySelectorAll('tbody tr').length === 50");
    browser.click(".pager button:last-of-type");
    browser.wait_for("document.querySelectorAll('tbody tr').length === 14");
    assert_eq!(browser.value("document.querySelector('.pager button:last-of-type').disabled"), true);
    for (_, shown) in HOSTILE {
        let text = "[...document.querySelectorAll('td.name')].map((it) => it.textContent)";
        // The others are on the first page.
        if shown > "many" {
            browser.wait_for(&format!("{text}.includes({})", json!(shown)));
        }
    }
    browser.click(".pager button:first-of-type");
    browser.wait_for("document.querySelectorAll('tbody tr').length === 50");
    assert_well(&browser);

    browser.click("#prefix");
    browser.press("many/05");
    browser.wait_for("document.querySelectorAll('tbody tr').length === 10");
    browser.click("tbody tr td.name a:last-of-type");
    browser.wait_for("document.querySelector('aside:not([hidden]) .download')");
    let digest = sha256(&Noise::bytes(50 % 20, 1000));
    browser.wait_for(&format!("document.querySelector('aside')?.innerText.includes({})", json!(digest)));
    browser.wait_for("document.querySelector('aside')?.innerText.includes('Shared with 2')");
    let size = "fetch(document.querySelector('.download').href).then((it) => it.headers.get('Logical-Size'))";
    assert_eq!(browser.value(size), "1000");
    browser.picture("details");

    for (sent, shown) in HOSTILE {
        browser.go(&page(&server, &format!("files?name={}", sent.replace("%2F", "/"))));
        let heading = format!("document.querySelector('aside h2')?.textContent === {}", json!(shown));
        browser.wait_for(&heading);
        assert_eq!(browser.value(size), "7", "{shown}");
        assert_well(&browser);
    }
    browser.go(&page(&server, "shared"));
    browser.click("tbody tr a.mono");
    browser.wait_for("document.querySelectorAll('aside:not([hidden]) ul.names li').length === 4");
    assert_well(&browser);
}

/// What has the focus, and what of the page's text is selected.
const FOCUSED: &str = "document.activeElement.textContent";
const SELECTED: &str = "getSelection().toString()";

#[test]
fn a_page_that_is_asked_for_again_keeps_the_focus_and_what_is_selected() {
    let server = TestServer::start();
    fill(&server);
    let browser = Browser::open(1100, 900, false);
    browser.go(&page(&server, "files?prefix=many/&name=many/007"));
    browser.wait_for("document.querySelector('aside:not([hidden]) code')");
    browser.value("document.querySelectorAll('td.name a:last-of-type')[30].focus()");
    browser.value("getSelection().selectAllChildren(document.querySelector('aside code'))");
    let (focused, selected) = (browser.value(FOCUSED), browser.value(SELECTED));
    assert_eq!((&focused, &selected), (&json!("030"), &json!(sha256(&Noise::bytes(7, 1000)))));
    browser.value("window.asked = document.querySelector('#updated').textContent");
    browser.wait_for("document.querySelector('#updated').textContent !== window.asked");
    assert_eq!((browser.value(FOCUSED), browser.value(SELECTED)), (focused.clone(), selected));
    // One more row, above all others.
    upload(&server, "many/!first", 0, b"new").send().assert_status(200);
    browser.wait_for("document.querySelector('td.name').textContent === 'many/!first'");
    assert_eq!(browser.value(FOCUSED), focused);
    assert_well(&browser);
}

#[test]
fn details_are_opened_read_and_closed_by_keyboard() {
    let server = TestServer::start();
    fill(&server);
    let browser = Browser::open(400, 800, false);
    for (at, link, inside) in [
        ("files?prefix=many/", "td.name a:last-of-type", "document.activeElement.matches('aside .download')"),
        ("shared", "a.mono", "document.activeElement.matches('aside ul.names a')"),
    ] {
        browser.go(&page(&server, at));
        browser.wait_for(&format!("document.querySelectorAll('{link}')[15]"));
        browser.value(&format!("document.querySelectorAll('{link}')[15].focus()"));
        let focused = browser.value(FOCUSED);
        browser.press(ENTER);
        browser.wait_for("document.activeElement.matches('aside:not([hidden])')");
        browser.wait_for("document.querySelector('aside h2').getBoundingClientRect().top >= 0");
        browser.press(TAB);
        browser.press(TAB);
        assert_eq!(browser.value(inside), true, "{at}");
        browser.press(ESCAPE);
        browser.wait_for(&format!("document.querySelector('aside').hidden && {FOCUSED} === {focused}"));
        assert_well(&browser);
    }
}

#[test]
fn keys_turn_pages_wherever_somebody_is() {
    let server = TestServer::start();
    fill(&server);
    let browser = Browser::open(1100, 900, false);
    browser.go(&page(&server, "overview"));
    browser.wait_for("document.querySelector('.figures')");
    for (key, at) in
        [("2", "files"), ("3", "shared"), ("2", "files"), ("4", "inside"), ("1", "overview"), ("2", "files")]
    {
        browser.press(key);
        browser.wait_for(&format!("location.hash === '#/{at}' && document.title.toLowerCase().startsWith('{at}')"));
    }
    browser.value("document.querySelector('.skip').focus()");
    browser.press(ENTER);
    browser.wait_for("document.activeElement.id === 'main'");
    assert_eq!(browser.value("location.hash"), "#/files", "a skip leads to no other page");
}

#[test]
fn an_outage_is_seen_and_its_end_too() {
    let mut s3 = S3InProcess::start();
    let mut server = TestServer::builder().s3(&s3.access).start();
    let browser = Browser::open(1100, 700, false);
    browser.go(&page(&server, "overview"));
    browser.wait_for("document.querySelectorAll('#state .pill:not(.bad)').length === 3");
    s3.stop();
    browser.wait_for("document.querySelector('#state .pill.bad')?.innerText.includes('contents:')");
    browser.picture("outage");
    s3.start_again();
    browser.wait_for("document.querySelectorAll('#state .pill:not(.bad)').length === 3");
    server.stop();
    browser.wait_for("!document.querySelector('#trouble').hidden");
    assert_eq!(browser.value("document.querySelector('.figures') !== null"), true, "what was seen stays");
    browser.picture("gone");
    server.start_again();
    browser.wait_for("document.querySelector('#trouble').hidden");
}

#[test]
fn pages_let_in_nothing_from_elsewhere() {
    let server = TestServer::start();
    for target in ["/ui", "/ui/", "/ui/app.js", "/ui/style.css", "/ui/icon.svg"] {
        let answer = server.raw_request("GET", target).send();
        let policy = answer.assert_status(200).header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains('*'));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    server.raw_request("GET", "/ui/nothing.js").send().assert_refused(404);
    server.raw_request("POST", "/ui").send().assert_refused(405);
}

#[test]
fn names_and_contents_are_told_in_pages() {
    let server = TestServer::start();
    fill(&server);
    let ask = |target: &str| {
        let answer = server.raw_request("GET", target).send();
        serde_json::from_slice::<serde_json::Value>(&answer.assert_status(200).body).unwrap()
    };
    let first = ask("/api/files?prefix=many%2F&rows=40");
    assert_eq!((first["files"].as_array().unwrap().len(), &first["next"]), (40, &json!("many/039")));
    let rest = ask("/api/files?prefix=many%2F&rows=40&after=many%2F039");
    assert_eq!((rest["files"].as_array().unwrap().len(), &rest["next"]), (20, &json!(null)));
    let file = ask("/api/file?name=many%2F007");
    assert_eq!(file["held_by"], json!(["many/007", "many/027", "many/047"]));
    assert_eq!((&file["more"], &file["prefix"]), (&json!(false), &json!("/ft")));
    let digest = sha256(&Noise::bytes(7, 1000));
    assert_eq!((&file["digest"], &file["logical_size"]), (&json!(digest), &json!(1000)));
    assert_eq!(ask(&format!("/api/content?digest={digest}"))["held_by"], file["held_by"]);
    let shared = eventually("the most shared", || Some(ask("/api/shared")));
    assert_eq!((&shared["contents"][0]["names"], shared["contents"].as_array().unwrap().len()), (&json!(4), 21));
    server.raw_request("GET", "/api/file?name=no").send().assert_refused(404);
    for wrong in ["/api/file", "/api/file?name=a/../b", "/api/content?digest=zz", "/api/files?rows=x"] {
        server.raw_request("GET", wrong).send().assert_refused(400);
    }
}
