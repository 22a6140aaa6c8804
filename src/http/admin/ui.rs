//! The dashboard: files that are part of the program. They ask nothing of anybody but this server.

use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// Only from here, and nothing that stands in the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// One of the files.
#[derive(PartialEq, Eq, Debug)]
pub struct Asset {
    media_type: &'static str,
    text: &'static str,
}

/// The page itself.
pub static INDEX: Asset = Asset { media_type: HTML, text: include_str!("ui/index.html") };

/// What it is made of, by path.
pub static ASSETS: &[(&str, Asset)] = &[
    ("/ui/style.css", Asset { media_type: CSS, text: include_str!("ui/style.css") }),
    ("/ui/icon.svg", Asset { media_type: "image/svg+xml", text: include_str!("ui/icon.svg") }),
    ("/ui/app.js", Asset { media_type: SCRIPT, text: include_str!("ui/app.js") }),
    ("/ui/ask.js", Asset { media_type: SCRIPT, text: include_str!("ui/ask.js") }),
    ("/ui/chart.js", Asset { media_type: SCRIPT, text: include_str!("ui/chart.js") }),
    ("/ui/files.js", Asset { media_type: SCRIPT, text: include_str!("ui/files.js") }),
    ("/ui/format.js", Asset { media_type: SCRIPT, text: include_str!("ui/format.js") }),
    ("/ui/inside.js", Asset { media_type: SCRIPT, text: include_str!("ui/inside.js") }),
    ("/ui/overview.js", Asset { media_type: SCRIPT, text: include_str!("ui/overview.js") }),
    ("/ui/shared.js", Asset { media_type: SCRIPT, text: include_str!("ui/shared.js") }),
];

/// The file as an answer. It is asked for again each time: another version of the server has other ones.
pub fn answer(asset: &'static Asset) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, asset.media_type))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .body(asset.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_served_and_none_makes_markup_of_text() {
        let scripts = || ASSETS.iter().filter(|(_, asset)| asset.media_type == SCRIPT);
        for (path, asset) in scripts() {
            for part in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"]
            {
                let known = asset.text.replace("http://www.w3.org/2000/svg", "");
                assert!(!known.contains(part), "{path} has {part}");
            }
            for line in asset.text.lines().filter(|line| line.starts_with("import ")) {
                let from = line.split("\"./").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
                assert!(scripts().any(|(known, _)| *known == format!("/ui/{from}")), "{path}: {line}");
            }
        }
        for part in INDEX.text.split(['"', '\'']).filter(|part| part.starts_with("/ui/")) {
            assert!(ASSETS.iter().any(|(known, _)| *known == part), "{part}");
        }
        assert!(!INDEX.text.contains("<style") && !INDEX.text.contains(" style=") && !INDEX.text.contains("onclick"));
    }
}
