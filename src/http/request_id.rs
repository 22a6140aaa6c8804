//! The id of a request: taken from the client or a proxy in front, or made; in every answer.

use actix_web::dev::ResponseHead;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use s3dedup_actors::Behalf;
use s3dedup_actors::model::RequestId;

/// The header, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id that came with the request, if it came once and is plain; else a new one.
pub fn of(headers: &HeaderMap) -> RequestId {
    let mut given = headers.get_all(X_REQUEST_ID);
    let only = given.next().filter(|_| given.next().is_none());
    only.and_then(|value| RequestId::parse(value.as_bytes())).unwrap_or_else(RequestId::random)
}

/// Tells the client.
pub fn show(behalf: &Behalf, head: &mut ResponseHead) {
    if let Some(value) = behalf.id().and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        head.headers_mut().insert(X_REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| headers.append(X_REQUEST_ID, HeaderValue::from_str(value).unwrap()));
        of(&headers).to_string()
    }

    #[test]
    fn a_plain_id_is_kept_and_anything_else_replaced() {
        assert_eq!(id(&["a-1"]), "a-1");
        for odd in [vec![], vec!["a b"], vec!["a", "a"], vec![""], vec!["a\"b"]] {
            assert_eq!(id(&odd).len(), 16, "{odd:?}");
        }
    }
}
