//! Sends one signed request and tells success from failure.
//!
//! rust-s3 builds and signs the requests. They are sent here, because its own senders take the body
//! by copy, hash it three times on the caller's thread, have no connect timeout, end a long download
//! by the timeout of the request and hide the headers of a stream.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Response, Url, redirect};
use s3::command::Command;
use s3::creds::Credentials;
use s3::error::S3Error;
use s3::request::Request as _;
use s3::request::tokio_backend::ReqwestRequest;
use s3::{Bucket, Region, signing};

use super::fault::{Fault, Refusal};
use super::settings::S3Settings;
use crate::model::{Error, Kind, Result};

/// What S3 names the body's hash in a request without a body.
pub(super) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The longest answer that is read into memory; a page of 1,000 names is far below.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Idle connections are closed before usual servers close them.
const POOL_IDLE: Duration = Duration::from_secs(20);
const POOL_IDLE_MAX: usize = 64;
/// Who gives up sooner was not kept waiting by the server: clients come and go.
const SILENCE_MIN: Duration = Duration::from_millis(900);
/// Threads come and go in tests only; past this many the clients of dead ones are dropped.
const CLIENTS_MAX: usize = 256;

/// The way to one bucket.
pub(super) struct Wire {
    bucket: Bucket,
    settings: S3Settings,
    /// A connection is driven by the runtime that opened it, and every actix arbiter is a runtime on
    /// a thread of its own: a client per thread keeps a busy or ended thread from stalling others.
    clients: Mutex<HashMap<ThreadId, Client>>,
}

impl Wire {
    pub fn new(settings: S3Settings) -> Result<Self> {
        settings.check()?;
        let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
        if Url::parse(&endpoint).is_err() {
            return Err(Error::new(Kind::Invalid, "the S3 endpoint is not a URL"));
        }
        let region = Region::Custom { region: settings.region.clone(), endpoint };
        let (access, secret) = (&settings.access_key, &settings.secret_key);
        let credentials = Credentials::new(Some(access), Some(secret), None, None, None)
            .map_err(|_| Error::new(Kind::Invalid, "the S3 keys cannot be used"))?;
        let broken = |error: S3Error| Error::new(Kind::Internal, "the S3 client cannot be set up").with_source(error);
        let mut bucket = *Bucket::new(&settings.bucket, region, credentials).map_err(broken)?;
        if settings.force_path_style {
            bucket.set_path_style();
        }
        let wire = Self { bucket, settings, clients: Mutex::default() };
        // What cannot be built is found at start, not at the first request.
        wire.client().map_err(|fault| fault.into_error("set up"))?;
        Ok(wire)
    }

    pub fn settings(&self) -> &S3Settings {
        &self.settings
    }

    fn client(&self) -> Result<Client, Fault> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = thread::current().id();
        if let Some(client) = clients.get(&thread) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .connect_timeout(self.settings.timeouts.connect)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(15))
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            // A redirected request would carry a signature for the wrong host.
            .redirect(redirect::Policy::none())
            .http1_only();
        if self.is_loopback() {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            Fault::Local(Error::new(Kind::Internal, "the S3 client cannot be set up").with_source(error))
        })?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(thread, client.clone());
        Ok(client)
    }

    fn is_loopback(&self) -> bool {
        let host = Url::parse(&self.settings.endpoint).ok().and_then(|url| url.host_str().map(str::to_owned));
        host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."))
    }

    /// Sends a request that rust-s3 builds completely; only success is `Ok`.
    pub async fn send(&self, path: &str, command: Command<'_>) -> Result<Response, Fault> {
        let request = ReqwestRequest::new(&self.bucket, path, command).await.map_err(unsigned)?;
        let headers = request.headers().await.map_err(unsigned)?;
        let body = Body::from(request.request_body().map_err(unsigned)?);
        self.exchange(&request, headers, body).await
    }

    /// Sends `body`, of `size` bytes and the hash `sha256`, with `headers` added. The command tells
    /// the method and the URL only.
    pub async fn send_body(
        &self,
        path: &str,
        command: Command<'_>,
        headers: HeaderMap,
        body: Body,
        size: u64,
        sha256: &str,
    ) -> Result<Response, Fault> {
        let request = ReqwestRequest::new(&self.bucket, path, command).await.map_err(unsigned)?;
        let headers = self.sign(&request, headers, size, sha256).await.map_err(unsigned)?;
        self.exchange(&request, headers, body).await
    }

    async fn sign(
        &self,
        request: &ReqwestRequest<'_>,
        mut headers: HeaderMap,
        size: u64,
        sha256: &str,
    ) -> Result<HeaderMap, S3Error> {
        headers.insert(HOST, request.host_header().parse()?);
        headers.insert(CONTENT_LENGTH, size.into());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(HeaderName::from_static("x-amz-content-sha256"), sha256.parse()?);
        headers.insert(HeaderName::from_static("x-amz-date"), request.long_date()?.parse()?);
        let verb = request.command.http_verb().to_string();
        let canonical = signing::canonical_request(&verb, &request.url()?, &headers, sha256)?;
        let mut mac = <signing::HmacSha256 as hmac::Mac>::new_from_slice(&request.signing_key().await?)?;
        hmac::Mac::update(&mut mac, request.string_to_sign(&canonical)?.as_bytes());
        let authorization = signing::authorization_header(
            &self.settings.access_key,
            &request.datetime,
            &self.bucket.region,
            &signing::signed_header_string(&headers),
            &hex::encode(hmac::Mac::finalize(mac).into_bytes()),
        )?;
        headers.insert(AUTHORIZATION, authorization.parse()?);
        Ok(headers)
    }

    async fn exchange(&self, request: &ReqwestRequest<'_>, headers: HeaderMap, body: Body) -> Result<Response, Fault> {
        let verb = request.command.http_verb().to_string();
        let method = Method::from_bytes(verb.as_bytes()).map_err(|error| unsigned(S3Error::Http(error.into())))?;
        let url = request.url().map_err(unsigned)?;
        let call = self.client()?.request(method, url).headers(headers).body(body);
        let mut watch = GivenUp { wire: self, began: Instant::now(), has_ended: false };
        let response = call.send().await.map_err(Fault::Broken)?;
        watch.has_ended = true;
        drop(watch);
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        // The status counts, whatever becomes of the explanation.
        let body = answer(response).await.unwrap_or_default();
        Err(Fault::Refused(self.refusal(status, body.as_bytes())))
    }

    /// Reads an error document.
    pub fn refusal(&self, status: u16, body: &[u8]) -> Refusal {
        Refusal::read(status, body, &[&self.settings.access_key, &self.settings.secret_key])
    }
}

/// Notices that nobody waits for an answer any more that has not come for long: connections that were opened at the same time
/// may lead nowhere as well, and nothing would tell. All new requests get new ones.
struct GivenUp<'a> {
    wire: &'a Wire,
    began: Instant,
    has_ended: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.has_ended && self.began.elapsed() > SILENCE_MIN {
            self.wire.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

/// Reads a short answer whole.
pub(super) async fn answer(mut response: Response) -> Result<String, Fault> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(Fault::Broken)? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(Fault::Nonsense("the answer is too long".to_owned()));
        }
        body.extend_from_slice(&piece);
    }
    String::from_utf8(body).map_err(|_| Fault::Nonsense("the answer is not UTF-8".to_owned()))
}

fn unsigned(error: S3Error) -> Fault {
    Fault::Local(Error::new(Kind::Internal, "the S3 request cannot be built").with_source(error))
}
