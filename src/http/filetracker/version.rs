//! `GET version`: which protocols are spoken.

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::Method;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse};

use crate::http::reply::Described;

const ANSWER: &str = r#"{"protocol_versions": [2]}"#;

pub fn get(request: &HttpRequest) -> HttpResponse {
    let body = if request.method() == Method::HEAD {
        Described(BodySize::Sized(ANSWER.len() as u64)).boxed()
    } else {
        BoxBody::new(ANSWER)
    };
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(body)
}
