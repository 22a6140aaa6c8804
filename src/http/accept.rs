//! Whether a client takes gzip.

/// Whether an `Accept-Encoding` header (`None`: absent) leaves gzip possible.
///
/// Without a header, or with an empty one, gzip is sent: the old server sent it to everyone, and
/// clients of it do not always say that they take it. A header that lists codings without gzip
/// and without `*`, or that gives it a weight of zero, rules it out.
pub fn takes_gzip(header: Option<&str>) -> bool {
    let items = header.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty());
    let (mut gzip, mut any, mut other) = (None, None, false);
    for item in items {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let wanted = !parts.any(is_zero_weight);
        match coding.as_str() {
            "gzip" | "x-gzip" => gzip = Some(gzip.unwrap_or(false) || wanted),
            "*" => any = Some(wanted),
            _ => other = true,
        }
    }
    gzip.or(any).unwrap_or(!other)
}

/// `q=0`, `q=0.`, `Q = 0.000`: not wanted at all.
fn is_zero_weight(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::takes_gzip;

    #[test]
    fn gzip_is_sent_unless_ruled_out() {
        for header in [
            "",
            " , ",
            "gzip",
            "GZIP",
            "x-gzip",
            "gzip, deflate",
            "deflate, gzip;q=0.1",
            "br, *",
            "*;q=0.5",
            "identity, gzip",
            "gzip, *;q=0",
        ] {
            assert!(takes_gzip(Some(header)), "{header:?}");
        }
        assert!(takes_gzip(None));
    }

    #[test]
    fn gzip_is_ruled_out_by_weight_or_by_omission() {
        for header in ["identity", "br", "deflate, br", "gzip;q=0", "gzip; Q = 0.000", "*;q=0", "*, gzip;q=0", "gzip2"]
        {
            assert!(!takes_gzip(Some(header)), "{header:?}");
        }
    }
}
